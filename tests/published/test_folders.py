"""Folders that hold no model: what they hold is named, with what to do."""

import json

import pytest
import torch
from safetensors.torch import save_file

from fixtures.published.files import INDEX, SINGLE, Files, not_found
from fixtures.published.release import ReleaseError, at_path

ADAPTER = {"peft_type": "LORA", "base_model_name_or_path": "org/base", "r": 4, "target_modules": ["q_proj"]}


def adapter(folder, *, rank=4, halves="AB", front="base_model.model.", module="q_proj", **settings):
    """Write an adapter of two matrices."""
    (folder / "adapter_config.json").write_text(json.dumps(ADAPTER | settings))
    shapes = {"A": (rank, 16), "B": (16, rank)}
    tensors = {f"{front}layers.0.{module}.lora_{one}.weight": torch.zeros(shapes[one]) for one in halves}
    save_file(tensors, folder / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {},
            "found an adapter of org/base (LORA of rank 4 on q_proj; adapter_config.json), and no model. Check",
        ),
        ({"rank": 2}, "Its matrices are of rank 2, and adapter_config.json says 4."),
        ({"halves": "A"}, "1 of its pairs lack a half (base_model.model.layers.0.q_proj)."),
        ({"front": ""}, "2 of its 2 names lack 'base_model.model.' in front (layers.0.q_proj.lora_A.weight)."),
        ({"module": "v_proj"}, "It is said to be of q_proj, and has none but for v_proj."),
        ({"target_modules": ["k_proj", "q_proj"]}, "It has no matrices for k_proj, which adapter_config.json names."),
        ({"use_dora": True}, "It is DoRA, with 0 lora_magnitude_vector for 1 pairs."),
        ({"base_model_name_or_path": None}, "Write base_model_name_or_path into adapter_config.json"),
    ],
    ids=["whole", "another-rank", "half", "other-names", "other-module", "module-lost", "half-of-dora", "no-base"],
)
def test_an_adapter_is_named_as_one_of_its_base(tmp_path, given, sentence):
    adapter(tmp_path, **given)
    with pytest.raises(ReleaseError) as caught:
        at_path(tmp_path).config  # noqa: B018 - it is read
    assert sentence in str(caught.value)


def test_an_adapter_that_is_pickled_is_said_to_be(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps(ADAPTER))
    (tmp_path / "adapter_model.bin").write_bytes(b"PK")
    with pytest.raises(ReleaseError, match=r"adapter_model\.bin is pickled\. Save it again with PEFT\."):
        at_path(tmp_path).config  # noqa: B018 - it is read


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["model.gguf"], "GGUF, which llama.cpp reads"),
        (["consolidated.00.pth", "params.json"], "the layout of its makers' own code"),
        (["global_step100", "latest"], "a state of training, in shards"),
        (["model_index.json"], "a pipeline of the diffusers library"),
    ],
    ids=["gguf", "original", "training", "pipeline"],
)
def test_other_layouts_are_named(tmp_path, names, sentence):
    for name in names:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ReleaseError) as caught:
        at_path(tmp_path).config  # noqa: B018 - it is read
    assert sentence in str(caught.value)


def test_checkpoints_in_folders_below_are_named(tmp_path):
    (tmp_path / "checkpoint-500").mkdir()
    (tmp_path / "checkpoint-500" / "config.json").write_text("{}")
    with pytest.raises(ReleaseError, match=r"checkpoints in folders below it: checkpoint-500\. Name one of them"):
        at_path(tmp_path).config  # noqa: B018 - it is read


def test_shards_that_are_not_all_there_are_counted():
    sentence = not_found(["model-00001-of-00004.safetensors", "model-00003-of-00004.safetensors"])
    assert "of 4 the shards 2, 4 are not here" in sentence


@pytest.mark.parametrize(
    ("sizes", "shards", "sentence"),
    [
        ({"a.safetensors": 1, INDEX: 1}, {"w": "a.safetensors"}, ""),
        (
            {INDEX: 1},
            {"w": "a.safetensors"},
            f"{INDEX} names 1 of 1 files that are not here: a.safetensors. Fetch",
        ),
        ({SINGLE: 1}, {}, ""),
    ],
    ids=["there", "absent", "no-index"],
)
def test_what_the_index_names_is_there_or_named(sizes, shards, sentence):
    assert Files(sizes, shards).absent().removesuffix(" them") == sentence


def test_a_stray_shard_is_one_that_nothing_names():
    stray = "model-00001-of-00002.safetensors"
    assert stray in Files({SINGLE: 1, stray: 1}).unread()
    assert Files({SINGLE: 1, "consolidated.safetensors": 1, "model.fp16.safetensors": 1}).unread() == ""

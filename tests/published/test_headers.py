"""Headers: what is read of files of weights, and how it is held against an architecture."""

import json
import struct
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fixtures.published.files import INDEX, SINGLE
from fixtures.published.headers import (
    HeadersError,
    Tensor,
    compare,
    in_directory,
    layers_by_number,
    spans,
    tied,
    weights_among,
)
from tests.support.ward import healthy

OPT, MIXTRAL, T5 = "facebook/opt-125m", "mistralai/Mixtral-8x7B-v0.1", "google-t5/t5-small"


def write(file, header, *, data=b"", length=None):
    """Write a file of the format by hand."""
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(content) if length is None else length) + content + data)


def test_a_single_file_is_read(tmp_path):
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16)}, tmp_path / SINGLE)
    found = in_directory(tmp_path)
    assert dict(found.tensors) == {"a": Tensor("F32", (2, 3)), "b": Tensor("BF16", (4,))}
    assert (found.parameters, found.dtypes, found.cut) == (10, {"F32": 6, "BF16": 4}, ())
    assert found.stored_as == {"a": "float32", "b": "bfloat16"}


def test_shards_are_read_as_one(tmp_path):
    model: Any = healthy(OPT).miniature.model
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size=sum(p.nbytes for p in model.parameters()) // 3)
    one, many = in_directory(tmp_path / "one"), in_directory(tmp_path / "many")
    assert len(many.files) > len(one.files) == 1
    assert many.tensors == one.tensors


def test_what_is_cut_off_is_named(tmp_path):
    file = tmp_path / SINGLE
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(4)}, file)
    file.write_bytes(file.read_bytes()[:-1])
    assert in_directory(tmp_path).cut == ("b",)


def test_a_shard_that_is_not_there_is_cut_off(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "1.safetensors")
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}))
    assert in_directory(tmp_path).cut == ("b",)


@pytest.mark.parametrize(
    ("header", "claimed"),
    [
        (b"", 0),
        (b"{", 10**18),
        (b"\xff\xfe", None),
        (b"[]", None),
        (b"{" * 3000, None),
        ({"a": {"dtype": "F32", "shape": [2]}}, None),
        ({"a": {"dtype": "F32", "shape": "two", "data_offsets": [0, 8]}}, None),
        ({"a": 1}, None),
    ],
    ids=["empty", "too-long", "not-text", "a-list", "too-deep", "no-offsets", "no-shape", "no-tensor"],
)
def test_a_header_that_is_none_is_refused(tmp_path, header, claimed):
    write(tmp_path / SINGLE, header, length=claimed)
    with pytest.raises(HeadersError, match=rf"^{SINGLE}: expected a safetensors file, found none: .*\. Save or fetch"):
        in_directory(tmp_path)


def test_a_file_shorter_than_its_length_is_refused(tmp_path):
    (tmp_path / SINGLE).write_bytes(b"abc")
    with pytest.raises(HeadersError, match="expected a safetensors file, found none"):
        in_directory(tmp_path)


@pytest.mark.parametrize(
    "index",
    ["", "[]", '{"weight_map": {"a": "../x.safetensors"}}', '{"weight_map": {"a": "x.bin"}}'],
    ids=["empty", "a-list", "elsewhere", "pickled"],
)
def test_an_index_that_is_none_is_refused(tmp_path, index):
    (tmp_path / INDEX).write_text(index)
    with pytest.raises(HeadersError, match="to name a shard beside it for each tensor"):
        in_directory(tmp_path)


def test_a_directory_without_the_format_is_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(HeadersError, match=r"found pytorch_model\.bin\. Save the model with save_pretrained"):
        in_directory(tmp_path)


def test_weights_are_told_from_what_training_leaves():
    names = [
        "model.safetensors",
        "training_args.bin",
        "optimizer.pt",
        "rng_state_0.pth",
        "onnx/model.bin",
        "config.json",
    ]
    assert weights_among(names) == ["model.safetensors"]


@pytest.mark.parametrize("kind", [OPT, MIXTRAL, T5], ids=["decoder", "experts", "encoder-decoder"])
def test_what_a_model_saves_fits_it(tmp_path, kind):
    specimen = healthy(kind).miniature
    specimen.model.save_pretrained(tmp_path)  # type: ignore[operator]
    fit = compare(in_directory(tmp_path), specimen.config)
    assert (fit.missing, fit.unexpected, fit.mismatched_shapes) == ((), (), {})
    assert fit.tensors == len(in_directory(tmp_path).tensors)


def test_a_tied_head_is_not_missed(tmp_path):
    model: Any = healthy(OPT).miniature.model
    model.save_pretrained(tmp_path)
    assert "lm_head.weight" not in in_directory(tmp_path).tensors
    assert any("lm_head.weight" in names for names in tied(model))


@pytest.mark.parametrize(
    ("names", "blocks", "found"),
    [
        (["model.layers.0.w", "model.layers.3.w", "model.norm"], ["model.layers.0", "model.layers.1"], [{0, 3}]),
        (["layers.0.w", "layers.0.v", "layers.7.w"], ["model.layers.0"], [{0, 7}]),
        (["h.0.w"], ["model.layers.0"], []),
        (
            ["encoder.layers.0.w", "decoder.layers.0.w", "decoder.layers.1.w"],
            ["m.encoder.layers.0", "m.decoder.layers.0"],
            [{0}, {0, 1}],
        ),
        (["model.layers.0.experts.0.w", "model.layers.0.experts.1.w"], ["model.layers.0"], [{0}]),
    ],
    ids=["all", "without-the-front", "other-names", "two-stacks", "experts"],
)
def test_layers_are_known_by_their_numbers(names, blocks, found):
    assert [there for _, there in layers_by_number(names, blocks).values()] == found


@pytest.mark.parametrize(
    ("numbers", "text"), [([], "none"), ([0, 1, 2], "0-2"), ([0, 1, 3], "0-1, 3"), ([4], "4")], ids=str
)
def test_numbers_are_written_as_runs(numbers, text):
    assert spans(numbers) == text

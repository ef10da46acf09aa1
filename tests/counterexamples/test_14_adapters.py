"""Counterexamples of chapter 14, its claims on adapters."""

import json
import shutil
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fixtures.claims.model_under_test import Subject
from fixtures.published.adapter import CONFIG, FRONT, WEIGHTS
from fixtures.published.release import at_path
from tests.support.adapters import of_layers, save
from tests.support.checkpoints import SMALL, make, save_tokenizer
from tests.support.ward import examine, matrix

pytestmark = pytest.mark.slow

LLAMA: dict[str, Any] = SMALL | {"model_type": "llama", "bos_token_id": 1, "eos_token_id": 2}
SOUND = of_layers(2, "self_attn.q_proj", 32, 32) | of_layers(2, "self_attn.k_proj", 32, 16)
WHOLE = "test_an_adapter_is_whole"
IN_THE_BASE, AS_WIDE = (
    "test_each_matrix_of_an_adapter_has_its_module_in_the_base",
    "test_each_matrix_of_an_adapter_is_as_wide_as_its_module",
)
ROWS = "test_rows_that_an_adapter_adds_are_those_of_its_tokenizer"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A small Llama."""
    return make(tmp_path_factory.mktemp("models") / "base", **LLAMA)


@pytest.fixture
def made(base, tmp_path):
    """Save an adapter beside a copy of its base."""
    shutil.copytree(base, tmp_path / "base")
    return lambda widths=SOUND, whole=None, **more: save(tmp_path / "adapter", "org/base", widths, whole, **more)


@pytest.fixture
def fails(request):
    """See the claims of the `breaks` mark fail on the adapter in a folder, and no others of the chapter."""

    def check(folder, *, why=""):
        claims = request.node.get_closest_marker("breaks").args
        found = examine(Subject(at_path(folder), matrix().traits), chapter="14")
        failed = {name: result["reason"] for name, result in found.items() if result["verdict"] == "fails"}
        assert set(failed) == set(claims), failed
        for claim in claims:
            assert why in failed[claim], failed[claim]
        return {name: found[name]["verdict"] for name in (WHOLE, IN_THE_BASE, AS_WIDE, ROWS)} | {
            "why": found[IN_THE_BASE]["reason"]
        }

    return check


@pytest.mark.breaks
@pytest.mark.parametrize(
    "more", [{}, {"use_dora": True}, {"rank_pattern": {"q_proj": 8}}, {"layers_to_transform": [0, 1]}]
)
def test_of_what_is_sound_no_claim_fails(fails, made, more):
    """Nothing is broken: all that is said of the adapter holds, and a table of its own it has not."""
    found = fails(made(**more))
    assert (found[WHOLE], found[IN_THE_BASE], found[AS_WIDE], found[ROWS]) == (*["holds"] * 3, "does not apply")


@pytest.mark.breaks
def test_without_its_base_the_rest_is_said(tmp_path):
    """Nothing is broken: the base is nowhere here, and what was not looked at for it is named, with what to do.

    Whoever takes it for a model hears that it is none.
    """
    folder = save(tmp_path / "adapter", "org/base", SOUND)
    found = examine(Subject(at_path(folder), matrix().traits), claims="adapter")
    assert [found[name]["verdict"] for name in (WHOLE, IN_THE_BASE, AS_WIDE, ROWS)] == ["holds", *["not run"] * 3]
    why = found[IN_THE_BASE]["reason"]
    assert "org/base, its base model, is not here: whether its modules and their widths" in why
    assert "type `hf download org/base config.json`" in why
    (taken,) = examine(Subject(at_path(folder), matrix().traits), claims="family_is_the_declared").values()
    assert taken["verdict"] == "fails"
    assert "is an adapter of org/base" in taken["reason"]


@pytest.mark.breaks(WHOLE)
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            lambda found: found.pop(f"{FRONT}model.layers.1.self_attn.q_proj.lora_B.weight"),
            "1 of its pairs lack a half",
        ),
        (
            lambda found: found.update({f"{FRONT}model.layers.1.self_attn.q_proj.lora_A.weight": torch.zeros(2, 32)}),
            "1 of its pairs are of rank 2, 4",
        ),
    ],
    ids=["half", "rank"],
)
def test_a_pair_that_is_none(fails, made, change, why):
    """One matrix is not there, or of another rank than the other."""
    folder = made()
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
    fails(folder, why=why)


@pytest.mark.breaks(WHOLE)
def test_a_rank_of_one_module_that_is_another(fails, made):
    """The settings give the queries twice the rank that their matrices have."""
    folder = made()
    settings = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(settings | {"rank_pattern": {"q_proj": 8}}))
    fails(folder, why=f"2 of its pairs are of rank 4, and {CONFIG} says 8")


@pytest.mark.breaks(WHOLE)
def test_weights_that_are_not_there(fails, made):
    """The settings came without the weights."""
    folder = made()
    (folder / WEIGHTS).unlink()
    fails(folder, why=f"Its weights ({WEIGHTS}) are not here")


@pytest.mark.breaks(IN_THE_BASE)
@pytest.mark.parametrize(
    ("widths", "more", "why"),
    [
        (
            of_layers(4, "self_attn.q_proj", 32, 32),
            {},
            "2 of 4 modules are not in the base (model.layers.{2-3}.self_attn.q_proj (2); its layers are 0-1).",
        ),
        (
            SOUND | of_layers(2, "self_attn.c_proj", 32, 32),
            {},
            "target_modules names c_proj, and no module of the base is called so",
        ),
        (SOUND, {"layers_to_transform": [0, 5]}, "layers_to_transform names 5, and the base has layers 0-1"),
        (
            SOUND,
            {"modules_to_save": ["pooler"]},
            "modules_to_save names pooler, and no module of the base is called so",
        ),
    ],
    ids=["layers", "module", "layers-to-transform", "modules-to-save"],
)
def test_what_the_base_has_not(fails, made, widths, more, why):
    """The adapter is of a deeper model, or of modules that the base has not."""
    fails(made(widths, **more), why=why)


@pytest.mark.breaks(AS_WIDE)
@pytest.mark.parametrize(
    ("widths", "whole", "why"),
    [
        (
            of_layers(2, "self_attn.q_proj", 64, 32),
            {},
            "model.layers.0.self_attn.q_proj: lora_A is [4, 64], and the base has 32 features in",
        ),
        (of_layers(2, "self_attn.k_proj", 32, 32), {}, "lora_B is [32, 4], and the base has 16 features out"),
        (SOUND, {"model.norm.weight": (64,)}, "model.norm.weight is [64], and the base has [32]"),
    ],
    ids=["in", "out", "whole"],
)
def test_a_base_of_other_widths(fails, made, widths, whole, why):
    """The adapter is of a model with other widths."""
    fails(made(widths, whole), why=why)


@pytest.mark.breaks(ROWS)
@pytest.mark.parametrize("ids", [0, 150])
def test_rows_that_no_tokenizer_has(fails, made, ids):
    """The adapter has eleven rows more than the base, and no tokenizer, or another one, beside it."""
    folder = made(whole={"model.embed_tokens.weight": (110, 32)}, modules_to_save=["embed_tokens"])
    if ids:
        save_tokenizer(folder, ids)
    fails(folder, why="model.embed_tokens.weight has 110 rows, the base 99, and")


@pytest.mark.breaks
@pytest.mark.parametrize("rows", [99, 110, 128])
def test_rows_that_its_tokenizer_has(fails, made, rows):
    """Nothing is broken: rows were added for the tokenizer beside the adapter, or for it and some more."""
    folder = made(whole={"model.embed_tokens.weight": (rows, 32)}, modules_to_save=["embed_tokens"])
    save_tokenizer(folder, 110 if rows > 99 else 99)
    assert fails(folder)[ROWS] == "holds"

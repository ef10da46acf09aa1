"""Counterexamples of chapter 14's packed weights: scales and matrices lost, groups, bits and settings of another."""

import json
import shutil

import pytest

from fixtures.claims.model_under_test import Subject
from fixtures.published.release import at_path
from tests.support import packed
from tests.support.ward import examine, matrix

pytestmark = pytest.mark.slow

METHOD = "test_the_config_names_the_method_of_packed_weights"
SCALES = "test_each_packed_matrix_has_its_scales"
GROUPS = "test_there_is_a_scale_for_each_group"
WHERE = "test_a_matrix_is_packed_where_the_config_says_so"
BITS = "test_a_weight_takes_the_bits_that_the_config_promises"
CLAIMS = {METHOD, SCALES, GROUPS, WHERE, BITS}
LAYER = "model.layers.0.mlp.gate_proj"


def looked_at(folder):
    """What the claims of the chapter say of a folder, by claim."""
    return examine(Subject(at_path(folder), matrix().traits), chapter="14")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder with a sound checkpoint, by the method that packs it."""
    made = {}

    def make(method):
        if method not in made:
            made[method] = packed.save(method, tmp_path_factory.mktemp(method))
        return made[method]

    return make


@pytest.fixture
def copy(published, tmp_path):
    """Copy a sound checkpoint, to be damaged."""
    return lambda method: shutil.copytree(published(method), tmp_path / "copy")


@pytest.fixture
def fails(request):
    """See the claims of the `breaks` mark fail on the files in a folder, and no others of the chapter but `also`."""

    def check(folder, *, also=(), why=""):
        claims = request.node.get_closest_marker("breaks").args
        found = looked_at(folder)
        failed = {name: result["reason"] for name, result in found.items() if result["verdict"] == "fails"}
        assert set(failed) == {*claims, *also}, failed
        for claim in claims:
            assert why in failed[claim], failed[claim]
        return found

    return check


@pytest.mark.breaks(METHOD)
@pytest.mark.parametrize("method", packed.METHODS)
def test_packed_weights_without_a_config(fails, copy, method):
    """The numbers are packed, and the config does not say so."""
    found = fails(packed.configure(copy(method), drop=("quantization_config",)), why="observed 'none'")
    assert "Put the quantization_config that they were packed with back" in found[METHOD]["reason"]
    assert {found[name]["verdict"] for name in (WHERE, BITS)} == {"not run"}


@pytest.mark.breaks(METHOD)
@pytest.mark.parametrize("method", ["fp8", "gptq", "bnb-nf4", "compressed-integers"])
def test_a_config_left_behind(fails, published, tmp_path, method):
    """The matrices are in full, and the config still says how they were packed."""
    settings = json.loads((published(method) / "config.json").read_text())["quantization_config"]
    folder = packed.configure(packed.save_full(tmp_path / "full"), quantization_config=settings)
    found = fails(folder, why="none packed, 16 in full (BF16). Drop quantization_config")
    assert {found[name]["verdict"] for name in CLAIMS - {METHOD}} == {"not run"}


@pytest.mark.breaks(METHOD)
def test_a_config_that_names_another_method(fails, copy):
    """The numbers are GPTQ's, and the config says fp8."""
    fails(packed.settings(copy("gptq"), quant_method="fp8"), why="expected 'GPTQ: ")


@pytest.mark.breaks(SCALES)
def test_scales_that_were_dropped(fails, copy):
    """The weights travel without some of their scales: 200 times too large."""
    kept = packed.rewrite(
        copy("fp8"), lambda tensors: {n: t for n, t in tensors.items() if "gate_proj.weight_scale" not in n}
    )
    fails(kept, why=f"'{LAYER}.weight_scale_inv'")


@pytest.mark.breaks(SCALES)
def test_scales_that_were_left_alone(fails, copy):
    """A packed matrix is not there, but its scales are."""
    kept = packed.rewrite(copy("gptq"), lambda tensors: {n: t for n, t in tensors.items() if n != f"{LAYER}.qweight"})
    found = fails(kept, also=["test_no_tensor_is_missing"], why=f"{LAYER}.scales")
    assert f"{LAYER}.weight" in found["test_no_tensor_is_missing"]["reason"]


@pytest.mark.breaks(SCALES)
def test_a_scale_of_a_matrix_in_full(fails, copy):
    """A matrix was unpacked, and its scale forgotten."""

    def unpack(tensors):
        tensors[f"{LAYER}.weight"] = tensors[f"{LAYER}.weight"].bfloat16()

    fails(packed.rewrite(copy("fp8"), unpack), also=[WHERE], why=f"{LAYER}.weight_scale_inv")


@pytest.mark.breaks(GROUPS)
def test_groups_of_another_size(fails, copy):
    """The config says groups of 128, the scales are those of groups of 32."""
    fails(packed.settings(copy("gptq"), group_size=128), why="[8, 128], not [2, 128]: groups of 32, promised 128")


@pytest.mark.breaks(GROUPS)
def test_blocks_that_are_cut(fails, copy):
    """Half of the scales of one matrix are not there."""
    name = f"{LAYER}.weight_scale_inv"
    half = packed.rewrite(copy("fp8"), lambda tensors: tensors | {name: tensors[name][:2]})
    fails(half, why=f"{name}: [2, 2], not [4, 2]")


@pytest.mark.breaks(WHERE)
def test_a_list_that_was_lost(fails, copy):
    """One matrix is in full, as a list said that is no longer in the config."""

    def unpack(tensors):
        found = {n: t for n, t in tensors.items() if not n.startswith(f"{LAYER}.")}
        return found | {f"{LAYER}.weight": tensors["lm_head.weight"].repeat(2, 1)}

    folder = packed.rewrite(copy("compressed-integers"), unpack)
    fails(folder, why=f"{LAYER}: in full (BF16), the config has it packed")
    packed.settings(folder, ignore=["lm_head", LAYER])
    assert not [r for r in looked_at(folder).values() if r["verdict"] == "fails"]


@pytest.mark.breaks(WHERE)
def test_a_list_of_what_is_packed(fails, copy):
    """A list leaves out what the files have packed."""
    folder = packed.settings(copy("awq"), modules_to_not_convert=["down_proj"])
    fails(folder, why="model.layers.0.mlp.down_proj: packed (AWQ), the config leaves it in full")


@pytest.mark.breaks(BITS)
def test_bits_of_another_number(fails, copy):
    """The config promises eight bits, the numbers take four."""
    fails(packed.settings(copy("gptq"), bits=8), why="4 bits, promised 8")

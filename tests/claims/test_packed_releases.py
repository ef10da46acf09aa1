"""Packed releases under all claims: no claim fails on a sound one, and what cannot be read is not accused."""

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


@pytest.fixture
def published(tmp_path):
    """Make a sound checkpoint that a method packs."""
    return lambda method: packed.save(method, tmp_path)


def looked_at(folder):
    """What the claims of chapter 14 say of a folder, by claim."""
    return examine(Subject(at_path(folder), matrix().traits), chapter="14")


@pytest.mark.parametrize("method", packed.METHODS)
def test_of_a_sound_release_no_claim_fails(published, method):
    found = looked_at(published(method))
    assert {name: r["reason"] for name, r in found.items() if r["verdict"] == "fails"} == {}
    assert {name for name, r in found.items() if r["verdict"] == "holds"} >= CLAIMS
    assert found["test_no_tensor_is_missing"]["verdict"] == "holds"


@pytest.mark.parametrize("method", ["fp8", "bnb-nf4"])
def test_no_claim_of_any_chapter_fails_on_a_sound_release(published, method):
    """The architecture's claims run on the config as if nothing were packed."""
    found = examine(
        Subject(at_path(published(method)), matrix().traits), marks="not (loading or quantization or gpu or benchmark)"
    )
    assert {name: r["reason"] for name, r in found.items() if r["verdict"] == "fails"} == {}
    assert len([r for r in found.values() if r["verdict"] == "holds"]) > 60


def test_of_a_release_in_full_the_claims_do_not_speak(tmp_path):
    found = looked_at(packed.save_full(tmp_path / "full"))
    assert {found[name]["verdict"] for name in CLAIMS} == {"does not apply"}
    assert "in full, and its config says nothing else" in found[METHOD]["reason"]


def test_a_method_without_a_law_is_named(tmp_path):
    """What cannot be unpacked is not accused of anything: the claims that would need it say so."""
    folder = packed.save_full(tmp_path / "release")

    def change(tensors):
        found = {n: t for n, t in tensors.items() if not n.endswith("proj.weight")}
        for name, tensor in tensors.items():
            if name.endswith("proj.weight"):
                found |= packed.unheard_of(name.removesuffix(".weight"), tensor)
        return found

    packed.configure(packed.rewrite(folder, change), quantization_config={"quant_method": "unheard-of"})
    found = looked_at(folder)
    assert not [r for r in found.values() if r["verdict"] == "fails"]
    assert {found[name]["verdict"] for name in (METHOD, SCALES)} == {"holds"}
    assert "How unheard-of lays a matrix out is not known here" in found[WHERE]["reason"]

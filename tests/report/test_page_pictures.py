"""What pictures are drawn from: small, true to the model, and absent with a reason where it cannot be had."""

import json

import pytest

from fixtures.claims.model_under_test import Subject
from fixtures.claims.parametrize import ROOT, read_matrix
from fixtures.libraries.quantization import FullSize
from fixtures.published.release import recorded
from fixtures.report import pictures
from fixtures.report.pictures import MOST_ATTENTIONS


@pytest.fixture(scope="module")
def subject():
    """Return subjects of the matrix by id, each made once."""
    matrix, made = read_matrix(ROOT / "models.yaml"), {}

    def of(model: str) -> Subject:
        if model not in made:
            made[model] = Subject(recorded(matrix.entries[model]), matrix.traits)
        return made[model]

    return of


MODELS = ["facebook/opt-125m", "google-t5/t5-small", "mistralai/Mixtral-8x7B-v0.1", "state-spaces/mamba-130m-hf"]


@pytest.mark.parametrize("name", MODELS)
def test_pictures_are_small_json_without_trouble(subject, name):
    """Every part of every kind of model can be had, in some ten kilobytes."""
    drawn = pictures.pictures(subject(name))
    assert [name for name, part in drawn.items() if part and "trouble" in part] == []
    assert len(json.dumps(drawn)) < 40_000


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_is_in_one_part(subject, name):
    """The parts add up to the model at full size, and their bytes to those that chapter 9 counts."""
    model = subject(name)
    found = pictures.parameters(model)
    assert sum(found["parts"].values()) == model.skeleton.parameters
    full = FullSize(model.skeleton, model.miniature)
    held = {bits: sum(parts.values()) for bits, parts in found["bytes"].items()}
    assert held == {bits: full.weights(kind) for bits, kind in pictures.KINDS.items()}


def test_the_architecture_is_that_of_the_running_model(subject):
    """The stack of opt-125m: twelve alike blocks of twelve heads, each with four projections of 768 x 768."""
    drawn = pictures.architecture(subject("facebook/opt-125m"))
    assert drawn["embedding"] == {"name": "model.decoder.embed_tokens.weight", "shape": [50272, 768]}
    (stack,) = drawn["stacks"]
    (run,) = stack["runs"]
    assert (stack["role"], stack["layers"], run["count"], run["norm"], run["d_ff"]) == ("decoder", 12, 12, "pre", 3072)
    assert stack["positions"] == {"name": "model.decoder.embed_positions.weight", "shape": [2050, 768]}
    assert {role: [w["shape"] for w in several] for role, several in run["attention"]["weights"].items()} == {
        role: [[768, 768]] for role in ("query", "key", "value", "output")
    }
    assert drawn["head"]["tied"] is True


def test_experts_are_counted_apart(subject):
    """Of a mixture of experts most parameters are in the experts."""
    drawn = pictures.parameters(subject("mistralai/Mixtral-8x7B-v0.1"))
    assert drawn["parts"]["experts"] > 0.9 * sum(drawn["parts"].values())
    block = pictures.architecture(subject("mistralai/Mixtral-8x7B-v0.1"))["stacks"][0]["runs"][0]
    assert block["experts"][:2] == [8, 2]
    assert (block["attention"]["heads"], block["attention"]["kv_heads"]) == (32, 8)


def test_attention_of_a_decoder_is_a_triangle_over_its_pieces(subject):
    """Thousandths that sum to a thousand a row, nothing above the diagonal, and the sentence's pieces beside."""
    drawn = pictures.attention(subject("facebook/opt-125m"))
    assert drawn is not None
    assert drawn["source"][:2] == ["</s>", "The"]
    for one in drawn["maps"]:
        for head in one["weights"]:
            assert all(weight == 0 for y, row in enumerate(head) for x, weight in enumerate(row) if x > y)
            assert all(abs(sum(row) - 1000) <= len(row) for row in head)


def test_attention_of_an_encoder_decoder_has_both_sides(subject):
    """Encoder, decoder and cross-attention are there, each as long as its pieces."""
    drawn = pictures.attention(subject("google-t5/t5-small"))
    assert drawn is not None
    assert len(drawn["maps"]) <= MOST_ATTENTIONS
    shapes = {
        (one["stack"], one["cross"]): (len(one["weights"][0]), len(one["weights"][0][0])) for one in drawn["maps"]
    }
    source, target = len(drawn["source"]), len(drawn["target"])
    assert shapes == {
        ("encoder", False): (source, source), ("decoder", False): (target, target), ("decoder", True): (target, source)
    }  # fmt: skip


def test_what_attends_to_nothing_has_no_attention(subject):
    """A model without attention has neither maps nor positions."""
    mixer = subject("state-spaces/mamba-130m-hf")
    assert pictures.attention(mixer) is None
    assert pictures.places(mixer) is None


def test_alike_modules_stand_once(subject):
    """The tree counts twelve layers in one line."""

    def walk(branch):
        yield branch
        for child in branch.get("children", ()):
            yield from walk(child)

    (layers,) = [b for b in walk(pictures.tree(subject("facebook/opt-125m").skeleton)) if b.get("times") == 12]
    assert (layers["name"], layers["class"]) == ("0-11", "OPTDecoderLayer")


def test_a_part_that_cannot_be_had_says_why(subject, monkeypatch):
    """A picture that fails is a sentence in its place, and the others are there."""

    def broken(_):
        raise RuntimeError("no such module")

    monkeypatch.setattr(pictures, "tree", broken)
    drawn = pictures.pictures(subject("facebook/opt-125m"))
    assert drawn["tree"] == {"trouble": "RuntimeError: no such module"}
    assert "trouble" not in drawn["architecture"]

"""What pictures are drawn from: small, true to the model, and absent with a reason where it cannot be had."""

import base64
import json
import math
from typing import Any

import pytest
import torch

from fixtures.claims.model_under_test import Subject
from fixtures.claims.parametrize import ROOT, read_matrix
from fixtures.libraries.quantization import FullSize
from fixtures.published.release import recorded
from fixtures.report.pictures import gather
from fixtures.report.pictures.architecture import architecture
from fixtures.report.pictures.attention import MOST_ATTENTIONS, attention
from fixtures.report.pictures.experts import experts
from fixtures.report.pictures.grid import grid
from fixtures.report.pictures.memory import memory
from fixtures.report.pictures.parameters import KINDS, parameters
from fixtures.report.pictures.places import places
from fixtures.report.pictures.stream import stream
from fixtures.report.pictures.tree import tree
from fixtures.report.pictures.words import readable, words
from fixtures.report.settings import settings


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
    drawn = gather.pictures(subject(name))
    assert [name for name, part in drawn.items() if isinstance(part, dict) and "trouble" in part] == []
    assert len(json.dumps(drawn)) < 40_000


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_is_in_one_part(subject, name):
    """The parts add up to the model at full size, and their bytes to those that chapter 9 counts."""
    model = subject(name)
    full = FullSize(model.skeleton, model.miniature)
    found = parameters(model.skeleton, full)
    assert sum(found["parts"].values()) == model.skeleton.parameters
    held = {bits: sum(parts.values()) for bits, parts in found["bytes"].items()}
    assert held == {bits: full.weights(kind) for bits, kind in KINDS.items()}


def test_the_architecture_is_that_of_the_running_model(subject):
    """The stack of opt-125m: twelve alike blocks of twelve heads, each with four projections of 768 x 768."""
    drawn = architecture(subject("facebook/opt-125m"))
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
    model = subject("mistralai/Mixtral-8x7B-v0.1")
    drawn = parameters(model.skeleton, FullSize(model.skeleton, model.miniature))
    assert drawn["parts"]["experts"] > 0.9 * sum(drawn["parts"].values())
    block = architecture(subject("mistralai/Mixtral-8x7B-v0.1"))["stacks"][0]["runs"][0]
    assert block["experts"][:2] == [8, 2]
    assert (block["attention"]["heads"], block["attention"]["kv_heads"]) == (32, 8)


def test_attention_of_a_decoder_is_a_triangle_over_its_pieces(subject):
    """Thousandths that sum to a thousand a row, nothing above the diagonal, and the sentence's pieces beside."""
    drawn = attention(subject("facebook/opt-125m"))
    assert drawn is not None
    assert drawn["source"][:2] == ["</s>", "The"]
    for one in drawn["maps"]:
        for head in one["weights"]:
            assert all(weight == 0 for y, row in enumerate(head) for x, weight in enumerate(row) if x > y)
            assert all(abs(sum(row) - 1000) <= len(row) for row in head)


def test_attention_of_an_encoder_decoder_has_both_sides(subject):
    """Encoder, decoder and cross-attention are there, each as long as its pieces."""
    drawn = attention(subject("google-t5/t5-small"))
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
    assert attention(mixer) is None
    assert places(mixer) is None


def test_alike_modules_stand_once(subject):
    """The tree counts twelve layers in one line."""

    def walk(branch):
        yield branch
        for child in branch.get("children", ()):
            yield from walk(child)

    (layers,) = [b for b in walk(tree(subject("facebook/opt-125m").skeleton)) if b.get("times") == 12]
    assert (layers["name"], layers["class"]) == ("0-11", "OPTDecoderLayer")


def test_a_part_that_cannot_be_had_says_why(subject, monkeypatch):
    """A picture that fails is a sentence in its place, and the others are there."""

    def broken(_):
        raise RuntimeError("no such module")

    monkeypatch.setattr(gather, "tree", broken)
    drawn = gather.pictures(subject("facebook/opt-125m"))
    assert drawn["tree"] == {"trouble": "RuntimeError: no such module"}
    assert "trouble" not in drawn["architecture"]


def had(drawn: dict[str, Any] | None) -> dict[str, Any]:
    """A picture that this model has."""
    assert drawn is not None
    return drawn


def test_a_row_of_softmax_is_worked_out_as_it_ran(subject):
    """Products times the scale are the scores, their softmax the weights, and these weigh the values."""
    row = had(attention(subject("facebook/opt-125m")))["row"]
    scores = torch.tensor([score for score in row["scores"] if score is not None])
    products = torch.tensor([product for product in row["products"] if product is not None])
    torch.testing.assert_close(products * row["scale"], scores, atol=2e-3, rtol=0)
    weights = torch.tensor(row["weights"])
    torch.testing.assert_close(scores.softmax(-1), weights[: len(scores)], atol=2e-3, rtol=0)
    torch.testing.assert_close(weights @ torch.tensor(row["values"]), torch.tensor(row["sum"]), atol=5e-3, rtol=0)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (["</s>", "The", "\u0120quick"], ["</s>", "The", "quick"]),
        (["The", "\u0120app", "lies"], ["The", "app", "\u2026lies"]),
        (["[CLS]", "jump", "##s"], ["[CLS]", "jump", "\u2026s"]),
        (["\u2581The", "\u2581dog"], ["The", "dog"]),
        (["a", "b</w>"], ["a\u2026", "b"]),
    ],
)
def test_a_tokenizers_marks_are_words_to_a_reader(raw, shown):
    assert readable(raw) == shown


def test_the_sentence_stands_with_its_ids_and_vectors(subject):
    """As recorded of OPT; a vector for each piece, as the miniature looked it up."""
    drawn = had(words(subject("facebook/opt-125m")))
    assert drawn["ids"][:3] == [2, 133, 2119]
    assert drawn["pieces"][:3] == ["</s>", "The", "quick"]
    table = subject("facebook/opt-125m").miniature.trace.embedding.vectors[0]
    assert drawn["vectors"][0] == pytest.approx(table[0, : len(drawn["vectors"][0])].tolist(), abs=1e-3)


def test_sinusoids_are_long_enough_for_their_waves(subject):
    """Sine of the place in one half of the vector: what the code of the paper's model gives for place after place."""
    drawn = had(places(subject("Helsinki-NLP/opus-mt-en-fr")))
    rows, columns = drawn["shape"]
    assert rows > 100
    values = torch.frombuffer(bytearray(base64.b64decode(drawn["hundredths"])), dtype=torch.int8).reshape(rows, columns)
    fastest = values[:, 0].float() / 100
    expected = torch.tensor([math.sin(place) for place in range(rows)])
    torch.testing.assert_close(fastest, expected, atol=0.01, rtol=0)


def test_angles_are_those_of_the_rotation(subject):
    """The first pair turns by one radian a place, the others by ever less."""
    angles = had(places(subject("Qwen/Qwen3-0.6B")))["angles"]
    assert angles[0] == pytest.approx(1.0, abs=1e-4)
    assert angles == sorted(angles, reverse=True)
    assert len(set(angles)) > 2


def test_the_stream_is_what_ran(subject):
    """A block is entered by what the block below left, and each of its sublayers is named."""
    (drawn,) = stream(subject("facebook/opt-125m"))
    first, second = drawn["blocks"][:2]
    assert first["left"] == second["entered"]
    assert len(first["added"]) == 2


def test_experts_are_those_of_the_router(subject):
    """Two of those there are, for each token, none twice."""
    drawn = experts(subject("mistralai/Mixtral-8x7B-v0.1"))
    assert drawn
    assert all(len(set(picked)) == 2 and max(picked) < one["experts"] for one in drawn for picked in one["chosen"])
    assert experts(subject("facebook/opt-125m")) is None


def test_weights_on_their_grids_are_near_what_they_were(subject):
    """Within half a step of 8 bits, and on one of sixteen levels of 4."""
    model = subject("facebook/opt-125m")
    drawn = had(grid(model, FullSize(model.skeleton, model.miniature)))
    step = drawn["eight"]["largest"] / 127
    for weight, code, level in zip(drawn["weights"], drawn["eight"]["codes"], drawn["four"]["codes"], strict=True):
        assert abs(weight - code * step) <= 0.51 * step
        levels = [abs(weight - value * drawn["four"]["largest"]) for value in drawn["four"]["levels"]]
        assert levels[level] == pytest.approx(min(levels), abs=1e-4)


def test_memory_is_that_of_chapter_nine(subject):
    """Weights, the largest block, and the cache of a token: 2 * 2 bytes * layers * kv_heads * d_head."""
    model = subject("meta-llama/Llama-3.1-8B")
    full = FullSize(model.skeleton, model.miniature)
    drawn = memory(model, full)
    assert drawn["weights"] == {bits: full.weights(kind) for bits, kind in KINDS.items()}
    assert drawn["cache"] == 2 * 2 * 32 * 8 * 128
    assert drawn["largest"]["32 bits"] < drawn["weights"]["32 bits"] / 20


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("facebook/opt-125m", {"activation": "ReLU", "gated": False, "norm_kind": "LayerNorm", "context": 2048}),
        (
            "meta-llama/Llama-3.1-8B",
            {"activation": "SiLU", "gated": True, "norm_kind": "RMSNorm", "rotary_base": 500000.0},
        ),
        ("FacebookAI/roberta-base", {"activation": "GELU", "gated": False, "norm_kind": "LayerNorm", "context": 514}),
    ],
)
def test_settings_are_those_that_are_published(subject, name, expected):
    assert settings(subject(name)).items() >= expected.items()

"""Classes other than those that write: a release is read as the class it names, and no claim fails on a sound one."""

import json
from typing import Any

import pytest
import torch
import transformers

from fixtures.claims.model_under_test import Subject
from fixtures.claims.real_weights import Loaded
from fixtures.published.release import at_path
from tests.support.checkpoints import SMALL, make
from tests.support.ward import examine, matrix

pytestmark = pytest.mark.slow

USUAL = "not (loading or learning or quantization or gpu)"
BERT: dict[str, Any] = SMALL | {"model_type": "bert", "num_key_value_heads": 4}
LLAMA: dict[str, Any] = SMALL | {"model_type": "llama", "pad_token_id": 0}
T5: dict[str, Any] = {
    "model_type": "t5",
    "vocab_size": 99,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 40,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
CLASSES = {
    "BertModel": (BERT, "encoder-only"),
    "BertForTokenClassification": (BERT | {"num_labels": 5}, "encoder-only"),
    "LlamaModel": (LLAMA, "decoder-only"),
    "LlamaForSequenceClassification": (LLAMA | {"num_labels": 1}, "decoder-only"),
    "T5EncoderModel": (T5, "encoder-only"),
    "T5Model": (T5, "encoder-decoder"),
}


@pytest.mark.parametrize("cls", CLASSES)
def test_a_release_is_of_the_class_it_names(cls, tmp_path):
    """Its parameters are those of that class, it has no head that scores tokens, and nothing is said of writing."""
    config, family = CLASSES[cls]
    folder = make(tmp_path / "one", cls=cls, **config)
    subject = Loaded(Subject(at_path(folder), matrix().traits))
    found = examine(subject, marks=USUAL)
    assert {claim: r["reason"] for claim, r in found.items() if r["verdict"] in ("fails", "not run")} == {}
    with torch.device("meta"):
        whole = getattr(transformers, cls)(subject.release.config)
    facts = {name: subject.facts[name] for name in ("family", "parameters", "tied_embeddings", "vocab_size")}
    numbers = sum(p.numel() for p in whole.parameters())
    assert facts == {"family": family, "parameters": numbers, "tied_embeddings": None, "vocab_size": 99}
    written = [r["verdict"] for name, r in found.items() if "test_10_" in r["claim"] and "encoder_cannot" not in name]
    assert set(written) == {"does not apply"}


def test_a_norm_without_its_gain_is_found_where_the_model_ends_in_one(tmp_path):
    """What a last layer norm evens out is not what a model says."""
    subject = Subject(at_path(make(tmp_path / "one", cls="BertModel", **BERT)), matrix().traits)
    norm: Any = subject.miniature.model.get_submodule("encoder.layer.0.output.LayerNorm")
    norm.forward = lambda hidden: torch.nn.functional.layer_norm(hidden, norm.normalized_shape) + 0 * norm.weight
    found = examine(subject, claims="test_every_norm_applies_its_gain")
    assert {result["verdict"] for result in found.values()} == {"fails"}


def test_a_decoder_under_the_head_of_a_masked_model_is_read_and_does_not_write(tmp_path):
    """It looks back only, as its config says; its class shifts no labels, which is explained, and cannot write."""
    folder = make(tmp_path / "one", cls="BertForMaskedLM", **BERT, is_decoder=True)
    found = examine(Subject(at_path(folder), matrix().traits), marks=USUAL)
    failing = {claim: r["reason"] for claim, r in found.items() if r["verdict"] == "fails"}
    assert found["test_a_decoder_scores_the_next_token"]["verdict"] == "departs"
    assert set(failing.values()) == {"writing: expected a class that has generate(), observed BertForMaskedLM"}


PICTURED: dict[str, Any] = {
    "model_type": "llava",
    "architectures": ["LlavaForConditionalGeneration"],
    "image_token_index": 98,
    "text_config": SMALL | {"model_type": "llama"},
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 28,
        "patch_size": 14,
        "projection_dim": 32,
    },
}


def test_what_writes_of_pictures_writes_of_text_alone(tmp_path):
    """It has a head, and all that is claimed of writing is claimed of it."""
    (tmp_path / "config.json").write_text(json.dumps(PICTURED))
    found = examine(Subject(at_path(tmp_path), matrix().traits), marks=USUAL)
    assert {claim: r["reason"] for claim, r in found.items() if r["verdict"] == "fails"} == {}
    assert found["test_every_new_token_is_the_one_scored_highest"]["verdict"] == "holds"
    assert found["test_the_cache_changes_nothing_that_is_written"]["verdict"] == "holds"


def test_what_does_not_run_on_a_text_alone_is_not_accused(tmp_path):
    """A type that nobody has run, and that asks for more than a text, is not read; what it ends in is told."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "blip-2"}))
    found = examine(Subject(at_path(tmp_path), matrix().traits), claims="test_01")
    assert {result["verdict"] for result in found.values()} == {"not run"}
    reason = found["test_the_family_is_the_declared_one"]["reason"]
    assert "cannot be read: on a text alone transformers' code for blip-2 ends in an error (TypeError: " in reason


def test_numbers_that_do_not_go_together_fail_whoever_read_the_type(tmp_path):
    """What the config itself contradicts is no limit of this suite."""
    odd = PICTURED | {"text_config": PICTURED["text_config"] | {"num_attention_heads": 4, "num_key_value_heads": 3}}
    (tmp_path / "config.json").write_text(json.dumps(odd))
    found = examine(Subject(at_path(tmp_path), matrix().traits), claims="test_the_family_is_the_declared_one")
    assert {result["verdict"] for result in found.values()} == {"fails"}
    assert "num_attention_heads is 4, which is no multiple of num_key_value_heads, 3" in str(found)

"""Small configs, as a library's own tests have them: sound models of which no claim may fail."""

import json

import pytest
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from fixtures.claims.model_under_test import Subject
from fixtures.published.release import at_path
from tests.support.checkpoints import SMALL
from tests.support.ward import examine, matrix

USUAL = "not (loading or quantization or gpu or weights)"
RELEASES = {
    # two windows of four tokens do not reach from one end of a text to the other
    "windows in every layer": SMALL
    | {"model_type": "ultrabert", "layer_types": ["sliding_attention"] * 2, "sliding_window": 128, "pad_token_id": 0},
    "padding among the ordinary tokens": SMALL | {"model_type": "ministral3", "pad_token_id": 11},
    "small queries": {
        "model_type": "esm",
        "hidden_size": 80,
        "num_hidden_layers": 6,
        "num_attention_heads": 5,
        "intermediate_size": 112,
        "vocab_size": 777,
        "pad_token_id": 1,
        "mask_token_id": 32,
    },
    "other heads in each layer": SMALL
    | {"model_type": "laguna", "num_attention_heads_per_layer": [8, 4], "num_experts": 4, "num_experts_per_tok": 2},
    "other heads in the encoder": {
        "model_type": "bart",
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 8,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "vocab_size": 99,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
    },
    "a vocabulary of the encoder's in two fields": {
        "model_type": "marian",
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "vocab_size": 99,
        "decoder_vocab_size": 120,
        "pad_token_id": 98,
        "eos_token_id": 0,
        "decoder_start_token_id": 98,
    },
}


def subject(name, folder):
    """The model of one of these configs, where this version of transformers knows its type."""
    if RELEASES[name]["model_type"] not in CONFIG_MAPPING:
        pytest.skip("A newer transformers has this model type.")
    (folder / "config.json").write_text(json.dumps(RELEASES[name]))
    return Subject(at_path(folder), matrix().traits)


@pytest.mark.parametrize("name", RELEASES)
def test_no_claim_fails_on_a_small_sound_model(name, tmp_path):
    """What its sizes make of it is no contradiction."""
    found = examine(subject(name, tmp_path), marks=USUAL)
    assert {claim: r["reason"] for claim, r in found.items() if r["verdict"] == "fails"} == {}
    assert sum(result["verdict"] == "holds" for result in found.values()) > 40


@pytest.mark.parametrize(("name", "silent"), [("other heads in each layer", "heads"), ("windows in every layer", "")])
def test_a_number_that_layers_differ_in_is_not_published(name, silent, tmp_path):
    """Where fields of the config say different things of heads, no single number is held against all layers."""
    found = examine(subject(name, tmp_path), claims="published_heads")
    assert {r["verdict"] for r in found.values()} == {"does not apply" if silent else "holds"}

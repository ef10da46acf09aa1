"""Small configs, as a library's own tests have them: sound models of which no claim may fail."""

import json

import pytest
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from fixtures.claims.model_under_test import Subject
from fixtures.published.release import at_path
from tests.support.checkpoints import SMALL
from tests.support.ward import examine, matrix

pytestmark = pytest.mark.slow

USUAL = "not (loading or quantization or gpu or weights)"
RELEASES = {
    # two windows of four tokens do not reach from one end of a text to the other
    "windows in every layer": SMALL
    | {"model_type": "ultrabert", "layer_types": ["sliding_attention"] * 2, "sliding_window": 128, "pad_token_id": 0},
    "no padding, as older releases have it": SMALL | {"model_type": "llama", "pad_token_id": -1},
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
    "one matrix for keys and values": {
        "model_type": "gemma4_text",
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_global_key_value_heads": 2,
        "head_dim": 8,
        "global_head_dim": 16,
        "intermediate_size": 48,
        "vocab_size": 99,
        "vocab_size_per_layer_input": 99,
        "hidden_size_per_layer_input": 0,
        "sliding_window": 8,
        "attention_k_eq_v": True,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "heads that share keys in the second layer alone": SMALL
    | {"model_type": "laguna", "num_attention_heads_per_layer": [2, 4], "num_experts": 4, "num_experts_per_tok": 2},
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

STACKS = {
    "d_model": 32,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "vocab_size": 99,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
ENCODER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "vocab_size": 99,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "type_vocab_size": 2,
}
RELEASES |= {
    "a convolution between the blocks": ENCODER
    | {
        "model_type": "deberta-v2",
        "conv_kernel_size": 3,
        "conv_act": "gelu",
        "relative_attention": True,
        "position_buckets": 16,
        "pos_att_type": ["p2c", "c2p"],
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "position_biased_input": False,
        "type_vocab_size": 0,
    },
    # the common name of the number of layers means the encoder's
    "stacks of other depths": STACKS | {"model_type": "bart", "encoder_layers": 2, "decoder_layers": 3},
    "one stack of two, alone": STACKS
    | {
        "model_type": "mbart",
        "architectures": ["MBartForCausalLM"],
        "is_encoder_decoder": False,
        "is_decoder": True,
        "encoder_layers": 3,
        "decoder_layers": 2,
    },
    "stacks of other depths, told without the encoder's name": {
        "model_type": "t5",
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 64,
        "num_heads": 4,
        "vocab_size": 99,
        "num_layers": 3,
        "num_decoder_layers": 2,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
    },
    # it counts places over what is no padding, and generate() from 0
    "places counted from behind the padding's": ENCODER
    | {"model_type": "roberta", "architectures": ["RobertaForCausalLM"], "is_decoder": True, "pad_token_id": 1},
    "queries stretched by YaRN": SMALL
    | {
        "model_type": "llama",
        "rope_theta": 1e4,
        "rope_scaling": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32},
    },
    "half of each query stretched by YaRN": SMALL
    | {
        "model_type": "phi",
        "rope_theta": 1e4,
        "partial_rotary_factor": 0.5,
        "rope_scaling": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32},
    },
    "as wide turned as values beside what is not": SMALL
    | {
        "model_type": "minicpm3",
        "num_key_value_heads": 4,
        "head_dim": 16,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 16,
        "v_head_dim": 16,
    },
    "a bias laid out like the stream": SMALL
    | {"model_type": "gpt_neox_japanese", "num_key_value_heads": 4, "pad_token_id": 0},
    "queries stretched by LongRoPE": SMALL
    | {
        "model_type": "phi3",
        "pad_token_id": 0,
        "max_position_embeddings": 512,
        "original_max_position_embeddings": 64,
        "rope_scaling": {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4},
    },
    "scores over a number": SMALL | {"model_type": "granite", "logits_scaling": 8.0},
    "scores times a number": SMALL | {"model_type": "cohere", "logit_scale": 0.25, "pad_token_id": 0},
    "scores that no tanh keeps": SMALL
    | {"model_type": "gemma2", "head_dim": 8, "final_logit_softcapping": None, "attn_logit_softcapping": None},
    "another activation": SMALL | {"model_type": "llama", "hidden_act": "relu2"},
    "another activation in a field of its own": {
        "model_type": "falcon",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 99,
        "activation": "relu",
    },
    "norms with a gain for each head": SMALL | {"model_type": "cohere", "use_qk_norm": True, "pad_token_id": 0},
    "an activation by yes or no": {
        "model_type": "xlm",
        "emb_dim": 32,
        "n_layers": 2,
        "n_heads": 4,
        "n_words": 99,
        "gelu_activation": False,
    },
    "values that are turned": ENCODER | {"model_type": "roformer", "rotary_value": True, "embedding_size": 32},
    "distances projected once for all texts": ENCODER
    | {
        "model_type": "deberta-v2",
        "type_vocab_size": 0,
        "relative_attention": True,
        "position_buckets": 16,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
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

"""Experts, however a model keeps them: stacked, one network beside another, or one behind the other in one matrix."""

import json

import pytest

from fixtures.observation import active_parameters
from fixtures.releases import at_path
from fixtures.subject import Subject
from tests.ward import matrix

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 99,
    "num_experts": 6,
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
}
MODELS = {
    "stacked, with biases": (
        SMALL | {"model_type": "gpt_oss", "intermediate_size": 40},
        {"experts": 6, "experts_active": 2, "d_expert": 40, "d_ff": 40},
    ),
    "narrower than the router": (
        SMALL | {"model_type": "qwen3_moe", "moe_intermediate_size": 24, "num_experts_per_tok": 3},
        {"experts": 6, "experts_active": 3, "d_expert": 24, "d_ff": 24},
    ),
    "in every other layer, beside convolutions": (
        SMALL | {"model_type": "jamba", "num_hidden_layers": 8, "intermediate_size": 40, "mamba_d_state": 4},
        {"experts": 6, "experts_active": 2, "d_expert": 40, "d_ff": 40},
    ),
    "one network beside another": (
        {"model_type": "switch_transformers", "d_model": 32, "d_kv": 8, "d_ff": 40, "num_heads": 4, "num_experts": 6}
        | {"num_layers": 2, "num_decoder_layers": 2, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1}
        | {"vocab_size": 99, "decoder_start_token_id": 0},
        {"experts": 6, "experts_active": 1, "d_expert": 40, "d_ff": 40},
    ),
    "a best one and a second best": (
        {"model_type": "nllb-moe", "d_model": 32, "encoder_ffn_dim": 40, "decoder_ffn_dim": 40, "num_experts": 6}
        | {"encoder_layers": 2, "decoder_layers": 2, "encoder_sparse_step": 2, "decoder_sparse_step": 2}
        | {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "vocab_size": 99},
        {"experts": 6, "experts_active": 2, "d_expert": 40, "d_ff": 40},
    ),
    "one behind the other": (
        {"model_type": "dbrx", "d_model": 32, "n_heads": 4, "n_layers": 2, "vocab_size": 99}
        | {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8}}
        | {"ffn_config": {"ffn_hidden_size": 40, "hidden_size": 32, "moe_num_experts": 6, "moe_top_k": 3}},
        {"experts": 6, "experts_active": 3, "d_expert": 40, "d_ff": 40},
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_experts_are_counted(kind, tmp_path):
    """How many there are, how many act, how wide they are, and how many parameters the others are that rest."""
    config, expected = MODELS[kind]
    (tmp_path / "config.json").write_text(json.dumps(config))
    subject = Subject(at_path(tmp_path), matrix().traits)
    assert {name: subject.facts[name] for name in expected} == expected
    model = subject.skeleton.model
    routed = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
    resting = routed * (expected["experts"] - expected["experts_active"]) // expected["experts"]
    tables = 0 if subject.facts["tied_embeddings"] else subject.skeleton.plain.embedding.table.numel()
    assert routed
    assert active_parameters(subject.skeleton) == subject.skeleton.parameters - resting - tables


def test_a_feed_forward_network_is_none_of_a_mixer(tmp_path):
    """What a state-space layer is wide inside is no d_ff: the first layer that has a feed-forward network tells it."""
    (tmp_path / "config.json").write_text(
        json.dumps(
            {"model_type": "nemotron_h", "layers_block_type": ["mamba", "attention", "mlp"], "num_hidden_layers": 3}
            | {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 99}
            | {"intermediate_size": 40, "mamba_num_heads": 8, "mamba_head_dim": 8, "n_groups": 2, "ssm_state_size": 4}
        )
    )
    assert Subject(at_path(tmp_path), matrix().traits).facts["d_ff"] == 40

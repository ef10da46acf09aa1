"""Experts, however a model keeps them: stacked, one network beside another, or one behind the other in one matrix."""

import json

import pytest

from fixtures.behaviour.facts import active_parameters
from fixtures.claims.model_under_test import Subject
from fixtures.published.release import at_path
from tests.support.checkpoints import SMALL
from tests.support.ward import matrix

D, D_FF = SMALL["hidden_size"], SMALL["intermediate_size"]
FEW = SMALL | {"num_experts": 6, "num_local_experts": 6, "num_experts_per_tok": 2}
# Of each: the config, how many experts act, how wide one is, its parameters by hand, and how many layers have any.
MODELS = {
    "stacked, with biases": (
        FEW | {"model_type": "gpt_oss"},
        (2, D_FF, (D + 1) * 2 * D_FF + (D_FF + 1) * D, 2),
    ),
    "narrower than the router": (
        FEW | {"model_type": "qwen3_moe", "moe_intermediate_size": 24, "num_experts_per_tok": 3},
        (3, 24, 3 * D * 24, 2),
    ),
    "in every other layer, beside convolutions": (
        FEW | {"model_type": "jamba", "num_hidden_layers": 8, "mamba_d_state": 4},
        (2, D_FF, 3 * D * D_FF, 4),
    ),
    "one network beside another": (
        {"model_type": "switch_transformers", "d_model": D, "d_kv": 8, "d_ff": D_FF, "num_heads": 4, "num_experts": 6}
        | {"num_layers": 2, "num_decoder_layers": 2, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1}
        | {"vocab_size": 99, "decoder_start_token_id": 0},
        (1, D_FF, 2 * D * D_FF, 2),
    ),
    "a best one and a second best": (
        {"model_type": "nllb-moe", "d_model": D, "encoder_ffn_dim": D_FF, "decoder_ffn_dim": D_FF, "num_experts": 6}
        | {"encoder_layers": 2, "decoder_layers": 2, "encoder_sparse_step": 2, "decoder_sparse_step": 2}
        | {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "vocab_size": 99},
        (2, D_FF, (D + 1) * D_FF + (D_FF + 1) * D, 2),
    ),
    "one behind the other": (
        {"model_type": "dbrx", "d_model": D, "n_heads": 4, "n_layers": 2, "vocab_size": 99}
        | {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8}}
        | {"ffn_config": {"ffn_hidden_size": D_FF, "hidden_size": D, "moe_num_experts": 6, "moe_top_k": 3}},
        (3, D_FF, 3 * D * D_FF, 2),
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_experts_are_counted(kind, tmp_path):
    """How many there are, how many act, how wide they are, and how many parameters the others are that rest."""
    config, (active, width, parameters, layers) = MODELS[kind]
    (tmp_path / "config.json").write_text(json.dumps(config))
    subject = Subject(at_path(tmp_path), matrix().traits)
    expected = {"experts": 6, "experts_active": active, "d_expert": width, "d_ff": width}
    assert {name: dict(subject.facts)[name] for name in expected} == expected
    resting = parameters * (6 - active) * layers
    looked_up = 0 if subject.facts["tied_embeddings"] else subject.skeleton.trace.embedding.table.numel()
    assert active_parameters(subject.skeleton) == subject.skeleton.parameters - resting - looked_up


def test_a_feed_forward_network_is_none_of_a_mixer(tmp_path):
    """What a state-space layer is wide inside is no d_ff: the first layer that has a feed-forward network tells it."""
    config = SMALL | {"model_type": "nemotron_h", "layers_block_type": ["mamba", "attention", "mlp"]}
    config |= {"num_hidden_layers": 3, "mamba_num_heads": 8, "mamba_head_dim": 8, "n_groups": 2, "ssm_state_size": 4}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert Subject(at_path(tmp_path), matrix().traits).facts["d_ff"] == D_FF

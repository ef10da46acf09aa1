"""Skeletons of published size: run without memory, whatever their code asks of numbers on the way."""

from typing import Any

import pytest
from transformers import AutoConfig

from fixtures.models.skeleton import MOST_HOLLOW, build_skeleton

# code that goes through the experts one by one, by their numbers: as an index, and as a part of a name
LARGE: dict[str, dict[str, Any]] = {
    "dbrx": {
        "d_model": 6144,
        "n_heads": 48,
        "n_layers": 40,
        "vocab_size": 100352,
        "attn_config": {"kv_n_heads": 8, "rope_theta": 500000.0, "clip_qkv": 8},
        "ffn_config": {"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4},
    },
    "nllb-moe": {
        "d_model": 2048,
        "encoder_layers": 24,
        "decoder_layers": 24,
        "encoder_ffn_dim": 8192,
        "decoder_ffn_dim": 8192,
        "vocab_size": 256206,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize(("model_type", "layers", "experts"), [("dbrx", 40, (16, 4)), ("nllb-moe", 24, (128, 2))])
def test_a_loop_over_experts_is_run_at_any_size(model_type, layers, experts):
    """Larger than what is laid out with real numbers, it is run all the same, and its numbers are read."""
    skeleton = build_skeleton(AutoConfig.for_model(model_type, **LARGE[model_type]))
    assert skeleton.parameters > MOST_HOLLOW
    assert skeleton.trace.stack.layers == layers
    assert max(block.experts for block in skeleton.trace.stack.blocks) == experts

"""The largest published models stay within the limits.

Numbers from the models' own configs and papers, as published.
"""

import pytest

from fixtures.published.config_limits import LIMITS, ConfigError, judge

LARGEST = {
    "Llama-3.1-405B": {
        "model_type": "llama",
        "num_hidden_layers": 126,
        "hidden_size": 16384,
        "intermediate_size": 53248,
        "num_attention_heads": 128,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
    },
    "DeepSeek-V3": {
        "model_type": "deepseek_v3",
        "num_hidden_layers": 61,
        "hidden_size": 7168,
        "n_routed_experts": 256,
        "num_attention_heads": 128,
        "vocab_size": 129280,
        "max_position_embeddings": 163840,
    },
    "Kimi-K2": {
        "model_type": "kimi_k2",
        "num_hidden_layers": 61,
        "hidden_size": 7168,
        "n_routed_experts": 384,
        "num_attention_heads": 64,
        "vocab_size": 163840,
    },
    "Falcon-180B": {
        "model_type": "falcon",
        "num_hidden_layers": 80,
        "hidden_size": 14848,
        "num_attention_heads": 232,
        "vocab_size": 65024,
    },
    "Switch-C": {
        "model_type": "switch_transformers",
        "num_layers": 15,
        "d_model": 2080,
        "d_ff": 6144,
        "num_experts": 2048,
        "num_heads": 64,
        "vocab_size": 32128,
    },
}


@pytest.mark.parametrize("name", LARGEST)
def test_the_largest_models_are_within_the_limits(name):
    judge(LARGEST[name])


@pytest.mark.parametrize("name", LARGEST)
def test_they_would_be_refused_at_smaller_ones(name):
    """The limits are looked at: with one layer allowed, none of these is taken."""
    with pytest.raises(ConfigError, match="--limit=layers="):
        judge(LARGEST[name], {**LIMITS, "layers": 1})

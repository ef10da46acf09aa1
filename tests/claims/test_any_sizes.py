"""Sound models of any size: of no config that the library takes does a claim fail, whatever its widths and options.

SIZES_EXAMPLES in the environment says how many are drawn; else there are a few, the same every time.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.claims.model_under_test import Subject
from fixtures.published.release import at_path
from tests.support.ward import examine, matrix

pytestmark = pytest.mark.slow
EXAMPLES = int(os.environ.get("SIZES_EXAMPLES", "8"))

GATED = (
    "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "olmo", "olmo2", "cohere", "starcoder2",
    "stablelm", "granite", "smollm3", "glm", "glm4", "helium", "nemotron", "mixtral", "qwen3_moe", "olmoe", "arcee",
    "exaone4", "ministral3",
)  # fmt: skip
ENCODERS = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "mpnet", "deberta-v2", "convbert", "roformer")
WRITERS = ("gpt2", "gpt_neox", "opt", "bloom", "gptj", "gpt_bigcode", "phi", "biogpt", "xglm")
PAIRS = ("bart", "mbart", "marian", "pegasus", "m2m_100", "blenderbot", "t5", "mt5", "umt5")


@st.composite
def gated(draw: st.DrawFn) -> dict[str, Any]:
    """A decoder with rotary positions and gated feed-forward networks."""
    kv_heads = draw(st.integers(1, 4))
    heads, d_head = kv_heads * draw(st.integers(1, 4)), 16 * draw(st.integers(1, 3))
    return {
        "model_type": draw(st.sampled_from(GATED)),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": d_head,
        "hidden_size": heads * d_head,
        "num_hidden_layers": draw(st.integers(1, 5)),
        "intermediate_size": 8 * draw(st.integers(3, 20)),
        "vocab_size": draw(st.integers(120, 900)),
        "max_position_embeddings": draw(st.sampled_from([64, 100, 512, 4096])),
        "tie_word_embeddings": draw(st.booleans()),
        "hidden_act": draw(st.sampled_from(["silu", "gelu", "relu", "gelu_pytorch_tanh"])),
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


@st.composite
def encoder(draw: st.DrawFn) -> dict[str, Any]:
    """An encoder of BERT's line."""
    heads = draw(st.integers(1, 6))
    return {
        "model_type": draw(st.sampled_from(ENCODERS)),
        "num_attention_heads": heads,
        "hidden_size": heads * 16 * draw(st.integers(1, 3)),
        "num_hidden_layers": draw(st.integers(1, 4)),
        "intermediate_size": 8 * draw(st.integers(3, 20)),
        "vocab_size": draw(st.integers(120, 900)),
        "max_position_embeddings": draw(st.sampled_from([64, 130, 514])),
        "type_vocab_size": draw(st.integers(1, 3)),
        "hidden_act": draw(st.sampled_from(["gelu", "relu", "gelu_new"])),
    }


@st.composite
def writer(draw: st.DrawFn) -> dict[str, Any]:
    """A decoder of GPT's line, by the names that it has for things."""
    heads = draw(st.integers(1, 6))
    d_model, layers = heads * 8 * draw(st.integers(1, 4)), draw(st.integers(1, 4))
    kind = draw(st.sampled_from(WRITERS))
    names = {
        "heads": ("n_head", "num_attention_heads", "attention_heads"),
        "d_model": ("n_embd", "hidden_size", "d_model"),
        "layers": ("n_layer", "num_hidden_layers", "num_layers"),
        "positions": ("n_positions", "max_position_embeddings"),
    }
    sizes = {"heads": heads, "d_model": d_model, "layers": layers, "positions": draw(st.sampled_from([64, 200, 1024]))}
    fields = {name: sizes[what] for what, several in names.items() for name in several}
    return {
        **fields,
        "model_type": kind,
        "vocab_size": draw(st.integers(120, 900)),
        "ffn_dim": 4 * d_model,
        "intermediate_size": 4 * d_model,
        "word_embed_proj_dim": d_model,
        "rotary_dim": 4,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }


@st.composite
def pair(draw: st.DrawFn) -> dict[str, Any]:
    """An encoder-decoder, whose stacks may be unequal."""
    heads, kind = draw(st.integers(1, 4)), draw(st.sampled_from(PAIRS))
    d_model, below, above = heads * 8 * draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    return {
        "model_type": kind,
        "d_model": d_model,
        "encoder_layers": below,
        "decoder_layers": above,
        "num_layers": below,
        "num_decoder_layers": min(
            above, below
        ),  # with more, the library cannot write: its cache is as deep as the encoder
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "num_heads": heads,
        "d_kv": d_model // heads,
        "encoder_ffn_dim": 2 * d_model,
        "decoder_ffn_dim": 3 * d_model,
        "d_ff": 2 * d_model,
        "max_position_embeddings": draw(st.sampled_from([64, 300])),
        "vocab_size": draw(st.integers(120, 900)),
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 2 if kind in ("m2m_100", "mbart", "bart") else 0,  # padding has no place in M2M100's
        "forced_eos_token_id": None,
    }


def kept(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that the type's config has, with their names in it: who publishes a config writes no others."""
    from transformers import AutoConfig

    config = AutoConfig.for_model(fields["model_type"])
    known = set(config.to_dict()) | set(config.attribute_map)
    return {name: value for name, value in fields.items() if name in known or name == "model_type"}


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 8,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
@given(fields=st.one_of(gated(), encoder(), writer(), pair()))
def test_of_a_sound_config_no_claim_fails(fields):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "drawn.json")
        path.write_text(json.dumps(kept(fields)))
        found = examine(Subject(at_path(path), matrix().traits))
    failed = {name: result["reason"] for name, result in found.items() if result["verdict"] == "fails"}
    assert failed == {}
    assert sum(result["verdict"] == "holds" for result in found.values()) > 40

"""Counterexamples of chapter 5."""

import importlib

import pytest
import torch
from torch import nn

from tests.support.wounds import attend_by, attend_with, matching, on_input

pytestmark = pytest.mark.slow

OPT, BERT, BART = "facebook/opt-125m", "google-bert/bert-base-cased", "facebook/bart-base"
GPT2, LLAMA, T5 = "openai-community/gpt2", "meta-llama/Llama-3.1-8B", "google-t5/t5-small"

HEADS, KV_HEADS = "test_the_model_has_its_published_heads", "test_the_model_has_its_published_key_and_value_heads"
HEAD_WIDTH = "test_a_head_has_its_published_width"
OWN = "test_every_head_has_keys_and_values_of_its_own"
SHARED_WIDTH = "test_heads_times_head_width_is_the_models_width"
ALONE = "test_a_silenced_head_takes_away_its_own_part_and_no_other"
SUM = "test_the_heads_contributions_add_up_to_the_output"
SIDE_BY_SIDE = "test_heads_that_share_keys_and_values_stand_side_by_side"
SAME_INPUT = "test_every_head_reads_the_same_input"


# ---- how many heads there are, and how wide


@pytest.mark.breaks(HEADS, KV_HEADS)
def test_a_layer_with_half_the_heads(fails):
    """One of 24 layers has 16 heads of 128 in place of 32 of 64."""

    def wound(model):
        attention = model.model.decoder.layers[7].self_attn
        attention.num_heads, attention.head_dim = 16, 128

    fails("facebook/opt-1.3b", wound_skeleton=wound, why="heads: expected 32, observed 16", also=(HEAD_WIDTH,))


@pytest.mark.breaks(HEAD_WIDTH)
def test_heads_published_with_another_width(fails):
    """The published width of a head leaves out the dimensions that are turned."""
    fails("deepseek-ai/DeepSeek-V3", entry={"d_head": 128}, why="d_head: expected 128, observed 192")


@pytest.mark.breaks(HEAD_WIDTH, SHARED_WIDTH)
def test_a_layer_with_narrow_heads(fails):
    """In the last layer a query and a key are compared in half the width."""

    def wound(model):
        attention = model.model.layers[-1].self_attn
        attention.q_proj, attention.o_proj = _linear(4096, 32 * 64), _linear(32 * 64, 4096)
        attention.k_proj, attention.v_proj = _linear(4096, 8 * 64), _linear(4096, 8 * 64)
        attention.head_dim = 64
        attention.register_forward_pre_hook(_narrow_turns, with_kwargs=True)

    fails(LLAMA, wound_skeleton=wound)


def _narrow_turns(module, args, kwargs):
    turns = tuple(turn[..., : module.head_dim] for turn in kwargs["position_embeddings"])
    return args, kwargs | {"position_embeddings": turns}


@pytest.mark.breaks(KV_HEADS)
def test_a_layer_that_groups_its_heads_otherwise(fails):
    """One layer has 16 heads of keys and values where the others have eight."""

    def wound(model):
        attention = model.model.layers[3].self_attn
        attention.k_proj, attention.v_proj = _linear(4096, 16 * 128), _linear(4096, 16 * 128)
        attention.num_key_value_groups = 2

    fails(LLAMA, wound_skeleton=wound, why="kv_heads: expected 8, observed 16")


@pytest.mark.breaks(HEADS, KV_HEADS)
def test_an_encoder_with_half_the_heads(fails):
    """The encoder in front of a decoder has six heads of 128 in place of twelve of 64."""
    fails(BART, config={"encoder_attention_heads": 6}, why="heads: expected 12, observed 6", also=(HEAD_WIDTH,))


@pytest.mark.breaks(KV_HEADS, OWN)
def test_heads_that_share_keys_and_values(fails):
    """In one layer two heads at a time share one head of keys and values, as nobody published."""

    def wound(model):
        attention = model.model.decoder.layers[3].self_attn
        attention.k_proj, attention.v_proj = (_Shared(768, heads=6, times=2) for _ in range(2))

    fails(OPT, wound_skeleton=wound, why="kv_heads: expected 12, observed 6")


class _Shared(nn.Module):
    """A projection to fewer heads, each of which is handed on several times."""

    def __init__(self, width, *, heads, times):
        super().__init__()
        self.inner, self.heads, self.times = _linear(width, width // times), heads, times

    def forward(self, hidden_states):
        apart = self.inner(hidden_states).unflatten(-1, (self.heads, -1))
        return apart.repeat_interleave(self.times, dim=-2).flatten(-2)


@pytest.mark.breaks("test_the_output_projection_takes_all_heads_side_by_side")
@pytest.mark.parametrize("patient", [OPT, LLAMA])
def test_heads_that_are_added_before_the_projection(fails, patient):
    """In one layer every two heads' results are added up, and the projection takes half the width."""
    name, width = {
        OPT: ("model.decoder.layers.3.self_attn.out_proj", 768),
        LLAMA: ("model.layers.3.self_attn.o_proj", 4096),
    }[patient]

    def wound(model):
        model.set_submodule(name, _linear(width // 2, width))
        model.get_submodule(name).register_forward_pre_hook(lambda _, args: args[0].unflatten(-1, (2, -1)).sum(dim=-2))

    fails(patient, wound_skeleton=wound, why=f"width in: expected {width}, observed {width // 2}")


# ---- what the heads read


@pytest.mark.breaks(SAME_INPUT)
@pytest.mark.parametrize("role", [0, 1, 2], ids=["query", "key", "value"])
@pytest.mark.parametrize("patient", [OPT, LLAMA])
def test_a_head_that_reads_another_place(fails, patient, role):
    """The last head's query, key or value is made from the vector before the token's own."""

    def shifted(*operands):
        moved = operands[role].clone()
        moved[:, -1] = moved[:, -1].roll(1, dims=1)
        return *operands[:role], moved, *operands[role + 1 :]

    also = (SIDE_BY_SIDE,) if patient == LLAMA and role else ()  # its neighbour shares the key and the value
    fails(patient, wound=lambda model: attend_with(model, operands=shifted), also=also)


@pytest.mark.breaks(SAME_INPUT)
def test_a_head_that_reads_nothing(fails):
    """The keys of one head are the same for any text."""

    def fixed(query, key, value):
        places = torch.linspace(-1, 1, key.shape[-2])[:, None]
        return query, torch.cat([places.expand_as(key[:, :1]), key[:, 1:]], dim=1), value

    fails(BERT, wound=lambda model: attend_with(model, operands=fixed), why="every head's key there moves")


@pytest.mark.breaks(SAME_INPUT)
@pytest.mark.parametrize(("patient", "where"), [(OPT, "*.q_proj"), (OPT, "*.v_proj"), (BERT, "*.attention.self.key")])
def test_heads_that_read_a_part_each(fails, patient, where):
    """Each head's query, key or value is made from a part of the vector of its own, as wide as the head."""

    def wound(model):
        for projection in matching(model, where):
            weight = projection.get_parameter("weight").data
            width = model.config.hidden_size // model.config.num_attention_heads
            places = torch.arange(len(weight)) // width
            weight[places[:, None] != places] = 0

    fails(patient, wound=wound)


@pytest.mark.breaks("test_all_heads_are_computed_in_one_batched_product")
@pytest.mark.parametrize("patient", [OPT, BERT])
def test_heads_that_are_computed_two_at_a_time(fails, patient):
    """The heads of a block are gone through by twos, one pair after the other."""

    def by_twos(query, key, value, mask, scaling):
        heads_outputs = []
        for q, k, v in zip(query.split(2, dim=1), key.split(2, dim=1), value.split(2, dim=1), strict=True):
            scores = q @ k.transpose(-1, -2) * scaling
            weights = (scores if mask is None else scores + mask).softmax(dim=-1)
            heads_outputs.append((weights @ v, weights))
        contexts, weights = zip(*heads_outputs, strict=True)
        return torch.cat(contexts, dim=1), torch.cat(weights, dim=1)

    def wound(model):
        attend_by(model, "*", by_twos)

    # a pair's results alone are narrower than what the projection takes
    fails(patient, wound=wound, also=(ALONE, SUM), why="in a block: expected 1, observed 2")


# ---- what the heads give


@pytest.mark.breaks(ALONE)
@pytest.mark.parametrize("patient", [OPT, BERT, LLAMA])
def test_a_head_that_turns_the_others_up(fails, patient):
    """What the other heads contribute is the larger, the more the first one does."""

    def turn_up(context):
        return context.mul_(1 + context[:, :1].abs().mean())

    fails(patient, wound=lambda model: attend_with(model, context=turn_up), why="what is lost")


@pytest.mark.breaks(SUM)
@pytest.mark.parametrize(
    ("patient", "projection"),
    [(OPT, "*.self_attn.out_proj"), (GPT2, "*.attn.c_proj"), (T5, "*.SelfAttention.o")],
)
def test_a_part_that_no_head_contributes(fails, patient, projection):
    """A constant is added to what the heads hand to the projection."""
    fails(
        patient, wound=lambda model: on_input(model, projection, lambda beside: beside + 0.01), why="sum of the parts"
    )


@pytest.mark.breaks(ALONE, SUM)
def test_heads_that_talk_to_each_other(fails):
    """A tenth of what each head returns goes to the next one's slice of the projection."""

    def talk(context):
        return context + 0.1 * context.roll(1, dims=1)

    fails(BERT, wound=lambda model: attend_with(model, context=talk))


@pytest.mark.breaks(SAME_INPUT)
def test_heads_that_ask_nothing(fails):
    """All queries are zero, so that every head gives every token the same weight."""

    def wound(model):
        for asking in matching(model, "*.attention.self.query"):
            nn.init.zeros_(asking.get_parameter("weight"))
            nn.init.zeros_(asking.get_parameter("bias"))

    fails(BERT, wound=wound)


def _linear(d_in, d_out):
    return nn.Linear(d_in, d_out, bias=False, device="meta", dtype=torch.bfloat16)


@pytest.mark.breaks("test_heads_that_share_keys_and_values_stand_side_by_side")
@pytest.mark.parametrize(("patient", "library"), [("meta-llama/Llama-3.1-8B", "llama"), ("Qwen/Qwen3-0.6B", "qwen3")])
def test_keys_and_values_that_serve_heads_in_turn(fails, monkeypatch, patient, library):
    """Of four heads the first key serves the first and the third, the second the second and the fourth."""
    code = importlib.import_module(f"transformers.models.{library}.modeling_{library}")
    monkeypatch.setattr(code, "repeat_kv", lambda vectors, times: vectors.repeat(1, times, 1, 1))
    fails(patient, wound=lambda model: None, why="first head with the same keys: expected [0, 0, 2, 2]")

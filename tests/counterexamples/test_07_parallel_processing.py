"""Counterexamples of chapter 7."""

import pytest
import torch
from torch import nn

from tests.support.wounds import attend_with, on_arguments, on_input, on_output

pytestmark = pytest.mark.slow

OPT, BERT, BART = "facebook/opt-125m", "google-bert/bert-base-cased", "facebook/bart-base"
GPT2, LLAMA, T5 = "openai-community/gpt2", "meta-llama/Llama-3.1-8B", "google-t5/t5-small"

STEPS = "test_one_pass_does_what_single_steps_do"
FIRST = "test_the_first_token_reaches_the_last_in_every_layer"
WINDOW = "test_a_window_is_as_wide_as_published"
BATCH = "test_a_batch_does_not_change_its_members"
RECURRENCE = "test_no_step_waits_for_an_earlier_token"


# ---- one pass and many steps


@pytest.mark.breaks(STEPS)
def test_positions_that_begin_anew_at_every_step(fails):
    """The first token of whatever is read stands at the first place, in a step as in a text."""
    fails(GPT2, wound=lambda model: on_input(model, "*.wpe", lambda places: places - places.min()))


@pytest.mark.breaks(STEPS)
def test_a_rotation_that_begins_anew_at_every_step(fails):
    """Queries and keys of a step are turned as those of a text's first token."""
    anew = {"position_ids": lambda places: places - places.min()}
    fails(LLAMA, wound=lambda model: on_arguments(model, "*.rotary_emb", **anew))


@pytest.mark.breaks(STEPS)
@pytest.mark.parametrize(("patient", "where"), [(T5, "*.EncDecAttention"), (BART, "*.layers.1.encoder_attn")])
def test_a_source_that_a_step_does_not_hear(fails, patient, where):
    """A decoder that is given a single token attends to its own text only."""

    def deaf(output):
        return output if output.shape[1] > 1 else output * 0

    fails(patient, wound=lambda model: on_output(model, where, deaf))


@pytest.mark.breaks(STEPS)
def test_a_cache_that_forgets_the_first_token(fails):
    """A step behind more than five tokens does not see the first one; a token in a text does."""

    def forget(scores):
        if scores.shape[-2] == 1 and scores.shape[-1] > 5:
            scores[..., 0] = -torch.inf
        return scores.softmax(dim=-1)

    fails(OPT, wound=lambda model: attend_with(model, weigh=forget))


# ---- how far a token reaches


@pytest.mark.breaks(FIRST)
@pytest.mark.parametrize(("patient", "last"), [(OPT, "*.layers.1.self_attn"), (LLAMA, "*.layers.1.self_attn")])
def test_a_last_token_that_does_not_see_the_first(fails, patient, last):
    """In the last layer the tenth token sees all but the first."""
    fails(patient, wound=lambda model: attend_with(model, last, weigh=_hiding(9, 0)))


@pytest.mark.breaks(FIRST)
def test_a_target_whose_last_token_does_not_see_the_first(fails):
    """In the decoder's first layer the seventh token of the target sees all but the first."""
    fails(BART, wound=lambda model: attend_with(model, "*.decoder.layers.0.self_attn", weigh=_hiding(6, 0)))


@pytest.mark.breaks("test_every_token_reaches_every_other_in_every_layer_of_an_encoder")
@pytest.mark.parametrize(
    ("patient", "last"), [(BERT, "*.layer.1.attention.self"), (BART, "*.encoder.layers.1.self_attn")]
)
def test_a_token_that_does_not_see_another(fails, patient, last):
    """In the last layer of an encoder the fourth token does not see the eighth; all others see everything."""
    fails(patient, wound=lambda model: attend_with(model, last, weigh=_hiding(3, 7)))


def _hiding(query, key):
    """A softmax in which one token does not see another, whether it is read with those before it or after them."""

    def weigh(scores):
        targets, sources = scores.shape[-2:]
        rows, columns = torch.arange(sources - targets, sources)[:, None], torch.arange(sources)
        return scores.masked_fill((rows == query) & (columns == key), -torch.inf).softmax(dim=-1)

    return weigh


@pytest.mark.breaks(WINDOW)
@pytest.mark.parametrize(
    ("patient", "planted"),
    [
        ("openai/gpt-oss-20b", {"sliding_window": 127}),
        ("answerdotai/ModernBERT-base", {"local_attention": 130, "sliding_window": 66}),
    ],
)
def test_a_window_of_another_width(fails, patient, planted):
    """The window is one token narrower than published, or one wider to either side."""
    fails(patient, config=planted)


@pytest.mark.breaks(WINDOW)
def test_a_window_published_by_its_half(fails):
    """What is published is how far the window reaches to one side."""
    fails("answerdotai/ModernBERT-base", entry={"window": 64}, why="expected 64")


@pytest.mark.breaks(WINDOW, FIRST)
def test_a_window_that_no_layer_has(fails):
    """Every layer sees the whole text, where some are published with a window."""
    fails("openai/gpt-oss-20b", config={"layer_types": ["full_attention"] * 24})


@pytest.mark.breaks("test_the_path_from_the_first_token_to_the_last_has_length_one")
@pytest.mark.parametrize("patient", [OPT, BERT, LLAMA])
def test_a_first_token_that_is_cut_off_from_training(fails, patient):
    """In the first layer nothing flows back to the first token's key and value, although it has its weight."""

    def cut(query, key, value):
        return query, *(torch.cat([t[..., :1, :].detach(), t[..., 1:, :]], dim=-2) for t in (key, value))

    fails(patient, wound=lambda model: attend_with(model, operands=cut))


# ---- beside others


@pytest.mark.breaks(BATCH)
@pytest.mark.parametrize("patient", [BERT, T5])
def test_padding_that_is_read(fails, patient):
    """An encoder takes the padding for words."""

    def blind(module, args, kwargs):
        return args, {name: value for name, value in kwargs.items() if name != "attention_mask"}

    fails(patient, wound=lambda model: model.register_forward_pre_hook(blind, with_kwargs=True))


@pytest.mark.breaks(BATCH)
@pytest.mark.parametrize(
    ("patient", "where"),
    [(BERT, "*.output.dense"), (T5, "*.EncDecAttention"), (LLAMA, "*.layers.1.mlp"), (GPT2, "*.h.1.attn")],
)
def test_rows_that_share_a_mean(fails, patient, where):
    """A hundredth of the mean over the rows of a batch is taken from each of them."""

    def centre(vectors):
        return vectors - 0.01 * vectors.mean(dim=0, keepdim=True)

    fails(patient, wound=lambda model: on_output(model, where, centre))


# ---- no step waits


@pytest.mark.breaks(RECURRENCE)
@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
def test_a_recurrent_module(fails, cell):
    """A recurrent network reads the stream behind the first block of an encoder, in one operation of torch."""

    def wound(model):
        block = model.bert.encoder.layer[0]
        block.reader = cell(64, 64, batch_first=True)
        on_output(model, "bert.encoder.layer.0.output", lambda stream: stream + block.reader(stream)[0])

    fails(BERT, wound=wound, why="recurrent modules: expected 0, observed 1")


@pytest.mark.breaks(RECURRENCE)
def test_a_state_carried_from_token_to_token(fails):
    """A state is handed from each token to the next by additions alone."""

    def carry(stream):
        state, states = torch.zeros_like(stream[:, 0]), []
        for vector in stream.unbind(dim=1):
            state = torch.tanh(0.5 * state + vector)
            states.append(state)
        return torch.stack(states, dim=1)

    fails(
        BERT,
        wound=lambda model: on_output(model, "bert.encoder.layer.0.output", carry),
        why="longest chain for ten tokens",
    )

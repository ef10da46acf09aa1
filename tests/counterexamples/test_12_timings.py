"""Counterexamples of chapter 12: models whose work is not what the chapter says, or that return what is no number."""

import pytest
import torch

from tests.support.wounds import attend_with, matching, on_input, on_output

pytestmark = pytest.mark.slow

OPT, BART = "facebook/opt-125m", "facebook/bart-base"
BERT, DISTILBERT = "google-bert/bert-base-cased", "distilbert/distilbert-base-cased"
WORK = "test_all_work_is_weights_with_tokens_and_in_attention_tokens_with_tokens"
TWICE = "test_twice_the_tokens_are_four_times_the_scores_and_twice_all_else"
CACHED = "test_a_step_with_a_cache_costs_what_one_token_costs"
EMBEDDING, ATTENTION, BLOCK = (
    "test_looking_tokens_up_is_timed",
    "test_one_attention_is_timed",
    "test_one_block_is_timed",
)
PREFILL, DECODE = "test_reading_a_text_in_one_pass_is_timed", "test_a_step_with_a_cache_is_timed"
SCORES, PROJECTIONS = "test_scores_grow_with_the_square_of_the_length", "test_projections_grow_with_the_length"
LAYERS = "test_layers_grow_with_their_number"
BATCH = "test_texts_side_by_side_grow_with_their_number"
PASS, STEPS = "test_a_pass_takes_one_step_whatever_the_length", "test_steps_with_a_cache_are_as_many_as_the_tokens"


def lost(tensor):
    return tensor * torch.nan


def padded(model, where, axis, size):
    """Make the modules called `where` work on so many tokens or texts, however few there are."""
    lengths = []

    def widen(tensor):
        lengths.append(tensor.shape[axis])
        missing = list(tensor.shape)
        missing[axis] = max(0, size - missing[axis])
        return torch.cat([tensor, tensor.new_zeros(missing)], dim=axis)

    on_input(model, where, widen)
    on_output(model, where, lambda tensor: tensor.narrow(axis, 0, lengths.pop()))


@pytest.mark.breaks(WORK)
@pytest.mark.parametrize(("patient", "where"), [(OPT, "*.layers.?"), (BART, "*.encoder.layers.?")])
def test_tokens_multiplied_with_tokens_outside_attention(fails, patient, where):
    """What leaves a block mixes tokens once more, with a product that belongs to no attention."""
    fails(patient, wound=lambda model: on_output(model, where, lambda x: x + x @ x.transpose(-1, -2) @ x))


@pytest.mark.breaks(TWICE, SCORES)
@pytest.mark.parametrize("patient", [BERT, DISTILBERT])
def test_an_attention_to_the_first_four_tokens_alone(fails, patient):
    """Every token is compared with four keys, however many there are: the scores grow with the length alone."""
    fails(patient, wound=lambda model: attend_with(model, operands=lambda q, k, v: (q, k[..., :4, :], v[..., :4, :])))


@pytest.mark.breaks(CACHED)
def test_a_step_that_works_on_ten_tokens(fails):
    """A feed-forward network is given ten tokens for the one that is new."""
    fails(OPT, wound=lambda model: padded(model, "*.fc1", 0, 10), why="the weights' work")


@pytest.mark.breaks(EMBEDDING)
def test_a_table_with_a_row_that_is_no_number(fails):
    """Looking a token up gives what is no number, and all that is made of it is none either."""
    also = (ATTENTION, BLOCK, PREFILL, SCORES, PROJECTIONS, BATCH, LAYERS, PASS)
    fails(BERT, wound=lambda model: on_output(model, "*.word_embeddings", lost), also=also, why="not finite")


@pytest.mark.breaks(ATTENTION)
def test_an_attention_without_numbers(fails):
    """An attention returns what is no number."""
    also = (BLOCK, PREFILL, BATCH, LAYERS, PASS)
    fails(BERT, wound=lambda model: on_output(model, "*.layer.0.attention.self", lost), also=also, why="not finite")


@pytest.mark.breaks(BLOCK)
def test_a_block_without_numbers(fails):
    """A block returns what is no number."""
    also = (PREFILL, BATCH, LAYERS, PASS)
    fails(BERT, wound=lambda model: on_output(model, "*.encoder.layer.0", lost), also=also, why="not finite")


@pytest.mark.breaks(PREFILL)
def test_a_text_whose_scores_are_no_numbers(fails):
    """Read in one pass, a text gets scores that are no numbers; read in steps it gets numbers."""
    wound = lambda model: on_output(model, "lm_head", lambda x: lost(x) if x.shape[1] > 1 else x)  # noqa: E731
    fails(OPT, wound=wound, also=(BATCH, PASS), why="not finite")


@pytest.mark.breaks(DECODE)
def test_a_step_whose_scores_are_no_numbers(fails):
    """Read in steps, a text gets scores that are no numbers; read in one pass it gets numbers."""
    wound = lambda model: on_output(model, "lm_head", lambda x: lost(x) if x.shape[1] == 1 else x)  # noqa: E731
    fails(OPT, wound=wound, also=(STEPS,), why="not finite")


@pytest.mark.breaks("test_writing_is_timed")
@pytest.mark.parametrize("patient", [OPT, BART])
def test_a_token_that_no_row_stands_for(fails, patient):
    """What is written are ids beyond the last row of the table."""

    def wound(model):
        generate = model.generate
        model.generate = lambda *args, **kwargs: generate(*args, **kwargs) + 10_000

    fails(patient, wound=wound, why="ids")


@pytest.mark.breaks(PROJECTIONS)
def test_projections_of_a_fixed_number_of_tokens(fails):
    """A projection works on 32 tokens, however few there are."""
    wound = lambda model: padded(model, "*.layers.0.self_attn.q_proj", 1, 32)  # noqa: E731
    fails(OPT, wound=wound, also=(TWICE, CACHED), why="power of the work")


@pytest.mark.breaks(BATCH)
def test_texts_that_are_never_read_alone(fails):
    """The output head works on eight texts, however few there are."""
    fails(OPT, wound=lambda model: padded(model, "lm_head", 0, 8), why="power of the work")


@pytest.mark.breaks(LAYERS)
def test_a_second_layer_that_only_hands_on(fails):
    """The second of two layers returns what it was given, and does nothing else."""

    def wound(model):
        next(matching(model, "*.layers.1")).forward = lambda hidden, *args, **kwargs: hidden

    fails(OPT, wound=wound, why="power of the work: expected 1, observed 0")


@pytest.mark.breaks(PASS)
def test_a_pass_that_goes_through_a_block_again(fails):
    """A text of eight tokens goes through the first block twice, one of four once."""

    def wound(model):
        first = next(matching(model, "*.layers.0"))
        on_input(model, "*.layers.1", lambda x: first(x) if x.shape[1] == 8 else x)

    fails(OPT, wound=wound, why="power of the steps of a pass")


@pytest.mark.breaks(STEPS)
def test_steps_that_go_through_a_block_again(fails):
    """From the fifth token on, a step goes through the first block twice."""

    def wound(model):
        first, steps = next(matching(model, "*.layers.0")), []

        def again(x):
            steps.append(x.shape[1])
            late = len(steps) % 8 in (5, 6, 7) and set(steps[-5:]) == {1}
            return first(x) if late else x

        on_input(model, "*.layers.1", again)

    fails(OPT, wound=wound, why="power of the steps")

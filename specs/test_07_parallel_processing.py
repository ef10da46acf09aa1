"""Parallel processing: all positions are worked on at once, and every token is one step away from every other.

A recurrent network reads a sentence word by word. A Transformer reads it in one pass, which computes for every position
what step-by-step reading would, for any number of sentences side by side.
"""

import pytest
import torch

from fixtures.behaviour.cache import alone_and_padded, keeps_cache, stepwise
from fixtures.behaviour.length import pass_over, recurrent_modules
from fixtures.behaviour.recurrence import longest_chain
from fixtures.models.runnable import SEQ
from fixtures.verdicts.evidence import close, holds, same
from fixtures.verdicts.judge import does_not_apply

pytestmark = pytest.mark.lesson("Conclusion: enabling parallel training and long-range dependency modeling")


@pytest.mark.lesson("proposal of training highly parallelized networks")
@pytest.mark.usefixtures("head")
def test_one_pass_does_what_single_steps_do(generator):
    """One pass over all tokens gives the scores that one token at a time does, with a cache of those before."""
    if not keeps_cache(generator):
        does_not_apply("The library's code for this model keeps no cache: it cannot go on from where it stopped.")
    close("scores", observed=generator.trace.output, expected=stepwise(generator), tolerance=1e-4)


@pytest.mark.lesson("long-range dependency modeling through self-attention")
def test_the_first_token_reaches_the_last_in_every_layer(causal_attentions):
    """In each layer the last token gives the first one some weight, however far away it is."""
    for attention in causal_attentions:
        weight = attention.weights[..., -1, 0]
        holds("weight of the first token in the last row", bool((weight > 0).all()), observed=weight.flatten().tolist())


def test_a_window_is_as_wide_as_published(model, reach, published):
    """In a longer text a windowed layer lets a token see the published number, in an encoder besides itself."""
    around = 1 if model.family == "encoder-only" else 0  # the token itself stands between the window's halves
    same("tokens seen", observed=min(reach) - around, expected=published.window)


@pytest.mark.lesson("long-range dependency modeling through self-attention")
def test_every_token_reaches_every_other_in_every_layer_of_an_encoder(encoder):
    """In each layer of an encoder every token gives every other some weight."""
    for block in encoder.attending:
        weights = block.self_attention.weights
        holds("weights", bool((weights > 0).all()), observed=float(weights.min()), expected="all above zero")


def test_the_path_from_the_first_token_to_the_last_has_length_one(attention, miniature):
    """One attention carries the first visible token's vector to the last place: its gradient there is not zero."""
    run = miniature.run(gradients=True)
    first = run.first_attention
    nearest = int((attention.weights[0].amax(dim=0)[-1] > 0).nonzero()[0])
    gradient = torch.autograd.grad(first.output[:, -1].pow(2).sum(), first.input)[0]
    reached = float(gradient.reshape(-1, gradient.shape[-1])[nearest].abs().max())
    holds("gradient at the first visible token", reached > 1e-7, observed=reached, expected="above zero")


def test_a_batch_does_not_change_its_members(transformer):
    """In a padded batch each text gets the output that it gets alone."""
    padded, alone = alone_and_padded(transformer)
    close("output", observed=padded, expected=alone, tolerance=1e-4)


@pytest.mark.lesson("lacks the recurrence feature found in RNNs to feed the input one at a time")
def test_no_step_waits_for_an_earlier_token(miniature):
    """No module is recurrent, and the longest chain of operations that wait for one another grows with no token."""
    same("recurrent modules", observed=len(recurrent_modules(miniature)), expected=0)
    chains = [longest_chain(pass_over(miniature, tokens).tape) for tokens in (SEQ, SEQ // 2)]
    same("longest chain for ten tokens", observed=chains[0], expected=chains[1])

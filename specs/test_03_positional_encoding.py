"""Positional encoding: a Transformer has no recurrence, so it has to be given the place of each word.

The first Transformers add a vector for each position to the token embeddings: a fixed sinusoid, or a learned table as
in OPT. Later ones do it inside attention: rotary models turn queries and keys, ALiBi and T5 add to the scores.
"""

import pytest
import torch

from fixtures.behaviour import positions
from fixtures.behaviour.interventions import swap_earlier_tokens, without_positions
from fixtures.behaviour.positions import (
    by_distance,
    equal_token_attentions,
    nearest_sinusoid,
    position_rows,
    positions_of_padded,
    rows_with_gradient,
    scheme,
    sum_at_entry,
)
from fixtures.behaviour.rotation import stretches, turns
from fixtures.models.runnable import SEQ
from fixtures.verdicts.evidence import close, differs, holds, same, shape
from fixtures.verdicts.judge import does_not_apply

pytestmark = pytest.mark.lesson("Positional Encoding")


def test_the_position_scheme_is_the_published_one(facts, published):
    """Ten equal tokens show how places are told apart: learned, sinusoidal, rotary, alibi, relative, or not at all."""
    same("positions", observed=facts["positions"], expected=published.positions)


@pytest.mark.lesson("Positional Embedding: Expected: [1, 10, 2048]")
def test_every_position_has_a_vector_of_the_models_width(position_vectors, skeleton, miniature, published):
    """The look-up gives one vector for each position: [1, 10, 2048] for OPT-1.3b."""
    vectors = positions.position_vectors(miniature, skeleton.trace)
    shape("position vectors", vectors.shape[-2:], seq=skeleton.trace.stack.length, d_model=published.d_model)


@pytest.mark.lesson("This is accomplished by adding positional encodings to the input embeddings")
def test_positions_are_added_to_the_token_embeddings(miniature):
    """What enters the stack is token plus position: one word, ten places, sums that differ by their positions alone."""
    one, other = sum_at_entry(miniature, token=0), sum_at_entry(miniature, token=1)
    differs("the sum at the next place", observed=one[:, 1:], reference=one[:, :-1])
    close("one token less another, at every place", observed=one - other, expected=(one - other)[:, :1].expand_as(one))


@pytest.mark.lesson("Can be sinusoidal or learned (as in OPT)")
def test_sinusoids_follow_the_formula(sinusoidal_vectors):
    """A position's vector is sin and cos of position / 10000^(2i/d)."""
    close("position vectors", observed=sinusoidal_vectors, expected=nearest_sinusoid(sinusoidal_vectors))


@pytest.mark.lesson("Can be sinusoidal or learned (as in OPT)")
def test_learned_positions_are_trained(learned_vectors, miniature):
    """A backward pass gives a gradient to exactly the ten positions of the text."""
    run = miniature.run(gradients=True)
    found = position_rows(run, positions.position_vectors(miniature, run))
    assert found is not None, "expected position vectors that are rows of a table, found none on their way"
    table, read = found
    same("rows with a gradient", observed=rows_with_gradient(run.stack.streams[-1], table), expected=sorted(read))


def test_positions_are_counted_from_the_tables_first_row(position_vectors, miniature):
    """The first token reads row 0, the tenth row 9."""
    read = position_rows(miniature.trace, position_vectors)
    if read is None:
        does_not_apply("The positions' vectors are computed for the text at hand, and stand in no table.")
    same("rows", observed=read[1], expected=list(range(len(read[1]))))


def test_a_places_vector_is_its_row_of_the_table(position_vectors, miniature):
    """What is added for a place is its row of the table, as it stands there."""
    read = position_rows(miniature.trace, position_vectors)
    if read is None:
        does_not_apply("The positions' vectors are computed for the text at hand, and stand in no table.")
    rows = read[0][read[1]]
    close("vectors", observed=position_vectors.reshape(-1, *rows.shape)[0], expected=rows)


def test_padding_takes_no_position(position_vectors, miniature):
    """In a batch padded on the left, the real tokens keep the positions they have alone."""
    padded, alone = positions_of_padded(miniature)
    close("position vectors of the real tokens", observed=padded, expected=alone)


def test_rotary_scores_depend_on_the_distance_alone(miniature, rotary):
    """Turned queries and keys keep their lengths, and equal tokens score alike at the same distance, else otherwise."""
    turning = [attention for attention in equal_token_attentions(miniature) if scheme(attention) == "rotary"]
    holds("attentions that turn queries and keys", len(turning) > 0, observed=len(turning), expected="at least one")
    for attention in turning:
        lengths = attention.query.norm(dim=-1)
        close("lengths of the turned queries", observed=lengths, expected=lengths[..., :1].expand_as(lengths))
        _depends_on_the_distance_alone(attention)


def test_turning_makes_queries_and_keys_no_longer(miniature, stretch):
    """A query or key is as long turned as before, or longer by the number that its config's YaRN or LongRoPE gives."""
    turning = [attention for attention in equal_token_attentions(miniature) if scheme(attention) == "rotary"]
    found = [share for attention in turning for share in stretches(attention)]
    if not found:
        does_not_apply("What is turned was normed after it, and is not seen before with the length that it has.")
    for share in found:
        near = min(stretch, key=lambda stated: abs(stated - share))
        close("length when turned, over length before", observed=share, expected=near, tolerance=1e-2)


def test_rotary_angles_follow_the_formula(miniature, ropes):
    """From each place to the next, pair i of a query's numbers is turned forwards by base ** (-2i / d)."""
    turning = [attention for attention in equal_token_attentions(miniature) if scheme(attention) == "rotary"]
    holds("attentions that turn queries", len(turning) > 0, observed=len(turning), expected="at least one")
    for attention in turning:
        ways = list(turns(attention))
        holds("pairs that are turned", len(ways) > 0, observed=len(ways), expected="at least one way to pair numbers")
        off = min(float((way - angles(2 * len(way))).abs().max()) for way in ways for angles in ropes)
        holds("angles", off < 1e-3, observed=ways[0].tolist(), expected=f"those of the formula, not {off:.3g} off")


def test_alibi_lowers_the_score_by_the_same_step_at_every_distance(miniature, alibi):
    """Equal tokens score less the farther apart they are, in even steps; every head has steps of its own size."""
    for attention in equal_token_attentions(miniature):
        _depends_on_the_distance_alone(attention)
        score = {distance: pairs.mean(dim=0) for distance, pairs in by_distance(attention).items()}
        steps = torch.stack([score[d + 1] - score[d] for d in sorted(score) if d >= 0 and d + 1 in score])
        close("steps", observed=steps, expected=steps[:1].expand_as(steps))
        holds("every step lowers the score", bool((steps < 0).all()), observed=steps[0].tolist())
        slopes = steps.mean(dim=0).round(decimals=4)
        same("different slopes", observed=len(slopes.unique()), expected=attention.heads)


def test_relative_scores_depend_on_the_distance_alone(miniature, relative):
    """What is added to the score of two equal tokens depends on their distance, and on nothing else of their places."""
    for attention in equal_token_attentions(miniature):
        _depends_on_the_distance_alone(attention)


@pytest.mark.lesson("it necessitates a method for considering the position of words within a sentence")
def test_without_positions_word_order_is_lost(attention, miniature):
    """Without positions, trading two earlier words leaves what the first attention gives the last token as it was."""
    edits = without_positions(miniature.trace)
    base, traded = miniature.run(edits=edits), miniature.run(**swap_earlier_tokens(miniature), edits=edits)
    close("last row", observed=traded.first_attention.output[:, -1], expected=base.first_attention.output[:, -1])


def test_with_positions_word_order_counts(attention, miniature):
    """With positions, trading two earlier words changes what the first attention gives the last token."""
    traded = miniature.run(**swap_earlier_tokens(miniature)).first_attention
    differs("last row", observed=traded.output[:, -1], reference=attention.output[:, -1])


def test_without_positions_an_encoder_sees_a_set(encoder, miniature):
    """Without positions, shuffling an encoder's tokens shuffles its outputs, and does nothing else."""
    edits, order = without_positions(miniature.trace), [*range(SEQ - 1, -1, -1)]
    target = miniature.target(miniature.ids)
    base, shuffled = (miniature.run(ids, target, edits=edits).stacks[0].streams[-1] for ids in _both(miniature, order))
    close("outputs", observed=shuffled, expected=base[:, order])


def _both(miniature, order):
    return miniature.ids, miniature.ids[:, order]


def _depends_on_the_distance_alone(attention):
    pairs = by_distance(attention)
    for distance, scores in pairs.items():
        close(f"scores at distance {distance}", observed=scores, expected=scores[:1].expand_as(scores), tolerance=1e-4)
    near, far = pairs[0].mean(dim=0), pairs[max(pairs)].mean(dim=0)
    differs("the score at the greatest distance", observed=far - near + 1, reference=near - near + 1)

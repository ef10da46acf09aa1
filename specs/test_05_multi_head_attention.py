"""Multi-head attention: several attentions read the same tokens side by side, each in its own narrow space.

Each head has queries of its own, and gives its own weights; what the heads return is laid side by side and sent through
one projection, so that every head contributes its own part to the output.
"""

import pytest

from fixtures.behaviour.facts import VISIBLE
from fixtures.behaviour.interventions import change_input, change_weights, in_later_pass
from fixtures.verdicts.evidence import close, holds, same
from fixtures.verdicts.judge import does_not_apply

pytestmark = pytest.mark.lesson("Multi-Head Attention")


def test_the_model_has_its_published_heads(full_size_attentions, published):
    """Every layer compares queries with keys in the published number of heads."""
    for attention in full_size_attentions:
        same("heads", observed=attention.heads, expected=published.heads)


def test_a_head_has_its_published_width(full_size_attentions, published):
    """In every layer a query and a key of one head have the published width: 64 in OPT-1.3b."""
    for attention in full_size_attentions:
        same("d_head", observed=attention.d_head, expected=published.d_head)


def test_the_model_has_its_published_key_and_value_heads(full_size_attentions, published):
    """Every layer keeps keys and values for the published number of heads."""
    for attention in full_size_attentions:
        same("kv_heads", observed=attention.kv_heads, expected=published.kv_heads)


def test_every_head_has_keys_and_values_of_its_own(full_size_attentions):
    """There are as many key and value heads as query heads."""
    for attention in full_size_attentions:
        same("kv_heads", observed=attention.kv_heads, expected=attention.heads)


def test_heads_that_share_keys_and_values_stand_side_by_side(self_attentions):
    """Keys and values that serve several heads serve neighbours: the first so many heads read the first of both."""
    sharing = [attention for attention in self_attentions if 1 < attention.kv_heads < attention.heads]
    if not sharing:
        does_not_apply("Every head has keys and values of its own, or all share one key and one value.")
    for attention in sharing:
        served = attention.heads // attention.kv_heads
        expected = [head - head % served for head in range(attention.heads)]
        for name in ("key", "value"):
            observed = _first_alike(getattr(attention, name)[0])
            same(f"first head with the same {name}s", observed=observed, expected=expected)


def _first_alike(vectors):
    return [
        next(first for first in range(head + 1) if vectors[first].equal(vectors[head])) for head in range(len(vectors))
    ]


def test_heads_times_head_width_is_the_models_width(full_size_attentions, published):
    """The heads share the model's width among them."""
    for attention in full_size_attentions:
        same("heads x d_head", observed=attention.heads * attention.d_head, expected=published.d_model)


def test_the_output_projection_takes_all_heads_side_by_side(full_size_attentions):
    """The projection that ends attention takes in heads times the width of a head's values."""
    for attention in full_size_attentions:
        expected = attention.heads * attention.context.shape[-1]
        same("width in", observed=attention.output_width_in, expected=expected)


@pytest.mark.lesson("multiple attention components process the same information")
def test_every_head_reads_the_same_input(attention, miniature):
    """When the attention's input changes at a place, every head's query, key and value change there, and only there."""
    place = attention.query.shape[-2] - 1
    changed = in_later_pass(miniature, attention, change_input(miniature, attention, place))
    for role in ("query", "key", "value"):
        moved = (getattr(changed, role) - getattr(attention, role)).abs().amax(dim=-1)[0]
        there = moved[:, place]
        holds(f"every head's {role} there moves", bool((there > VISIBLE * there.max()).all()), observed=there.tolist())
        same(f"largest move of a {role} elsewhere", observed=round(float(moved[:, :place].max()), 6), expected=0.0)


@pytest.mark.lesson("Applies multiple attention mechanisms in parallel")
def test_all_heads_are_computed_in_one_batched_product(block, attention):
    """A block compares all queries of all heads with all keys in a single product."""
    own = [a for a in block.attentions if not a.cross]
    same("products of queries with keys in a block", observed=len(own), expected=1)
    side_by_side = attention.output_width_in // attention.context.shape[-1]
    same("heads in the product", observed=own[0].heads, expected=side_by_side)


def test_a_silenced_head_takes_away_its_own_part_and_no_other(attention, miniature):
    """Setting one head's weights to zero takes from the output exactly what its slice of the projection contributed."""
    for head in range(attention.heads):
        silent = in_later_pass(miniature, attention, change_weights(attention, _without(head)))
        close("what is lost", observed=attention.output - silent.output, expected=attention.contribution(head))


def test_the_heads_contributions_add_up_to_the_output(attention):
    """The output is the sum of what each head contributes, and the projection's bias."""
    parts = sum(attention.contribution(head) for head in range(attention.heads))
    close("sum of the parts", observed=parts + attention.output_bias, expected=attention.output)


def _without(head):
    def silence(weights):
        weights[:, head] = 0
        return weights

    return silence

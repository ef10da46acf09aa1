"""Self-attention: each token's new vector is a weighted sum over the tokens it may see.

Every token is projected three times: to a query, to a key that queries are compared with, and to a value that is
passed on. The products of a query with the keys, scaled and masked, become weights; the weights say how much of each
value the token receives.
"""

import pytest
import torch

from fixtures.behaviour.facts import maker_names, projection_layout
from fixtures.behaviour.interventions import change_key, change_query, change_scores, change_value, in_later_pass
from fixtures.behaviour.positions import added_to_scores
from fixtures.models.runnable import SEQ, TARGET
from fixtures.verdicts.evidence import close, differs, holds, same, shape

pytestmark = pytest.mark.lesson("Self-Attention Mechanism")


def attend(query, key, value, *, visible, scale, bias):
    """Attention in plain torch: what the models of this chapter are held against.

    query is [batch, heads, target, d_head], key and value are [batch, heads, source, d_head]; visible [target, source]
    says which token may see which; bias is added for the distance of two tokens, and is zero in most models.
    """
    scores = query @ key.transpose(-1, -2)  # how well each key fits each query: [batch, heads, target, source]
    scores = scores * scale + bias
    scores = scores.masked_fill(~visible, -torch.inf)  # what may not be seen gets no weight
    weights = scores.softmax(dim=-1)  # shares of one, row by row
    return weights @ value  # each token's weighted sum of the values: [batch, heads, target, d_head]


@pytest.mark.lesson("Inspecting Architecture: q_proj, k_proj, v_proj, out_proj")
def test_every_attention_has_query_key_value_and_output_projections(self_attentions, miniature):
    """Queries, keys and values are each made by a weight matrix, and a fourth maps the result back to the stream."""
    for attention in self_attentions:
        found = maker_names(miniature, attention)
        missing = [role for role in ("query", "key", "value", "output") if not found[role]]
        holds(
            f"projections of {found['query']}", not missing, observed=found, expected="four roles, each with a weight"
        )


@pytest.mark.lesson("Inspecting Architecture: q_proj, k_proj, v_proj, out_proj")
def test_query_key_and_value_have_a_matrix_each(self_attentions):
    """Three separate matrices make query, key and value, as in OPT."""
    for attention in self_attentions:
        same("layout", observed=projection_layout(attention), expected="separate")


def test_the_projections_are_laid_out_as_published(facts, published):
    """Query, key and value come from separate matrices, a fused one, or a shared latent vector, as published."""
    same("projections", observed=facts["projections"], expected=published.projections)


@pytest.mark.lesson("Self-Attention Output: Expected: [1, 10, 2048]")
def test_self_attention_returns_a_vector_of_the_models_width_for_each_token(full_size_attentions, published, skeleton):
    """Ten vectors go in and ten come out, [1, 10, 2048] for OPT-1.3b, in every layer."""
    writing = {id(block.self_attention) for block in skeleton.trace.stack.attending if skeleton.has_target}
    for attention in full_size_attentions:
        seq = TARGET if id(attention) in writing else SEQ
        shape("output", attention.output, batch=1, seq=seq, d_model=published.d_model)


@pytest.mark.lesson("calculates a weighted sum of the embeddings of all words in a sentence for each word")
def test_the_output_is_the_weighted_sum_of_the_values(known_attentions):
    """Attention returns what `attend` above makes of its queries, keys and values, through its output projection."""
    for known in known_attentions:
        attention, given = known.attention, {"visible": known.visible, "scale": known.scale, "bias": known.bias}
        by_hand = attend(attention.query, attention.key, attention.value, **given)
        close("output", observed=attention.output, expected=attention.project(by_hand))


def test_what_is_added_to_the_scores_is_the_same_for_any_text(miniature, self_attentions):
    """Between the scaled products and the softmax stand a mask and places, nothing that depends on the words."""
    ids = (miniature.ids.flip(-1) + 1) % len(miniature.trace.embedding.table)
    other = miniature.run(ids, miniature.target(ids) if miniature.has_target else None)
    for attention, again in zip(self_attentions, [a for a in other.attentions if not a.cross], strict=True):
        close("added", observed=added_to_scores(again), expected=added_to_scores(attention), tolerance=1e-4)


def test_weights_are_never_negative(attentions):
    """No attention weight is negative."""
    for attention in attentions:
        holds("smallest weight", bool((attention.weights >= 0).all()), observed=float(attention.weights.min()))


def test_weights_of_a_row_sum_to_one(attentions):
    """The weights a token gives to the tokens it sees add up to one."""
    for attention in attentions:
        sums = attention.weights.sum(dim=-1)
        close("sums of the rows", observed=sums, expected=torch.ones_like(sums))


def test_later_tokens_get_no_weight(causal_attentions):
    """A decoder gives every later token a weight of exactly zero."""
    for attention in causal_attentions:
        later = attention.weights.triu(diagonal=1)
        same("weights above the diagonal", observed=int(later.count_nonzero()), expected=0)


def test_an_encoder_gives_weight_to_later_tokens(encoder):
    """In an encoder every token gives some weight to a token that comes after it."""
    for block in encoder.attending:
        later = block.self_attention.weights.triu(diagonal=1).sum(dim=-1)[..., :-1]
        holds("weight given to later tokens", bool((later > 0).all()), observed=float(later.min()))


def test_scores_are_scaled_by_the_root_of_the_head_width(attentions):
    """A product of query and key is divided by the square root of their width before the softmax."""
    for attention in attentions:
        close("scale", observed=attention.scale, expected=attention.d_head**-0.5)


@pytest.mark.lesson("Terms with higher relevance to one another will receive higher attention weights")
def test_more_relevance_gets_more_weight(attention, miniature):
    """When one key's score rises, its weight rises and every other visible key's weight falls."""
    row = attention.weights[..., -1, :]
    visible = row > 1e-6
    least = row.masked_fill(~visible, torch.inf).argmin(dim=-1, keepdim=True)  # a weight of one could not rise
    rise = torch.zeros_like(attention.scores)
    rise[..., -1, :].scatter_(-1, least, 1.0)
    raised = in_later_pass(miniature, attention, change_scores(attention, lambda scores: scores + rise))
    moved = raised.weights[..., -1, :] - row
    falls = moved[visible.scatter(-1, least, False)]
    rises = moved.gather(-1, least).flatten()
    holds("its weight rises", bool((rises > 0).all()), observed=rises.tolist())
    holds("the others' weights fall", bool((falls < 0).all()), observed=float(falls.max()))


@pytest.mark.lesson("The Value vector answers the question, What information do we have?")
def test_values_are_handed_on_and_not_compared(attention, miniature):
    """Changing the values changes what attention returns, and leaves the weights as they were."""
    other = in_later_pass(miniature, attention, change_value(attention, lambda value: 1 - value))
    close("weights", observed=other.weights, expected=attention.weights)
    differs("what attention returns", observed=other.context, reference=attention.context)


@pytest.mark.lesson("What should I pay attention to?")
def test_a_query_of_zero_asks_for_nothing_in_particular(attention, miniature):
    """With its query set to zero, a token weighs all tokens it sees alike."""
    blank = in_later_pass(miniature, attention, change_query(attention, torch.zeros_like))
    visible = attention.weights > 0
    rows = blank.weights.masked_fill(~visible, 0)
    even = rows.amax(dim=-1, keepdim=True).expand_as(rows).masked_fill(~visible, 0)
    close("weights", observed=rows, expected=even)


@pytest.mark.lesson("What is important to consider?")
def test_keys_are_compared_and_not_handed_on(attention, miniature):
    """Changing the keys changes the weights, and leaves the values as they were."""
    other = in_later_pass(miniature, attention, change_key(attention, torch.neg))
    differs("weights", observed=other.weights, reference=attention.weights)
    close("values", observed=other.value, expected=attention.value)


@pytest.mark.lesson("The self-attention module processes the sum of token embeddings and positional encodings")
def test_attention_receives_the_stream_itself(blocks):
    """Attention is handed what its block was given, with no norm between: in block 0 embeddings plus positions."""
    for block in blocks:
        close("input", observed=block.self_attention.input, expected=block.entered)


@pytest.mark.lesson("the attention mechanism was mainly utilized to compare two portions of texts")
def test_cross_attention_compares_the_target_with_the_source(cross_attentions):
    """Each of seven target tokens weighs all ten source tokens, in every head."""
    for attention in cross_attentions:
        shape("weights", attention.weights, batch=1, heads=attention.heads, target=TARGET, source=SEQ)
        holds("every source token counts", bool((attention.weights > 0).all()), observed=float(attention.weights.min()))


def test_cross_attention_respects_the_sources_mask(encoder_decoder, cross_attentions):
    """Source tokens that are masked out as padding get no weight from any target token."""
    mask = torch.ones_like(encoder_decoder.ids)
    mask[:, -3:] = 0
    masked = encoder_decoder.run(attention_mask=mask)
    for attention in (a for a in masked.attentions if a.cross):
        same("weights on padding", observed=int(attention.weights[..., -3:].count_nonzero()), expected=0)

"""Three families: a Transformer encodes, decodes, or does both, and what it may look at tells which.

An encoder reads in both directions and turns a text into vectors. A decoder reads only what came before and scores
what comes next. An encoder-decoder reads a source with the one and writes a target with the other; the source reaches
the target through cross-attention.
"""

import pytest
import torch

from fixtures.behaviour.facts import VISIBLE, effects, farthest
from fixtures.behaviour.interventions import change_token, silence
from fixtures.behaviour.loss import loss_of_text
from fixtures.models.runnable import SEQ, TARGET
from fixtures.verdicts.evidence import close, holds, same, shape
from fixtures.verdicts.judge import does_not_apply

pytestmark = pytest.mark.lesson("Attention Is All You Need: three broad categories")


def test_the_family_is_the_declared_one(facts, published):
    """Changing single tokens shows an encoder, a decoder, or both, as published."""
    same("family", observed=facts["family"], expected=published.family)


def test_the_model_is_what_its_type_is_known_to_be(news):
    """A release is what models of its type are known to be, and departs from the lesson as they do.

    What its config switches is known, too. What is left is news, and excuses no claim.
    """
    found = {f"{what} known so far": sorted(words) for what, words in news.items()}
    same("observed", observed=found or "what is known", expected="what is known")


def test_a_decoder_does_not_look_ahead(generator, decoder):
    """Changing the last token leaves what the decoder says at every earlier position as it was."""
    ids = change_token(generator, -1)
    changed = generator.run(generator.ids if generator.has_target else ids["ids"], ids.get("target"))
    moved = effects(changed.output, generator.trace.output)
    holds("earlier positions stay", bool(moved[:-1].max() < VISIBLE), observed=moved.tolist())


def test_a_decoder_reads_what_came_before(generator, decoder):
    """Changing the second-to-last token changes what the decoder says at the last position."""

    def says(ids):
        return generator.run(generator.ids if generator.has_target else ids["ids"], ids.get("target")).output

    moved = farthest(generator, -2, -1, says, generator.trace.output)
    holds("the last position moves", bool(moved[-1] > VISIBLE), observed=moved.tolist())


def test_an_encoder_looks_both_ways(encoder, miniature):
    """Changing the last token changes the first position's vector, and changing the first token the last one's.

    Where each layer sees a window only, it takes enough of them to get that far: there the neighbour's vector changes.
    """

    def leaving(ids):
        return miniature.run(**ids).stacks[0].streams[-1]

    far = any(bool((block.self_attention.weights[..., 0, -1] > 0).any()) for block in encoder.attending)
    for at, watched in ((-1, 0), (0, -1)) if far else ((-1, -2), (0, 1)):
        moved = farthest(miniature, at, watched, leaving, encoder.streams[-1])
        holds(f"position {watched} moves", bool(moved[watched] > VISIBLE), observed=moved.tolist())


def test_the_source_reaches_the_target(encoder_decoder):
    """Changing a token of the source changes what the decoder says at every position."""
    target = encoder_decoder.target(encoder_decoder.ids)

    def says(ids):
        return encoder_decoder.run(ids["ids"], target).output

    moved = farthest(encoder_decoder, 0, slice(None), says, encoder_decoder.trace.output)
    holds("every target position moves", bool(moved.min() > VISIBLE), observed=moved.tolist())


def test_the_source_reaches_the_target_through_cross_attention_alone(encoder_decoder):
    """With cross-attention silenced, changing a token of the source changes nothing that the decoder says."""
    target, blocks = encoder_decoder.target(encoder_decoder.ids), encoder_decoder.trace.stack.blocks
    edits = {op: edit for block in blocks for op, edit in silence(block, cross=True).items()}
    base = encoder_decoder.run(encoder_decoder.ids, target, edits=edits).output
    changed = encoder_decoder.run(change_token(encoder_decoder, 0)["ids"], target, edits=edits).output
    difference = float((changed - base).abs().max())
    same("largest change in what the decoder says", observed=difference, expected=0.0)


def test_an_encoder_turns_a_text_into_vectors(encoder_only, skeleton, published):
    """Ten tokens become ten vectors of the model's width."""
    shape("last hidden states", skeleton.trace.stack.streams[-1], batch=1, seq=SEQ, d_model=published.d_model)


@pytest.mark.usefixtures("head")
def test_a_decoder_scores_the_next_token(decoder_only, skeleton, published):
    """Each position scores the whole vocabulary, and the loss compares its scores with the token that follows."""
    shape("scores", skeleton.trace.output, batch=1, seq=SEQ, vocab=published.vocab_size)
    ids, scores = decoder_only.ids, decoder_only.trace.output
    following = torch.nn.functional.cross_entropy(scores[0, :-1], ids[0, 1:])
    close("loss", observed=loss_of_text(decoder_only), expected=following)


@pytest.mark.usefixtures("head")
def test_an_encoder_decoder_scores_a_target_given_a_source(encoder_decoder, skeleton, published):
    """Each of seven target tokens gets one score for each entry of the vocabulary, whatever the source's length."""
    shape("scores", skeleton.trace.output, batch=1, target=TARGET, vocab=published.vocab_size)


@pytest.mark.lesson("Inspecting Architecture: Decoder-only model")
def test_an_encoder_or_a_decoder_alone_is_one_stack_without_cross_attention(single_stack, skeleton):
    """At full size there is one stack, and every attention compares the text with itself."""
    same("stacks", observed=len(skeleton.trace.stacks), expected=1)
    same("cross-attentions", observed=sum(a.cross for a in skeleton.trace.attentions), expected=0)


def test_every_decoder_block_of_an_encoder_decoder_attends_to_the_source(encoder_decoder, skeleton):
    """At full size there are two stacks, and each block of the second has one cross-attention."""
    same("stacks", observed=len(skeleton.trace.stacks), expected=2)
    crossing = [len([a for a in block.attentions if a.cross]) for block in skeleton.trace.stack.blocks]
    same("cross-attentions in each decoder block", observed=crossing, expected=[1] * len(crossing))


def test_every_transformer_computes_attention(model, published, facts):
    """A model that is published with attention heads has a layer that computes attention."""
    heads, attending = published.heads, facts["attention_layers"]
    if model.is_known_to_be("other"):
        does_not_apply(f"Models of the type of {model.id} are known to mix tokens in another way than by attention.")
    holds(f"layers that attend, of {heads} heads", attending > 0, observed=attending, expected="at least one")

"""Timings: what a Transformer costs is counted in operations and bytes, and measured in seconds.

A pass costs two operations for each weight and token, and in attention four for each pair of tokens and channel; so
with the length of a text the scores grow as its square and all else as the length. How long that takes is measured with
`pytest --benchmark-only` and set against what the device does at most. A time never decides whether a claim holds.
"""

import pytest

from fixtures.behaviour.cache import keeps_cache, kept
from fixtures.behaviour.facts import projection_layout
from fixtures.models.runnable import SEQ, TARGET, some_ids
from fixtures.timings import flops
from fixtures.timings.operations import NEW
from fixtures.timings.stopwatch import believable
from fixtures.verdicts.evidence import close, holds, same, shape
from fixtures.verdicts.judge import does_not_apply

pytestmark = pytest.mark.lesson("Conclusion: enabling parallel training and long-range dependency modeling")


def test_all_work_is_weights_with_tokens_and_in_attention_tokens_with_tokens(attending):
    """What torch counts in a pass are the products of the weights and those inside attention, and nothing else."""
    counted = flops.as_torch_counts(lambda: attending.model(**attending.inputs()))
    weights, attention = flops.of_pass(attending.trace).with_weights, flops.inside_attention(attending.trace)
    same("operations", observed=counted, expected=weights + attention)


def test_twice_the_tokens_are_four_times_the_scores_and_twice_all_else(transformer):
    """Twice the tokens cost attention's products four times as much, projections and feed-forward networks twice."""
    ids = some_ids(transformer.trace.embedding.table.shape[0], seq=2 * SEQ)
    longer = transformer.run(ids, ids[:, : 2 * TARGET] if transformer.has_target else None)
    for long, short in zip(longer.attentions, transformer.trace.attentions, strict=True):
        same("scores", observed=flops.of_attention(long), expected=4 * flops.of_attention(short))
        same("projections", observed=flops.of_projections(long), expected=2 * flops.of_projections(short))
    for long, short in zip(longer.stack.attending, transformer.trace.stack.attending, strict=True):
        same(
            "feed-forward network",
            observed=sum(map(flops.flop, long.feed_forward)),
            expected=2 * sum(map(flops.flop, short.feed_forward)),
        )


def test_a_step_with_a_cache_costs_what_one_token_costs(decoder_only, attending):
    """Its weights' work is a tenth of that of a pass over ten tokens, and its scores are no more than one row."""
    if not keeps_cache(decoder_only):
        does_not_apply("The library's code for this model keeps no cache: every step reads the whole text again.")
    if projection_layout(decoder_only.trace.first_attention) == "latent":
        does_not_apply("Keys and values are unpacked from latent vectors; a step may unpack those of all tokens again.")
    first = decoder_only.run(decoder_only.ids[:, :-1], use_cache=True)
    step = flops.of_pass(decoder_only.run(decoder_only.ids[:, -1:], **kept(first.result), use_cache=True))
    whole = flops.of_pass(decoder_only.trace)
    same("the weights' work", observed=SEQ * step.with_weights, expected=whole.with_weights)
    row = whole.with_tokens // SEQ
    holds("scores", 0 < step.with_tokens <= row, observed=step.with_tokens, expected=f"{row} at most")


def test_looking_tokens_up_is_timed(stopwatch, operations, tokens):
    """An embedding multiplies nothing: one vector for each token is read and handed on, [1, n, d]."""
    done = stopwatch.time(operations.embedding(tokens))
    shape("vectors", done.output, batch=1, seq=tokens, d_embedding=operations.d_embedding)
    believable(done)


def test_one_attention_is_timed(stopwatch, operations, tokens):
    """One attention returns a vector for each token, no sooner than its products and bytes can be worked off."""
    done = stopwatch.time(operations.attention(tokens))
    shape("vectors", done.output, batch=1, seq=tokens, width=operations.width_of_attention)
    believable(done)


def test_one_block_is_timed(stopwatch, operations, tokens):
    """One block returns the stream, no sooner than its products and bytes can be worked off."""
    done = stopwatch.time(operations.block(tokens))
    shape("stream", done.output, batch=1, seq=tokens, d_model=operations.d_model)
    believable(done)


@pytest.mark.lesson("proposal of training highly parallelized networks")
def test_reading_a_text_in_one_pass_is_timed(stopwatch, operations, length):
    """The prefill scores every token of a text at once (of a target, its first), no sooner than the device can."""
    done = stopwatch.time(operations.prefill(length))
    shape("scores", done.output, batch=1, seq=operations.scored_at_once(length), vocab=operations.vocab)
    believable(done)


def test_a_step_with_a_cache_is_timed(stopwatch, operations, tokens):
    """Decoding scores one more token, no sooner than the weights and the cache can be read."""
    done = stopwatch.time(operations.decode(tokens))
    shape("scores", done.output, batch=1, seq=1, vocab=operations.vocab)
    believable(done)


def test_writing_is_timed(stopwatch, operations):
    """Generation writes sixteen tokens, no sooner than one prefill and fifteen steps can be worked off."""
    done = stopwatch.time(operations.generation())
    shape("tokens", done.output, batch=1, new=NEW)
    holds("ids", 0 <= int(done.output.min()) <= int(done.output.max()) < operations.vocab)
    believable(done)


def test_scores_grow_with_the_square_of_the_length(stopwatch, growing, sizes):
    """From queries to weighted values, the work of one attention grows with the power two of the length."""
    swept = stopwatch.sweep(growing.scores, sizes["length"], name="scores by length", count=growing.flop)
    close("power of the work", observed=swept.work.exponent, expected=2.0)
    believable(*swept.timings)


def test_projections_grow_with_the_length(stopwatch, growing, sizes):
    """The work of the same attention's projections grows with the power one of the length."""
    swept = stopwatch.sweep(growing.projections, sizes["length"], name="projections by length", count=growing.flop)
    close("power of the work", observed=swept.work.exponent, expected=1.0)
    believable(*swept.timings)


def test_texts_side_by_side_grow_with_their_number(stopwatch, growing, sizes):
    """The work of reading texts side by side grows with the power one of their number."""
    swept = stopwatch.sweep(growing.side_by_side, sizes["batch"], name="prefill by batch", count=growing.flop)
    close("power of the work", observed=swept.work.exponent, expected=1.0)
    believable(*swept.timings)


def test_layers_grow_with_their_number(stopwatch, growing):
    """The work of sending a stream through a stack grows with the power one of the number of its layers."""
    swept = stopwatch.sweep(growing.layers, growing.depths, name="stack by layers", count=growing.flop)
    close("power of the work", observed=swept.work.exponent, expected=1.0)
    believable(*swept.timings)


@pytest.mark.lesson("lacks the recurrence feature found in RNNs to feed the input one at a time")
def test_a_pass_takes_one_step_whatever_the_length(stopwatch, growing, sizes):
    """A pass goes through each block once, for any length; token by token it is once for each, as an LSTM must."""
    swept = stopwatch.sweep(growing.prefill, sizes["steps"], name="one pass by length", count=growing.calls)
    close("power of the steps of a pass", observed=swept.work.exponent, expected=0.0)
    beside = stopwatch.sweep(growing.recurrent, sizes["steps"], name="LSTM by length", count=growing.cells)
    close("power of the steps of an LSTM", observed=beside.work.exponent, expected=1.0)
    believable(*swept.timings, *beside.timings)


@pytest.mark.lesson("lacks the recurrence feature found in RNNs to feed the input one at a time")
def test_steps_with_a_cache_are_as_many_as_the_tokens(stopwatch, growing, sizes):
    """Read token by token with a cache, a text takes as many steps in sequence as it has tokens."""
    swept = stopwatch.sweep(growing.steps, sizes["steps"], name="cached steps by length", count=growing.calls)
    close("power of the steps", observed=swept.work.exponent, expected=1.0)
    believable(*swept.timings)

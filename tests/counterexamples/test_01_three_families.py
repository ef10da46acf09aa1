"""Counterexamples of chapter 1."""

import copy
import functools

import pytest
import torch
from torch import nn

from fixtures.models.runnable import SEQ, TARGET
from tests.support.mutations import survey
from tests.support.wounds import mask_of, on_arguments, on_output, see

pytestmark = pytest.mark.slow

ONE_STACK = "test_an_encoder_or_a_decoder_alone_is_one_stack_without_cross_attention"

# ---- looking ahead


@pytest.mark.breaks("test_a_decoder_does_not_look_ahead", "test_the_family_is_the_declared_one")
def test_a_decoder_without_its_mask(fails):
    """A decoder whose mask lets everything through looks ahead."""
    fails("facebook/opt-125m", wound=lambda model: see(model, "*.self_attn", lambda query, key: query + key >= 0))


@pytest.mark.breaks("test_a_decoder_does_not_look_ahead")
def test_a_mask_shifted_by_one(fails):
    """The decoder of an encoder-decoder sees one token ahead, in its first block only."""

    def shift(model):
        see(model, "*.decoder.layers.0.self_attn", lambda query, key: key <= query + 1)

    fails("facebook/bart-base", wound=shift, why="earlier positions stay")


@pytest.mark.breaks("test_a_decoder_reads_what_came_before")
@pytest.mark.parametrize(
    ("patient", "where"),
    [("openai-community/gpt2", "*.attn"), ("facebook/bart-base", "*.decoder.*.self_attn")],
)
def test_a_decoder_that_forgets(fails, patient, where):
    """Every token of a decoder sees itself alone."""

    def forget(model):
        see(model, where, lambda query, key: key == query)

    fails(patient, wound=forget, why="the last position moves")


@pytest.mark.breaks("test_an_encoder_looks_both_ways")
def test_an_encoder_with_a_decoders_mask(fails):
    """The encoder of an encoder-decoder reads from left to right."""

    def mask(model):
        see(model, "*.encoder.*.self_attn", lambda query, key: key <= query)

    fails("facebook/bart-base", wound=mask, why="position -2 moves")


@pytest.mark.breaks("test_an_encoder_looks_both_ways")
def test_an_encoder_that_reads_backwards(fails):
    """The last token of an encoder sees itself alone; the others see everything."""

    def mask(model):
        see(model, "*.attention.self", lambda query, key: (query < key.max()) | (key == query))

    fails("google-bert/bert-base-cased", wound=mask, why="position -1 moves")


@pytest.mark.breaks("test_an_encoder_looks_both_ways", "test_the_family_is_the_declared_one")
def test_an_encoder_that_is_a_decoder(fails):
    """An encoder-only model reads from left to right, and so is decoder-only."""

    def mask(model):
        see(model, "*.attention.self", lambda query, key: key <= query)

    fails("google-bert/bert-base-cased", wound=mask)


# ---- from the source to the target


@pytest.mark.breaks("test_the_source_reaches_the_target")
def test_a_target_position_without_a_source(fails):
    """Cross-attention hands the first target position nothing."""

    def mute(output):
        return torch.cat([torch.zeros_like(output[:, :1]), output[:, 1:]], dim=1)

    fails("facebook/bart-base", wound=lambda model: on_output(model, "*.encoder_attn", mute))


@pytest.mark.breaks("test_the_source_reaches_the_target")
def test_a_cross_attention_that_skips_a_token(fails):
    """The first source token is seen neither by the other source tokens nor by the decoder."""

    def wound(model):
        see(model, "*.encoder.*.self_attn", lambda query, key: (key > 0) | (query == 0))
        skipping = mask_of(lambda query, key: (key > 0) | (query < 0), TARGET, SEQ)
        on_arguments(model, "*.encoder_attn", attention_mask=lambda _: skipping)

    fails("facebook/bart-base", wound=wound, also=("test_an_encoder_looks_both_ways",))


@pytest.mark.breaks("test_the_source_reaches_the_target_through_cross_attention_alone")
def test_a_way_around_cross_attention(fails):
    """The mean of the source is added to the target's stream as well."""

    def leak(module, args):
        hidden_states, mask, source, *rest = args
        return (hidden_states + source.mean(dim=1, keepdim=True), mask, source, *rest)

    fails("facebook/bart-base", wound=lambda model: model.model.decoder.layers[-1].register_forward_pre_hook(leak))


# ---- what comes out


@pytest.mark.breaks("test_an_encoder_turns_a_text_into_vectors")
def test_an_encoder_that_joins_tokens(fails):
    """The last block of an encoder hands on every second vector."""

    def wound(model):
        on_output(model, "bert.encoder.layer.11.output", lambda output: output[:, ::2])

    fails("google-bert/bert-base-cased", wound_skeleton=wound, why="seq 5 != 10")


@pytest.mark.breaks("test_an_encoder_turns_a_text_into_vectors")
def test_an_encoder_of_another_width(fails):
    """An encoder is twice as wide as published."""
    fails("google-bert/bert-base-cased", config={"hidden_size": 1536}, why="d_model 1536 != 768")


@pytest.mark.breaks("test_a_decoder_scores_the_next_token")
@pytest.mark.parametrize("patient", ["openai-community/gpt2", "meta-llama/Llama-3.1-405B"])
def test_a_decoder_that_scores_at_the_end_only(fails, patient):
    """A decoder gives scores at its last position, as it does to generate, and at no other."""

    def wound(model):
        model.forward = functools.partial(model.forward, logits_to_keep=1)

    fails(patient, wound_skeleton=wound, why="seq 1 != 10")


@pytest.mark.breaks("test_a_decoder_scores_the_next_token")
@pytest.mark.parametrize("by", [1, -1])
def test_a_decoder_that_scores_another_token(fails, by):
    """A decoder's scores stand a place too early, or too late: they are of the token two places on, or of its own."""

    def wound(model):
        forward = model.forward

        def shifted(input_ids=None, labels=None, **rest):
            labels = None if labels is None else labels.roll(-by, dims=1)
            return forward(input_ids=input_ids, labels=labels, **rest)

        model.forward = shifted

    fails("openai-community/gpt2", wound=wound, why="loss")


@pytest.mark.breaks("test_an_encoder_decoder_scores_a_target_given_a_source")
def test_an_encoder_decoder_that_leaves_out_an_entry(fails):
    """The head gives no score to the vocabulary's last entry."""

    def wound(model):
        on_output(model, "lm_head", lambda scores: scores[..., :-1])

    fails("google-t5/t5-small", wound_skeleton=wound, why="vocab 32127 != 32128")


# ---- which attentions there are


@pytest.mark.breaks(ONE_STACK)
def test_a_decoder_beside_another_stack(fails):
    """A second stack of blocks reads the text first, and the decoder's sixth block is told what it found."""

    def wound(model):
        model.reader, kept = nn.ModuleList([copy.deepcopy(model.transformer.h[0])]), {}

        def read(stream):
            kept["text"] = model.reader[0](stream)
            return stream

        on_output(model, "transformer.drop", read)
        on_output(model, "transformer.h.5.mlp", lambda vectors: vectors + kept["text"])

    fails("openai-community/gpt2", wound_skeleton=wound, why="stacks: expected 1, observed 2")


@pytest.mark.breaks(ONE_STACK)
def test_a_decoder_that_glances_at_another_text(fails):
    """One block of a decoder attends to another text, as long as its own, besides."""

    def wound(model):
        block = model.transformer.h[1]
        block.aside = _Glance(model.transformer.wte)
        on_output(model, "transformer.h.1.ln_1", block.aside)

    fails("openai-community/gpt2", wound_skeleton=wound, why="cross-attentions: expected 0, observed 1")


@pytest.mark.breaks(ONE_STACK)
def test_an_encoder_that_glances_at_another_text(fails):
    """One block of an encoder attends to another text, as long as its own, besides."""

    def wound(model):
        block = model.bert.encoder.layer[1]
        block.aside = _Glance(model.bert.embeddings.word_embeddings)
        on_output(model, "bert.encoder.layer.1.output", block.aside)

    fails("google-bert/bert-base-cased", wound_skeleton=wound, why="cross-attentions: expected 0, observed 1")


class _Glance(nn.Module):
    """A small attention to another text, whose result is added to the stream."""

    def __init__(self, table):
        super().__init__()
        self.text = lambda: table(torch.arange(SEQ, device=table.weight.device)[None])
        self.query, self.key, self.value = (nn.Linear(768, 768).to(table.weight) for _ in range(3))

    def forward(self, stream):
        text = self.text()
        weights = (self.query(stream) @ self.key(text).transpose(1, 2)).softmax(dim=-1)
        return stream + weights @ self.value(text)


@pytest.mark.breaks("test_every_decoder_block_of_an_encoder_decoder_attends_to_the_source")
def test_a_decoder_block_without_cross_attention(fails):
    """One block of the decoder is not given what the encoder read."""

    def keep_back(module, args):
        hidden_states, mask, _, *rest = args
        return (hidden_states, mask, None, *rest)

    def wound(model):
        model.model.decoder.layers[2].register_forward_pre_hook(keep_back)

    fails("facebook/bart-base", wound_skeleton=wound, why="[2] 0 != 1")


@pytest.mark.breaks("test_every_transformer_computes_attention")
def test_a_running_mean_in_place_of_attention(fails):
    """Every token gets the sum of those before it, at full size, and no weights are computed."""

    def wound(model):
        for block in model.transformer.h:
            block.attn.forward = lambda hidden_states, **rest: (hidden_states.cumsum(dim=1), None)

    fails("openai-community/gpt2", wound_skeleton=wound)


@pytest.mark.breaks("test_every_transformer_computes_attention", "test_the_family_is_the_declared_one")
def test_a_state_space_model_called_a_transformer(fails):
    """A model without any attention is declared decoder-only."""
    fails("state-spaces/mamba-130m-hf", entry={"family": "decoder-only", "heads": 12})


# ---- what is known of its type


@pytest.mark.breaks("test_the_model_is_what_its_type_is_known_to_be")
@pytest.mark.parametrize(
    ("name", "code", "why"),
    [
        ("scale", "opt", "'scale of no opt known so far'"),
        ("mask removed", "gpt2", "'family of no gpt2 known so far'"),
        ("rotation dropped", "qwen3", "'positions of no qwen3 known so far'"),
        ("embedding scaled", "bert", "'traits of no bert known so far'"),
    ],
)
def test_a_release_that_is_what_no_model_of_its_type_is(name, code, why):
    """The code has a wrong line, and what comes of it would be a trait or a fact of another type."""
    found = survey(name, code, chapter="01")["test_the_model_is_what_its_type_is_known_to_be"]
    assert found["verdict"] == "fails"
    assert why in found["reason"]

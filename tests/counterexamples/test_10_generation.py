"""Counterexamples of chapter 10: models that write otherwise than the chapter says."""

import pytest
import torch
from transformers.cache_utils import Cache

pytestmark = pytest.mark.slow

OPT, LLAMA, GPT2 = "facebook/opt-125m", "meta-llama/Llama-3.1-8B", "openai-community/gpt2"
BART, T5, BERT = "facebook/bart-base", "google-t5/t5-small", "google-bert/bert-base-cased"
FIRST = "test_a_decoder_only_model_continues_the_prompt"


@pytest.mark.breaks(FIRST)
@pytest.mark.parametrize("patient", [OPT, LLAMA])
def test_a_text_that_does_not_begin_with_the_prompt(fails, patient):
    """What is returned is as long as it ought to be, with another first token than the prompt's."""

    def forget(written, *args, **kwargs):
        written.sequences[:, 0] = 0
        return written

    fails(patient, wound=_after_generating(forget), why="how it begins")


@pytest.mark.breaks(FIRST)
def test_a_text_without_its_prompt(fails):
    """What is returned is the new tokens alone."""

    def drop(written, *args, **kwargs):
        written.sequences = written.sequences[:, -4:]
        return written

    fails(OPT, wound=_after_generating(drop), why="tokens 4 != 14")


@pytest.mark.breaks("test_an_encoder_decoder_writes_a_target_of_its_own")
@pytest.mark.parametrize("patient", [BART, T5])
def test_a_target_that_repeats_its_source(fails, patient):
    """An encoder-decoder returns the source, and what it wrote after it."""

    def repeat(written, ids, **kwargs):
        written.sequences = torch.cat([ids, written.sequences[:, 1:]], dim=1)
        return written

    # the start token, which the finished text is read again with, is gone as well
    again = "test_every_new_token_is_the_one_scored_highest"
    fails(patient, wound=_after_generating(repeat), also=(again,), why="tokens 14 != 5")


@pytest.mark.breaks("test_an_encoder_decoder_writes_a_target_of_its_own")
def test_a_target_with_another_beginning(fails):
    """The target begins with a token that the model's settings do not name."""

    def begin(model):
        generate = model.generate
        model.generate = lambda *args, **kwargs: generate(*args, **kwargs, decoder_start_token_id=7)

    fails(BART, wound=begin, why="first token: expected 2, observed 7")


@pytest.mark.breaks("test_what_is_written_depends_on_what_was_read")
@pytest.mark.parametrize("patient", [OPT, LLAMA])
def test_a_decoder_that_always_says_the_same(fails, patient):
    """The head gives every token its own number as score, whatever came before."""
    fails(patient, wound=lambda model: model.lm_head.register_forward_hook(_by_number))


@pytest.mark.breaks("test_what_is_written_depends_on_what_was_read")
@pytest.mark.parametrize("patient", [BART, T5])
def test_a_decoder_that_does_not_hear_its_source(fails, patient):
    """The encoder hands on zeros."""

    def deafen(module, args, output):
        output[0].zero_()
        return output

    fails(patient, wound=lambda model: model.get_encoder().register_forward_hook(deafen))


@pytest.mark.breaks("test_an_encoder_cannot_generate_and_says_so")
def test_an_encoder_that_says_it_can(fails):
    """An encoder answers yes when it is asked whether it can generate."""
    fails(BERT, wound=lambda model: setattr(model, "can_generate", lambda: True), why="can_generate()")


@pytest.mark.breaks("test_an_encoder_cannot_generate_and_says_so")
def test_an_encoder_that_writes(fails):
    """An encoder returns the text it was given when it is asked to write."""
    fails(BERT, wound=lambda model: setattr(model, "generate", lambda ids: ids), why="what the call says")


@pytest.mark.breaks("test_every_new_token_is_the_one_scored_highest")
@pytest.mark.parametrize("patient", [OPT, LLAMA, BART])
def test_a_second_choice(fails, patient):
    """Some of the tokens that the model would write are forbidden to it."""

    def forbid(model):
        generate = model.generate
        model.generate = lambda *args, **kwargs: generate(*args, **kwargs | {"suppress_tokens": [*range(10, 128)]})

    fails(patient, wound=forbid)


@pytest.mark.breaks("test_greedy_decoding_draws_no_lots")
@pytest.mark.parametrize("patient", [OPT, LLAMA, T5])
def test_scores_with_noise(fails, patient):
    """The scores carry noise that hangs on the random seed, whichever it is."""

    def disturb(module, args, output):
        generator = torch.Generator().manual_seed(torch.initial_seed() % 1000)
        return output + torch.rand(output.shape[-1], generator=generator)

    fails(patient, wound=lambda model: model.lm_head.register_forward_hook(disturb))


@pytest.mark.breaks("test_a_step_reads_the_newest_token_alone")
@pytest.mark.parametrize("patient", [OPT, LLAMA, T5])
def test_a_cache_that_is_not_used(fails, patient):
    """The model is asked for a cache and goes without one."""

    def forget(model):
        generate = model.generate
        model.generate = lambda *args, **kwargs: generate(*args, **kwargs | {"use_cache": False})

    fails(patient, wound=forget, why="tokens read at each step: expected")


@pytest.mark.breaks("test_a_step_reads_the_newest_token_alone")
def test_a_cache_that_is_never_left_out(fails):
    """The model is asked to go without a cache and keeps one."""

    def keep(model):
        generate = model.generate
        model.generate = lambda *args, **kwargs: generate(*args, **kwargs | {"use_cache": True})

    fails(OPT, wound=keep, why="tokens read at each step without a cache")


@pytest.mark.breaks("test_the_cache_changes_nothing_that_is_written")
@pytest.mark.parametrize("patient", [OPT, LLAMA])
def test_a_cache_that_raises_the_scores(fails, patient):
    """After a step that reads one token alone, all scores are half as large again; the highest stays the highest."""

    def raise_scores(module, args, kwargs, output):
        if kwargs["input_ids"].shape[1] == 1:
            output.logits = output.logits * 1.5
        return output

    fails(patient, wound=lambda model: model.register_forward_hook(raise_scores, with_kwargs=True), why="scores")


@pytest.mark.breaks("test_the_cache_changes_nothing_that_is_written")
def test_a_target_cache_that_raises_the_scores(fails):
    """An encoder-decoder's steps after the first give scores half as large again, where a cache is kept."""

    def raise_scores(module, args, kwargs, output):
        cache = next((value for value in kwargs.values() if isinstance(value, Cache)), None)
        if cache is not None and kwargs["decoder_input_ids"].shape[1] == 1 and cache.get_seq_length() > 1:
            output.logits = output.logits * 1.5
        return output

    fails(T5, wound=lambda model: model.register_forward_hook(raise_scores, with_kwargs=True), why="scores")


@pytest.mark.breaks("test_a_text_is_written_alike_beside_others", "test_padding_changes_nothing_that_is_written")
@pytest.mark.parametrize("patient", [OPT, LLAMA, T5])
def test_a_row_that_hears_its_neighbour(fails, patient):
    """Every row's scores carry a tenth of those of the row beside it."""

    def leak(module, args, output):
        return output + 0.1 * output.roll(1, dims=0) if len(output) > 1 else output * 1.1

    fails(patient, wound=lambda model: model.lm_head.register_forward_hook(leak))


@pytest.mark.breaks("test_padding_changes_nothing_that_is_written")
@pytest.mark.parametrize("patient", [OPT, GPT2, LLAMA, BART])
def test_a_mask_that_is_ignored(fails, patient):
    """The model takes the padding for words."""

    def ignore(model):
        generate = model.generate

        def blind(ids, *, attention_mask, **kwargs):
            return generate(ids, attention_mask=torch.ones_like(attention_mask), **kwargs)

        model.generate = blind

    fails(patient, wound=ignore)


def _after_generating(change):
    def wound(model):
        generate = model.generate
        model.generate = lambda *args, **kwargs: change(generate(*args, **kwargs), *args, **kwargs)

    return wound


def _by_number(module, args, output):
    return torch.arange(output.shape[-1]).expand_as(output) * 0.1

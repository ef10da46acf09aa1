"""Counterexamples of chapter 2."""

import dataclasses

import pytest
import torch

from fixtures.published import tokenizer
from tests.support.ward import matrix
from tests.support.wounds import on_output

pytestmark = pytest.mark.slow

# ---- tokens


@pytest.mark.breaks("test_the_sentence_becomes_its_recorded_tokens")
@pytest.mark.parametrize("patient", ["facebook/opt-1.3b", "google-bert/bert-base-cased"])
def test_a_tokenizer_that_forgets_the_special_tokens(fails, patient, monkeypatch):
    """A tokenizer leaves out the tokens that its model wants around a text."""
    build = tokenizer.build_tokenizer

    def forgetful(recorded):
        tokenizer = build(recorded)
        tokenizer._tokenizer.post_processor = None
        return tokenizer

    monkeypatch.setattr(tokenizer, "build_tokenizer", forgetful)
    fails(patient, why="token ids: expected [batch=1, seq=1")


@pytest.mark.breaks("test_the_sentence_becomes_its_recorded_tokens")
@pytest.mark.parametrize(("patient", "piece"), [("facebook/opt-1.3b", "Ġfox"), ("google-bert/bert-base-cased", "fox")])
def test_a_vocabulary_with_another_id(fails, patient, piece, monkeypatch):
    """In the published vocabulary one entry has the id after its own."""
    _read(monkeypatch, ids=lambda ids: {**ids, piece: ids[piece] + 1})
    fails(patient, why="token ids: expected")


@pytest.mark.breaks("test_the_sentence_becomes_its_recorded_tokens")
@pytest.mark.parametrize(
    ("patient", "rank", "rather"),
    [
        ("openai-community/gpt2", 10406, 18.5),  # Ġ and q, before q and u: quick comes out in three
        ("FacebookAI/roberta-base", 37040, 12000.5),  # Ġl and az, before az and y
        ("facebook/bart-base", 561, 1.5),  # T and h, before h and e
    ],
)
def test_a_merge_of_another_rank(fails, patient, rank, rather, monkeypatch):
    """In the published vocabulary one merge comes before a rival that it comes behind."""
    _read(monkeypatch, merges=lambda merges: [(rather if place == rank else place, *parts) for place, *parts in merges])
    fails(patient, why="token ids: expected")


@pytest.mark.breaks("test_the_sentence_becomes_its_recorded_tokens")
def test_a_vocabulary_without_a_word(fails, monkeypatch):
    """A whole word is no entry of the published vocabulary, and comes out in the longest parts that are."""
    _read(
        monkeypatch,
        ids=lambda ids: {piece: i for piece, i in ids.items() if piece != "jumps"} | {"##s": 1116},
    )
    fails("google-bert/bert-base-cased", why="token ids: expected [batch=1, seq=11], observed [1, 12]")


def _read(monkeypatch, **changes):
    """Have the published vocabularies read with some of what they record changed."""
    read = tokenizer.read_vocabulary

    def changed(name):
        found = read(name)
        return dataclasses.replace(found, **{field: change(getattr(found, field)) for field, change in changes.items()})

    monkeypatch.setattr(tokenizer, "read_vocabulary", changed)


@pytest.mark.breaks("test_every_token_id_has_a_row")
def test_a_tokenizer_with_more_ids_than_rows(fails):
    """A tokenizer knows one entry more than the table has rows."""
    recorded = matrix().entries["openai-community/gpt2"].sentence
    assert recorded is not None
    tokens = ("test_the_sentence_becomes_its_recorded_tokens",)
    fails("openai-community/gpt2", entry={"sentence": {**recorded, "tokenizer_size": 50258}}, also=tokens)


@pytest.mark.breaks("test_the_vocabulary_has_its_published_size")
@pytest.mark.parametrize("patient", ["facebook/opt-1.3b", "google-t5/t5-small"])
def test_a_table_with_more_rows_than_published(fails, patient):
    """A table is a few rows longer than published."""
    fails(patient, config={"vocab_size": 60000})


# ---- widths


@pytest.mark.breaks("test_ten_tokens_become_ten_vectors")
def test_an_embedding_that_leaves_out_a_token(fails):
    """A full-size embedding gives nine vectors for ten tokens."""

    def wound(model):
        model.get_input_embeddings().register_forward_hook(lambda module, args, output: output[:, 1:])

    fails("facebook/opt-1.3b", wound_skeleton=wound, why="seq 9 != 10")


@pytest.mark.breaks("test_ten_tokens_become_ten_vectors", "test_embeddings_are_as_wide_as_the_stream")
def test_an_embedding_narrower_than_published(fails):
    """A table is half as wide as published, and what it gives is projected to the width of the stream."""
    fails("facebook/opt-1.3b", config={"word_embed_proj_dim": 1024})


@pytest.mark.breaks("test_the_width_is_the_published_one")
def test_gpt_3_as_the_lesson_rounds_it(fails):
    """GPT-3 is declared 12,000 wide, its table with it."""
    rounded = {"d_model": 12000, "d_embedding": 12000}
    fails("openai/gpt-3-175b", entry=rounded, also=("test_ten_tokens_become_ten_vectors",), why="observed 12288")


@pytest.mark.breaks("test_the_width_is_the_published_one")
def test_a_stream_wider_than_published(fails):
    """The stream behind a narrow table is twice as wide as published."""
    fails("facebook/opt-350m", config={"hidden_size": 2048}, why="expected 1024, observed 2048")


@pytest.mark.breaks("test_the_width_is_the_published_one", "test_ten_tokens_become_ten_vectors")
def test_a_model_wider_than_published(fails):
    """Table and stream are both twice as wide as published."""
    fails("google-bert/bert-base-cased", config={"hidden_size": 1536})


# ---- the look-up


@pytest.mark.breaks("test_embedding_is_a_table_look_up")
@pytest.mark.parametrize("patient", ["openai-community/gpt2", "google-t5/t5-small"])
def test_an_embedding_that_mixes_neighbours(fails, patient):
    """Every looked-up vector has its left neighbour's added."""

    def mix(module, args, output):
        return output.add_(output.roll(1, dims=1))

    fails(patient, wound=lambda model: _look_up(model).register_forward_hook(mix))


@pytest.mark.breaks("test_embedding_is_a_table_look_up")
def test_an_embedding_that_reads_backwards(fails):
    """The last token's row comes first."""

    def backwards(module, args):
        ids = args[0]
        return (ids[:, torch.arange(ids.shape[1] - 1, -1, -1)],)

    fails("openai-community/gpt2", wound=lambda model: _look_up(model).register_forward_pre_hook(backwards))


@pytest.mark.breaks("test_a_token_has_one_vector_wherever_it_stands")
@pytest.mark.parametrize("patient", ["openai-community/gpt2", "google-bert/bert-base-cased"])
def test_an_embedding_that_hears_a_word_once(fails, patient):
    """A word that was there before gets a vector of zeros."""

    def tire(module, args, output):
        ids = args[0]
        again = (ids[:, :, None] == ids[:, None, :]).tril(-1).any(dim=-1)
        output[again] = 0

    fails(patient, wound=lambda model: _look_up(model).register_forward_hook(tire))


@pytest.mark.breaks("test_a_token_has_one_vector_wherever_it_stands", "test_embedding_is_a_table_look_up")
def test_an_embedding_that_counts_places(fails):
    """The looked-up vectors grow from place to place."""

    def grow(module, args, output):
        return output.mul_(torch.linspace(1, 2, output.shape[1])[:, None])

    fails("openai-community/gpt2", wound=lambda model: model.get_input_embeddings().register_forward_hook(grow))


@pytest.mark.breaks("test_the_vector_enters_the_stack_unscaled")
@pytest.mark.parametrize("patient", ["openai-community/gpt2", "facebook/bart-base"])
def test_a_scaled_embedding(fails, patient):
    """What the look-up gives is multiplied by eight."""

    def wound(model):
        _look_up(model).register_forward_hook(lambda module, args, output: output * 8)

    fails(patient, wound=wound, why="expected 1.0, observed 8.0")


# ---- learning


@pytest.mark.breaks("test_the_table_is_trainable")
def test_a_frozen_table(fails):
    """The table is a parameter that training leaves alone."""

    def freeze(model):
        model.get_input_embeddings().weight.requires_grad_(False)

    trained = ("test_only_the_tokens_that_occurred_are_trained", "test_a_tied_head_trains_every_row")
    fails("openai-community/gpt2", wound=freeze, also=trained)


@pytest.mark.breaks("test_only_the_tokens_that_occurred_are_trained")
@pytest.mark.parametrize("patient", ["openai-community/gpt2", "facebook/bart-base"])
def test_an_embedding_taken_less_the_tables_mean(fails, patient):
    """The mean of all rows is subtracted from every vector, so that every row learns."""

    def wound(model):
        _look_up(model).register_forward_hook(lambda module, args, output: output - module.weight.mean(dim=0))

    fails(patient, wound=wound)


@pytest.mark.breaks("test_only_the_tokens_that_occurred_are_trained")
def test_an_embedding_that_learns_from_half_the_text(fails):
    """The vectors of the first five tokens are cut off from training."""

    def cut(module, args, output):
        return torch.cat([output[:, :5].detach(), output[:, 5:]], dim=1)

    fails("google-bert/bert-base-cased", wound=lambda model: model.get_input_embeddings().register_forward_hook(cut))


@pytest.mark.breaks("test_a_tied_head_trains_every_row", "test_a_score_is_the_product_of_a_vector_with_the_heads_row")
@pytest.mark.parametrize("patient", ["openai-community/gpt2", "google-bert/bert-base-cased"])
def test_a_tied_head_without_a_score_for_the_last_entry(fails, patient):
    """The score of the vocabulary's last entry is always zero."""

    def silence(module, args, output):
        return torch.cat([output[..., :-1], torch.zeros_like(output[..., -1:])], dim=-1)

    fails(patient, wound=lambda model: model.get_output_embeddings().register_forward_hook(silence))


@pytest.mark.breaks("test_the_head_is_tied_as_published")
def test_a_head_with_a_matrix_of_its_own(fails):
    """A head starts as a copy of the table and is no longer the table."""

    def untie(model):
        head = model.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.detach().clone())

    fails("openai-community/gpt2", wound=untie, why="expected True, observed False")


@pytest.mark.breaks("test_the_head_is_tied_as_published")
def test_a_head_tied_against_what_is_published(fails):
    """A head that is published with a matrix of its own is the table itself."""

    def tie(model):
        model.get_output_embeddings().weight = model.get_input_embeddings().weight

    fails("EleutherAI/pythia-1.4b", wound=tie, why="expected False, observed True")


def _look_up(model):
    """The module that looks tokens up: the encoder's where there is one, which shares its table with the decoder's."""
    return (model.get_encoder() if model.config.is_encoder_decoder else model).get_input_embeddings()


# ---- the head


@pytest.mark.breaks("test_a_score_is_the_product_of_a_vector_with_the_heads_row")
@pytest.mark.parametrize("patient", ["facebook/opt-125m", "openai-community/gpt2", "facebook/bart-base"])
@pytest.mark.parametrize(
    "change",
    [lambda scores: 0.5 * torch.tanh(2 * scores), lambda scores: 1.3 * scores],
    ids=["capped", "scaled"],
)
def test_scores_that_no_field_of_the_config_explains(fails, patient, change):
    """The head's products are capped, or multiplied, before they are the scores."""
    fails(patient, wound=lambda model: on_output(model, "lm_head", change), why="what becomes of the head's products")


@pytest.mark.breaks("test_a_score_is_the_product_of_a_vector_with_the_heads_row")
def test_a_cap_that_is_stated_and_left_out(fails, monkeypatch):
    """The config states a cap of the scores, and they are the head's products all the same."""
    monkeypatch.setattr(torch, "tanh", lambda numbers: numbers)
    fails("google/gemma-2-2b", wound=lambda model: None, why="expected 'capped', observed 'bare'")

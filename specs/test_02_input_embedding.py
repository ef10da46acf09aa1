"""Input embedding: every token becomes a vector, looked up in a table that is learned.

The same token has the same vector wherever it stands. How wide the vectors are is a choice of each model.
"""

import pytest
import torch

from fixtures.anatomy.tape import tensors_in
from fixtures.behaviour import scores
from fixtures.behaviour.positions import embedding_scale, rows_with_gradient
from fixtures.models.runnable import SEQ
from fixtures.published.tokenizer import SENTENCE
from fixtures.verdicts.evidence import close, holds, same, shape
from fixtures.verdicts.judge import does_not_apply

pytestmark = pytest.mark.lesson("Input Embedding")


@pytest.mark.lesson("Loading the Model: print(inp_tokenized['input_ids'].size())")
def test_the_sentence_becomes_its_recorded_tokens(vocabulary, model, tokenizer):
    """In the published vocabulary the tokenizer's algorithm finds the recorded pieces and their ids: ten for OPT."""
    recorded, tokens = model.release.entry.sentence, tokenizer(SENTENCE, return_tensors="pt")
    shape("token ids", tokens["input_ids"], batch=1, seq=len(recorded["ids"]))
    same("token ids", observed=tokens["input_ids"][0].tolist(), expected=list(recorded["ids"]))
    same("pieces", observed=tokens.tokens(), expected=list(recorded["pieces"]))
    same("algorithm", observed=vocabulary.algorithm, expected=recorded["algorithm"])
    same("entries", observed=len(tokenizer), expected=vocabulary.entries)


def test_every_token_id_has_a_row(tokenizer, skeleton):
    """The table has a row for every id that the tokenizer can give."""
    rows = skeleton.trace.embedding.table.shape[0]
    holds("rows for every id", rows >= len(tokenizer), observed=rows, expected=f"at least {len(tokenizer)}")


def test_the_vocabulary_has_its_published_size(skeleton, published):
    """The table has one row for each entry of the vocabulary."""
    same("rows", observed=skeleton.trace.embedding.table.shape[0], expected=published.vocab_size)


@pytest.mark.lesson("Embedding Layer: Expected: [1, 10, 2048]")
def test_ten_tokens_become_ten_vectors(skeleton, published):
    """Embedding ten tokens gives [1, 10, d]: [1, 10, 2048] for OPT-1.3b."""
    table = skeleton.model.get_input_embeddings()
    shape("embedding", tensors_in(table(skeleton.ids))[0], batch=1, seq=SEQ, d_embedding=published.d_embedding)


@pytest.mark.lesson("GPT-3 uses 12,000 dimensions, BERT as small as 768")
def test_the_width_is_the_published_one(skeleton, published):
    """The stream of hidden states is as wide as published: 768 for BERT, 12,288 for GPT-3."""
    same("d_model", observed=skeleton.trace.stack.d_model, expected=published.d_model)


def test_embeddings_are_as_wide_as_the_stream(skeleton):
    """A row of the table is as wide as the hidden states."""
    same("d_embedding", observed=skeleton.trace.embedding.table.shape[1], expected=skeleton.trace.stack.d_model)


def test_embedding_is_a_table_look_up(embedding, miniature):
    """A token's vector is its row of the table: a one-hot vector times the table."""
    one_hot = torch.nn.functional.one_hot(miniature.trace.inputs["input_ids"], len(embedding.table)).float()
    close("vectors", observed=embedding.vectors, expected=one_hot @ embedding.table)


def test_a_token_has_one_vector_wherever_it_stands(miniature):
    """Ten times the same token gives ten times the same vector."""
    vectors = miniature.repeated.embedding.vectors
    close("vectors", observed=vectors, expected=vectors[:, :1].expand_as(vectors))


def test_the_vector_enters_the_stack_unscaled(miniature):
    """What the look-up returns enters the stack as it is, not multiplied by a constant."""
    same("factor", observed=round(embedding_scale(miniature), 6), expected=1.0)


@pytest.mark.lesson("Introduction: these embeddings are acquired vectors")
def test_the_table_is_trainable(embedding):
    """The table is a parameter that training may change."""
    same("trainable", observed=embedding.table.requires_grad, expected=True)


def test_only_the_tokens_that_occurred_are_trained(miniature):
    """A backward pass from the hidden states gives a gradient to the rows of the text's tokens, and to no others."""
    run = miniature.run(gradients=True)
    touched = rows_with_gradient(run.stack.streams[-1], run.embedding.table)
    occurred = {int(token) for name in ("input_ids", "decoder_input_ids") for token in run.inputs.get(name, [[]])[0]}
    same("rows with a gradient", observed=touched, expected=sorted(occurred))


def test_a_tied_head_trains_every_row(miniature, facts):
    """Where the output head is the table itself, a backward pass from the scores gives every row a gradient."""
    if not facts["tied_embeddings"]:
        does_not_apply("The output head has a matrix of its own.")
    run = miniature.run(gradients=True)
    reached = rows_with_gradient(run.output, run.tied_table)
    same("rows with a gradient", observed=len(reached), expected=len(run.tied_table))


def test_the_head_is_tied_as_published(facts, published):
    """The output head shares the table, or does not, as published."""
    same("tied_embeddings", observed=facts["tied_embeddings"], expected=published.tied_embeddings)


@pytest.mark.usefixtures("head")
def test_a_score_is_the_product_of_a_vector_with_the_heads_row(miniature):
    """A head adds its bias, and scales or caps the scores if the config states a number for it: no more, no less."""
    found = scores.treatment(miniature)
    if found is None:
        does_not_apply("No single product makes its scores, or it gives none.")
    wanted = scores.expected_treatments(miniature.config)
    holds("what becomes of the head's products", found in wanted, observed=found, expected=" or ".join(wanted))

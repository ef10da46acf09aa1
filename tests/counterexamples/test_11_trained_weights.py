"""Counterexamples of what chapters 9 and 11 say of trained weights: weights that nobody has trained, or spoilt ones."""

import re
from typing import Any

import pytest

from fixtures.claims.model_under_test import Subject
from fixtures.claims.real_weights import Loaded
from fixtures.learning import tagged
from fixtures.libraries import checkpoints
from fixtures.published.release import at_path
from fixtures.published.tokenizer import SENTENCE
from tests.support.checkpoints import SMALL, make, save_tokenizer
from tests.support.ward import examine, matrix

pytestmark = pytest.mark.slow

LLAMA = SMALL | {"model_type": "llama", "vocab_size": 600, "hidden_size": 128, "head_dim": 32, "intermediate_size": 128}
BERT = SMALL | {"model_type": "bert", "vocab_size": 600}


def failing(folder, config, *, mask=False):
    """What fails on new weights, with a tokenizer that has the words of the sentence."""
    make(folder, **config)
    words = " ".join([SENTENCE, *(tagged.sentence(line)[0] for line in tagged.SENTENCES)]).lower()
    save_tokenizer(folder, config["vocab_size"], re.findall(r"\w+|[.,]", words))
    if mask:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.mask_token = "<unk>"
        tokenizer.save_pretrained(folder)
    found = examine(
        Loaded(Subject(at_path(folder), matrix().traits)),
        claims="heads_look or prefer_verbs or stands_out or sentence_is or told or masked_word or fewer_bits_expect",
    )
    return {name: result["reason"] for name, result in found.items() if result["verdict"] == "fails"}


OF_ANY = {
    "test_trained_heads_look_where_random_ones_do_not",
    "test_some_heads_prefer_verbs_nouns_or_numbers",
    "test_one_number_of_the_stream_stands_out",
}


@pytest.mark.breaks(
    "test_trained_heads_look_where_random_ones_do_not",
    "test_some_heads_prefer_verbs_nouns_or_numbers",
    "test_one_number_of_the_stream_stands_out",
    "test_the_sentence_is_expected",
    "test_what_was_told_is_expected_when_it_is_told_again",
)
def test_a_decoder_that_nobody_trained(tmp_path):
    """Its heads spread their weights, and it expects nothing."""
    found = failing(tmp_path, LLAMA)
    assert {name for name in found if "fewer_bits" not in name} == OF_ANY | {
        "test_the_sentence_is_expected",
        "test_what_was_told_is_expected_when_it_is_told_again",
    }


@pytest.mark.breaks(
    "test_trained_heads_look_where_random_ones_do_not",
    "test_some_heads_prefer_verbs_nouns_or_numbers",
    "test_one_number_of_the_stream_stands_out",
    "test_a_masked_word_is_filled_in",
)
def test_an_encoder_that_nobody_trained(tmp_path):
    """It fills in what chance would."""
    assert failing(tmp_path, BERT, mask=True).keys() == OF_ANY | {"test_a_masked_word_is_filled_in"}


@pytest.mark.breaks("test_trained_weights_in_fewer_bits_expect_a_text_less_well")
def test_another_head_than_the_one_that_was_saved(tmp_path, monkeypatch):
    """What is loaded in 8 bits or in 4 comes with another table than the one that was saved."""
    usual = checkpoints.load_from

    def spoilt(specimen, settings, **given):
        loaded = usual(specimen, settings, **given)
        head: Any = loaded.model
        head.get_output_embeddings().weight.data.mul_(50)
        return loaded

    monkeypatch.setattr(checkpoints, "load_from", spoilt)
    found = failing(tmp_path, LLAMA)
    assert "loss in int8" in found["test_trained_weights_in_fewer_bits_expect_a_text_less_well"]

"""Preferences of heads: told from what distances explain, on sentences whose words are marked."""

import pytest
import torch

from fixtures.learning import tagged
from fixtures.learning.preferences import Sentence, preferences


def causal(scores):
    """Weights (head, seq, seq) of a decoder from scores."""
    seq = scores.shape[-1]
    return scores.masked_fill(torch.ones(seq, seq).triu(1).bool(), -torch.inf).softmax(dim=-1)


def texts(head):
    """The marked sentences as one token a word, with the weights of a head of noise and of the one in question."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for line in tagged.SENTENCES:
        marks = [tag for *_, tag in tagged.sentence(line)[1]]
        noise = torch.randn(len(marks), len(marks), generator=generator)
        found.append(Sentence(torch.stack([causal(0.3 * noise), causal(head(marks))]), marks))
    return found


@pytest.mark.parametrize("kind", tagged.KINDS)
def test_a_head_that_prefers_a_kind_is_found_in_both_halves(kind):
    def head(marks):
        return torch.tensor([3.0 if mark == kind else 0.0 for mark in marks]).expand(len(marks), -1).clone()

    for found in preferences(texts(head), kind):
        assert found.head == 1
        assert min(found.chosen, found.again) > 1.5


@pytest.mark.parametrize("kind", tagged.KINDS)
def test_a_head_that_looks_at_a_place_prefers_nothing(kind):
    """The token before is a number as often as numbers stand there, and no more."""

    def head(marks):
        return 20 * torch.eye(len(marks)).roll(-1, dims=1)

    for found in preferences(texts(head), kind):
        assert max(found.chosen, found.again) < 1.3


def test_tags_go_with_the_pieces_of_a_word():
    line = "The farmers/N sold/V three/# horses/N ."
    text, _ = tagged.sentence(line)
    assert text == "The farmers sold three horses."
    pieces = [(0, 0), (0, 3), (3, 8), (8, 11), (11, 16), (16, 22), (22, 29), (29, 30), (0, 0)]
    assert tagged.tags(line, pieces) == [None, "", "N", "N", "V", "#", "N", "", None]


def test_every_sentence_has_each_kind_in_either_half():
    for start in (0, 1):
        marks = [tag for line in tagged.SENTENCES[start::2] for *_, tag in tagged.sentence(line)[1]]
        assert all(marks.count(kind) >= 7 for kind in tagged.KINDS)

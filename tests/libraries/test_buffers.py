"""Tensors of a model that are no parameters: what they take in its file."""

from torch import nn

from fixtures.libraries.checkpoints import bytes_to_save, numbers_to_save


class Counting(nn.Module):
    """A model with a norm that counts its batches, in int64."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8)


def test_integers_stay_as_wide():
    """Weights, biases and the norm's four vectors are numbers of any width; the count of batches takes eight bytes."""
    floating = 2 * (8 * 8 + 8) + 4 * 8
    assert numbers_to_save(Counting()) == floating + 1
    assert [bytes_to_save(Counting(), each) for each in (2, 4)] == [2 * floating + 8, 4 * floating + 8]

"""What is counted of quantization: bytes that nobody can count by hand, and names that are the same at any size."""

import pytest

from fixtures.libraries.memory import cached, smallest_card
from fixtures.libraries.quantization import BLOCK, METHODS, FullSize, build_wide, converted, packed
from tests.support.ward import healthy


def test_packed_bytes_of_a_matrix_of_opt():
    """A matrix of 2048 x 2048 takes 4,194,304 bytes in 8 bits and half of that in 4, scales and tables aside."""
    shape = (2048, 2048)
    scales = 2048 * 2048 // BLOCK
    assert packed(shape, "int8") == 4194304 + 4 * 2048
    assert packed(shape, "nf4") == packed(shape, "fp4") == 2097152 + 4 * scales + 64
    assert packed(shape, "nf4-double") == 2097152 + scales + 4 * scales // 256 + 4 + 64 + 1024
    assert packed((3, 5), "nf4") == 8 + 4 + 64, "half a byte and part of a block are rounded up"


@pytest.mark.parametrize("name", ["facebook/opt-125m", "openai-community/gpt2", "google-t5/t5-small"])
def test_the_library_replaces_at_full_size_what_it_replaces_in_the_miniature(name):
    subject = healthy(name)
    counted = FullSize(subject.skeleton, subject.miniature).quantized
    assert counted
    assert all(converted(subject.skeleton, method) == counted for method in METHODS)


def test_a_wide_miniature_has_whole_blocks():
    """Feed-forward layers of 3.25 times the width need twice the width that those of 3.5 times do."""
    widths = {
        model: build_wide(healthy(model).release.config, kinds_of=healthy(model).skeleton.model).trace.stack.d_model
        for model in ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-405B")
    }
    assert widths == {"meta-llama/Llama-3.1-8B": 128, "meta-llama/Llama-3.1-405B": 256}


def test_an_encoder_caches_nothing():
    assert cached(healthy("google-bert/bert-base-cased").skeleton.trace) == (0.0, 0.0)


def test_cards():
    assert [smallest_card(size) for size in (1, 8e9, 8e9 + 1, 141e9, 142e9)] == [
        "8",
        "8",
        "16",
        "141",
        "none",
    ]

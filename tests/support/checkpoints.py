"""Checkpoints of a few kilobytes, as somebody might publish them: a miniature's weights and a tokenizer of its size."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fixtures.models.runnable import vocabulary
from fixtures.published.tokenizer import SENTENCE
from tests.support.ward import healthy

SMALL: dict[str, Any] = {  # a config as a library's own tests have it, under names that are common to most model types
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 40,
    "max_position_embeddings": 512,
    "vocab_size": 99,
}
LETTERS = [chr(place) for place in range(ord("a"), ord("z") + 1)]


def publish(model: str, folder: Path) -> Path:
    """Save the miniature of a model of the matrix, and a tokenizer with an entry for each row of its table."""
    specimen = healthy(model).miniature
    specimen.model.save_pretrained(folder)  # type: ignore[operator]
    save_tokenizer(folder, vocabulary(specimen.model, specimen.config))
    return folder


def make(
    folder: Path, *, cls: str = "", dtype: Any = None, shard: str = "5GB", model_type: str = "", **fields: Any
) -> Path:
    """Save a model of a config with seeded random weights: of the class named, or of the one the config stands for."""
    import torch
    import transformers

    from fixtures.models.model_class import model_class

    config = transformers.AutoConfig.for_model(model_type, **fields)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made: Any = (getattr(transformers, cls) if cls else model_class(config))._from_config(config)
    (made.to(dtype) if dtype is not None else made).save_pretrained(folder, max_shard_size=shard)
    return folder


def save_tokenizer(folder: Path, entries: int, pieces: Iterable[str] = tuple(SENTENCE.lower().split())) -> None:
    """Save a tokenizer that knows these words, as many letters as it has room for, and fillers."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = list(dict.fromkeys(["<unk>", *pieces, *LETTERS, *(f"<{n}>" for n in range(entries))]))[:entries]
    backend = Tokenizer(models.WordLevel({piece: n for n, piece in enumerate(known)}, unk_token="<unk>"))
    backend.normalizer, backend.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>").save_pretrained(folder)

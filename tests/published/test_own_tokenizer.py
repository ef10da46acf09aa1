"""A release's own tokenizer: whatever its files are, it is loaded or refused in a sentence."""

import json
import os

import pytest

from fixtures.published.own_tokenizer import own_tokenizer_of
from fixtures.published.release import ReleaseError, at_path
from fixtures.published.tokenizer import SENTENCE
from tests.support.checkpoints import SMALL, save_tokenizer


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A folder with a small tokenizer."""
    folder = tmp_path_factory.mktemp("sound")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **SMALL}))
    save_tokenizer(folder, 99)
    return folder


@pytest.fixture
def folder(sound, tmp_path):
    for file in sound.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def changed(folder, **parts):
    whole = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(whole | parts))


DAMAGE = {
    "garbage": lambda f: (f / "tokenizer.json").write_text("garbage"),
    "empty": lambda f: (f / "tokenizer.json").write_text(""),
    "a list": lambda f: (f / "tokenizer.json").write_text("[]"),
    "not text": lambda f: (f / "tokenizer.json").write_bytes(b"\xff\xfe\x00"),
    "deep": lambda f: (f / "tokenizer.json").write_text("[" * 100_000),
    "no model": lambda f: changed(f, model=None),
    "bad merges": lambda f: changed(f, model={"type": "BPE", "vocab": {"a": 0}, "merges": [["x", "y"]]}),
    "unknown type": lambda f: changed(f, model={"type": "Nothing\x1b[2J"}),
    "a bad pattern": lambda f: changed(f, normalizer={"type": "Replace", "pattern": {"Regex": "("}, "content": ""}),
    "no unknown token": lambda f: changed(f, model={"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "none"}),
    "settings of a list": lambda f: (f / "tokenizer_config.json").write_text("[]"),
    "settings of a class": lambda f: (f / "tokenizer_config.json").write_text('{"tokenizer_class": 5}'),
    "settings of garbage": lambda f: (f / "tokenizer_config.json").write_text('{"model_max_length": {"a": []}, '),
    "a pipe": lambda f: os.mkfifo(f / "vocab.json"),
    "a link": lambda f: (f / "vocab.txt").symlink_to("/etc/passwd"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_told_in_a_sentence(folder, damage):
    DAMAGE[damage](folder)
    with pytest.raises(ReleaseError) as caught:
        own_tokenizer_of(at_path(folder))
    assert str(caught.value).isprintable()


def test_a_panic_is_told_in_a_sentence(folder, monkeypatch):
    """The Rust side's panics are no Exception; this one stands for those of versions that are not here."""
    from transformers import AutoTokenizer

    def panics(*args, **options):
        raise BaseException("called `Option::unwrap()` on a `None` value\nnote: run with `RUST_BACKTRACE=1`")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", panics)
    with pytest.raises(ReleaseError, match="its tokenizer cannot be loaded: BaseException: called") as caught:
        own_tokenizer_of(at_path(folder))
    assert str(caught.value).isprintable()


def test_a_sound_one_is_loaded(folder):
    assert own_tokenizer_of(at_path(folder))(SENTENCE)["input_ids"]

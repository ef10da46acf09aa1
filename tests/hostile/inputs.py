"""Hostile and broken releases, each with one thing done to the folder of a small, sound one."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {
    "model_type": "opt",
    "architectures": ["OPTForCausalLM"],
    "vocab_size": 99,
    "hidden_size": 32,
    "word_embed_proj_dim": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "ffn_dim": 40,
    "max_position_embeddings": 64,
}
Damage = Callable[[Path], Any]


def config(**changed: Any) -> Damage:
    """Change fields of the config."""
    return lambda folder: (folder / "config.json").write_text(json.dumps({**CONFIG, **changed}))


def content(name: str, text: bytes | str) -> Damage:
    """Give a file these bytes."""
    return lambda folder: (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)


def link(name: str, target: str) -> Damage:
    """Put a link in a file's place."""

    def damage(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return damage


def pipe(name: str) -> Damage:
    """Put a pipe in a file's place."""

    def damage(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return damage


def header(size: int = 8448, /, **tensors: Any) -> Damage:
    """Weights with this header, and so many bytes behind it."""
    text = json.dumps(tensors).encode()
    return content("model.safetensors", struct.pack("<Q", len(text)) + text + bytes(size))


def tensor(dtype: Any = "F32", shape: Any = (66, 32), offsets: Any = (0, 8448)) -> dict[str, Any]:
    """One tensor as a header describes it."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def index(weight_map: Any) -> Damage:
    """An index of shards."""
    return content("model.safetensors.index.json", json.dumps({"weight_map": weight_map}))


def tokenizer(**changed: Any) -> Damage:
    """A tokenizer of three words, with parts changed."""
    raw = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "[UNK]": 2}, "unk_token": "[UNK]"},
        **changed,
    }
    return content("tokenizer.json", json.dumps(raw))


def planted(name: str, *, executable: bool = False) -> Damage:
    """A program that writes a file where it runs, under a name that something may look for."""

    def damage(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        mark = str(folder / "EXECUTED")
        path.write_text(
            f"#!/bin/sh\ntouch {mark}\n" if executable else f"import pathlib; pathlib.Path({mark!r}).touch()\n"
        )
        path.chmod(0o755)

    return damage


def git(folder: Path) -> None:
    """A repository whose settings name a program."""
    (folder / ".git/objects").mkdir(parents=True)
    (folder / ".git/refs").mkdir()
    (folder / ".git/HEAD").write_text("ref: refs/heads/main\n")
    (folder / ".git/config").write_text(
        f'[core]\n repositoryformatversion = 0\n fsmonitor = "touch {folder / "EXECUTED"}; false"\n'
    )


def entry_points(folder: Path) -> None:
    """A package's data that names a plugin of pytest, and the plugin."""
    (folder / "x-1.dist-info").mkdir()
    (folder / "x-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: x\nVersion: 1\n")
    (folder / "x-1.dist-info/entry_points.txt").write_text("[pytest11]\nx = planted\n")
    planted("planted.py")(folder)


DOUBLES = {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"Regex": "."}, "content": "aa"}] * 36}
DEEP = '{"a":' * 10_000 + "1" + "}" * 10_000
W = "model.decoder.embed_positions.weight"

REFUSED: dict[str, Damage] = {
    # numbers that are none, or beyond all that is published
    "10,000 layers": config(num_hidden_layers=10_000),
    "a thousand million layers": config(num_hidden_layers=10**9),
    "layers below zero": config(num_hidden_layers=-3),
    "layers as a float": config(num_hidden_layers=2.5),
    "layers as text": config(num_hidden_layers="two"),
    "layers as a list of mappings": config(num_hidden_layers=[{}]),
    "layers true": config(num_hidden_layers=True),
    "a width of zero": config(hidden_size=0),
    "a width that is NaN": config(hidden_size=float("nan")),
    "30,000,000 token types": config(model_type="bert", type_vocab_size=30_000_000),
    "a vocabulary of 2^62": config(vocab_size=2**62),
    "2^70 positions": config(max_position_embeddings=2**70),
    "architectures a number": config(architectures=5),
    "a dtype that is a module": config(dtype="os"),
    "a float that is a list": config(rope_theta={"__float__": [1]}),
    "a field named to_dict": config(to_dict=1),
    "code from a repository": config(attn_implementation="org/kernels"),
    "a type that is escapes": config(model_type="\x1b[2J\x1b]0;x\x07\u202eopt"),
    "no type": config(model_type=None),
    # files that are none
    "900 nested mappings": content("config.json", '{"a":' * 900 + "1" + "}" * 900),
    "10,000 nested mappings": content("config.json", DEEP),
    "60 MB of numbers": content("config.json", b'{"model_type":"opt","a":[' + b"1," * 30_000_000 + b"1]}"),
    "a list of 300,000": config(a=[1] * 300_000),
    "a config that is a list": content("config.json", "[]"),
    "an empty config": content("config.json", ""),
    "no UTF-8": content("config.json", b'{"model_type": "\xff\xfe"}'),
    "a byte order mark": content("config.json", b"\xef\xbb\xbf" + json.dumps(CONFIG).encode()),
    "a config cut off": content("config.json", json.dumps(CONFIG)[:40]),
    "a config that is a pipe": pipe("config.json"),
    "a config that is /dev/zero": link("config.json", "/dev/zero"),
    "a config that leads nowhere": link("config.json", "nothing"),
    "a config that leads to itself": link("config.json", "config.json"),
    "a config out of the folder": link("config.json", "/etc/passwd"),
}
REPORTED: dict[str, Damage] = {
    # headers that break the format's rules
    "F32 [66, 32] in four bytes": header(4, **{W: tensor(offsets=(0, 4))}),
    "bytes that overlap": header(8448, **{W: tensor(), "b": tensor(offsets=(4, 8452))}),
    "bytes with a hole": header(8500, **{W: tensor(offsets=(52, 8500))}),
    "offsets the wrong way round": header(**{W: tensor(offsets=(8448, 0))}),
    "offsets below zero": header(**{W: tensor(offsets=(-8448, 0))}),
    "an offset of Infinity": header(**{W: tensor(offsets=(0, float("inf")))}),
    "an unknown dtype": header(**{W: tensor(dtype="F31")}),
    "a dtype that is a list": header(**{W: tensor(dtype=["F32"])}),
    "a shape of 1e400": content(
        "model.safetensors",
        struct.pack("<Q", 62) + b'{"a":{"dtype":"F32","shape":[1e400],"data_offsets":[0,8448]}} ' + bytes(8448),
    ),
    "a shape of [-1, 64]": header(**{W: tensor(shape=(-1, 64))}),
    "a shape of [2^62, 2^62]": header(**{W: tensor(shape=(2**62, 2**62))}),
    "a header of 2^63 bytes": content("model.safetensors", struct.pack("<Q", 2**63) + b"{}"),
    "a header of 100 MB": content("model.safetensors", struct.pack("<Q", 10**8 + 1) + b"{" + b" " * 10**8),
    "a header of 900 levels": content("model.safetensors", struct.pack("<Q", 900) + b'{"a":' * 180),
    "empty weights": content("model.safetensors", b""),
    "a name that is no text": header(**{"\ud800\x1b[2J": tensor()}),
    "weights that are a pipe": pipe("model.safetensors"),
    "weights out of the folder": link("model.safetensors", "/dev/zero"),
    # indexes
    "an index of ../..": index({W: "../../x.safetensors"}),
    "an index of /etc/passwd": index({W: "/etc/passwd"}),
    "an index of itself": index({W: "model.safetensors.index.json"}),
    "an index of absent shards": index({W: "model-00001-of-00002.safetensors"}),
    "an index of numbers": index({W: 5}),
    "an index that is a list": content("model.safetensors.index.json", "[]"),
    "an index out of the folder": link("model.safetensors.index.json", "/etc/passwd"),
    # tokenizers
    "a tokenizer of garbage": content("tokenizer.json", b"\x00\xff garbage"),
    "a tokenizer that is a list": content("tokenizer.json", "[]"),
    "bad merges": tokenizer(model={"type": "BPE", "vocab": {"a": 0}, "merges": ["x y z"]}),
    "a normalizer that doubles 36 times": tokenizer(normalizer=DOUBLES),
    "a regular expression that never ends": tokenizer(
        pre_tokenizer={
            "type": "Split",
            "pattern": {"Regex": "(a*)*(a*)*(a*)*$b"},
            "behavior": "Isolated",
            "invert": False,
        }
    ),
    "a tokenizer that is a pipe": pipe("tokenizer.json"),
}
IGNORED: dict[str, Damage] = {
    "conftest.py": planted("conftest.py"),
    "sitecustomize.py": planted("sitecustomize.py"),
    "torch.py": planted("torch.py"),
    "a .pth file": planted("x.pth"),
    "pytest.ini": content("pytest.ini", "[pytest]\naddopts = --no-such-option\n"),
    "pyproject.toml": content("pyproject.toml", '[tool.pytest.ini_options]\naddopts = "--no-such-option"\n'),
    "a program named git": planted("git", executable=True),
    "git's settings": git,
    "modeling code": planted("modeling_opt.py"),
    "a pickle": content("pytorch_model.bin", b"cposix\nsystem\n(S'touch EXECUTED'\ntR."),
    "entry points": entry_points,
}


def make(folder: Path, damage: Damage) -> Path:
    """A sound config in a new folder, and the damage done to it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    damage(folder)
    return folder

"""GGUF files of a few kilobytes, byte by byte as the format has them: metadata, a table of tensors, and zeros."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

SIZES = {0: (1, 4), 1: (1, 2), 2: (32, 18), 8: (32, 34), 12: (256, 144)}
"""Numbers and bytes of a block, by the type's number: F32, F16, Q4_0, Q8_0, Q4_K."""
F32, F16, Q4_0, Q8_0, Q4_K = SIZES
Fields = dict[str, Any]
Tensors = dict[str, tuple[tuple[int, ...], int]]
"""Shapes, rows first, and the numbers of types, by name."""
TEXT, LIST, WHOLE, REAL, TRUTH = 8, 9, 4, 6, 7
LLAMA: dict[str, int] = {"layers": 2, "width": 64, "heads": 4, "shared": 2, "inner": 96, "rows": 99}


def write(file: Path, fields: Fields, tensors: Tensors, *, order: str = "<", version: int = 3) -> Path:
    """Write a file of these metadata and tensors, whose numbers are zeros."""
    header = b"GGUF" + struct.pack(f"{order}IQQ", version, len(tensors), len(fields))
    for name, value in fields.items():
        header += _text(name, order) + _value(value, order)
    place = 0
    for name, (shape, kind) in tensors.items():
        header += _text(name, order) + struct.pack(f"{order}I{len(shape)}Q", len(shape), *shape[::-1])
        header += struct.pack(f"{order}IQ", kind, place)
        place += _aligned(_taken(shape, kind))
    file.write_bytes(header + bytes(_aligned(len(header)) - len(header) + place))
    return file


def _taken(shape: tuple[int, ...], kind: int) -> int:
    numbers, taken = SIZES[kind]
    return math.prod(shape) // numbers * taken


def _aligned(size: int) -> int:
    return -(-size // 32) * 32


def _text(text: str, order: str) -> bytes:
    return struct.pack(f"{order}Q", len(text.encode())) + text.encode()


def _value(value: Any, order: str) -> bytes:
    if isinstance(value, list):
        inner = [_value(item, order) for item in value]
        kind = inner[0][:4] if inner else struct.pack(f"{order}I", WHOLE)
        return (
            struct.pack(f"{order}I", LIST)
            + kind
            + struct.pack(f"{order}Q", len(value))
            + b"".join(item[4:] for item in inner)
        )
    if isinstance(value, str):
        return struct.pack(f"{order}I", TEXT) + _text(value, order)
    form, number = {bool: ("?", TRUTH), int: ("I", WHOLE), float: ("f", REAL)}[type(value)]
    return struct.pack(f"{order}I{form}", number, value)


# ---- models, as llama.cpp's converter lays them out


def llama(*, architecture: str = "llama", kind: int = F16, head: bool = True, **sizes: int) -> tuple[Fields, Tensors]:
    """The metadata and tensors of a small Llama, queries, keys and values apart."""
    s = LLAMA | sizes
    one = s.get("one", s["width"] // s["heads"])
    fields = metadata(architecture, s, {F32: 0, F16: 1, Q4_0: 2, Q8_0: 7, Q4_K: 15}[kind])
    fields[f"{architecture}.rope.dimension_count"] = one
    tensors: Tensors = {
        "token_embd.weight": ((s["rows"], s["width"]), kind),
        "output_norm.weight": ((s["width"],), F32),
    }
    if head:
        tensors["output.weight"] = ((s["rows"], s["width"]), kind)
    for n in range(s["layers"]):
        tensors |= {
            f"blk.{n}.attn_norm.weight": ((s["width"],), F32),
            f"blk.{n}.attn_q.weight": ((s["heads"] * one, s["width"]), kind),
            f"blk.{n}.attn_k.weight": ((s["shared"] * one, s["width"]), kind),
            f"blk.{n}.attn_v.weight": ((s["shared"] * one, s["width"]), kind),
            f"blk.{n}.attn_output.weight": ((s["width"], s["heads"] * one), kind),
            f"blk.{n}.ffn_norm.weight": ((s["width"],), F32),
            f"blk.{n}.ffn_gate.weight": ((s["inner"], s["width"]), kind),
            f"blk.{n}.ffn_up.weight": ((s["inner"], s["width"]), kind),
            f"blk.{n}.ffn_down.weight": ((s["width"], s["inner"]), kind),
        }
    return fields, tensors


def metadata(architecture: str, sizes: dict[str, int], file_type: int) -> Fields:
    """What the converter writes of each architecture."""
    return {
        "general.architecture": architecture,
        "general.type": "model",
        "general.file_type": file_type,
        f"{architecture}.block_count": sizes["layers"],
        f"{architecture}.context_length": 512,
        f"{architecture}.embedding_length": sizes["width"],
        f"{architecture}.feed_forward_length": sizes["inner"],
        f"{architecture}.attention.head_count": sizes["heads"],
        f"{architecture}.attention.head_count_kv": sizes["shared"],
        f"{architecture}.rope.freq_base": 10000.0,
        f"{architecture}.vocab_size": sizes["rows"],
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [f"<{n}>" for n in range(sizes["rows"])],
        "tokenizer.ggml.token_type": [1] * sizes["rows"],
    }

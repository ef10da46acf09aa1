"""Adapters as PEFT saves them, of a few kilobytes: settings, and narrow matrices of zeros beside a base's modules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from fixtures.published.adapter import CONFIG, FRONT, WEIGHTS

SETTINGS: dict[str, Any] = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8}
Widths = dict[str, tuple[int, int]]
"""What modules take in and give out, by their names."""


def save(folder: Path, base: str, widths: Widths, whole: dict[str, tuple[int, ...]] | None = None, **more: Any) -> Path:
    """Save an adapter of these modules, and what it has whole; `more` are further settings."""
    ranks = more.get("rank_pattern", {})
    folder.mkdir(exist_ok=True)
    targets = sorted({name.rpartition(".")[2] for name in widths})
    settings = SETTINGS | {"base_model_name_or_path": base, "target_modules": targets} | more
    tensors = {f"{FRONT}{name}": torch.zeros(shape) for name, shape in (whole or {}).items()}
    for name, (ins, outs) in widths.items():
        rank = next((one for key, one in ranks.items() if name.endswith(key)), SETTINGS["r"])
        tensors[f"{FRONT}{name}.lora_A.weight"] = torch.zeros(rank, ins)
        tensors[f"{FRONT}{name}.lora_B.weight"] = torch.zeros(outs, rank)
        if more.get("use_dora"):
            tensors[f"{FRONT}{name}.lora_magnitude_vector"] = torch.zeros(outs)
    (folder / CONFIG).write_text(json.dumps(settings))
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def of_layers(count: int, part: str, ins: int, outs: int, front: str = "model.layers") -> Widths:
    """One module of each layer."""
    return {f"{front}.{layer}.{part}": (ins, outs) for layer in range(count)}

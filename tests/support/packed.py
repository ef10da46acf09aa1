"""Checkpoints packed by each method, laid out by its law or made by its own library where that is here.

Numbers are really quantized where the library that reads them is here to check them; elsewhere they are zeros of the
right types and shapes, which is all that headers tell.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fixtures.published.files import SINGLE

Tensors = dict[str, Tensor]
Pack = Callable[[str, Tensor], Tensors]
LLAMA = {
    "vocab_size": 128,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}
MOE = {**LLAMA, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 128, "decoder_sparse_step": 1}
GPT_OSS = {
    **LLAMA,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "layer_types": ["full_attention"] * 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
GROUP = 32
BLOCK = 64


def save_full(folder: Path, kind: str = "llama", dtype: torch.dtype = torch.bfloat16, **fields: Any) -> Path:
    """Save a small model with random weights, in full."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    usual: dict[str, dict[str, Any]] = {"qwen3_moe": MOE, "gpt_oss": GPT_OSS, "gpt2": {}}
    given = usual.get(kind, LLAMA) | fields
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **given)).to(dtype)
    model.save_pretrained(folder)
    return folder


def rewrite(folder: Path, change: Callable[[Tensors], Any]) -> Path:
    """Change the tensors of a checkpoint in one file: in place, or by returning others."""
    tensors = load_file(folder / SINGLE)
    tensors = change(tensors) or tensors
    save_file({n: t.contiguous().clone() for n, t in tensors.items()}, folder / SINGLE, metadata={"format": "pt"})
    return folder


def configure(folder: Path, *, drop: tuple[str, ...] = (), **fields: Any) -> Path:
    """Change fields of a checkpoint's config."""
    file = folder / "config.json"
    found = json.loads(file.read_text(encoding="utf-8")) | fields
    file.write_text(json.dumps({name: value for name, value in found.items() if name not in drop}))
    return folder


def settings(folder: Path, **fields: Any) -> Path:
    """Change fields of a checkpoint's quantization settings."""
    found = json.loads((folder / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    return configure(folder, quantization_config=found | fields)


# ---- laws


def fp8_in_blocks(stem: str, weight: Tensor) -> Tensors:
    """Eight-bit floats with a scale for each block."""
    grid = [math.ceil(length / BLOCK) for length in weight.shape]
    scales = torch.empty(grid)
    numbers = torch.empty(weight.shape, dtype=torch.float8_e4m3fn)
    for i in range(grid[0]):
        for j in range(grid[1]):
            here = (slice(i * BLOCK, (i + 1) * BLOCK), slice(j * BLOCK, (j + 1) * BLOCK))
            scales[i, j] = weight[here].float().abs().amax() / 448
            numbers[here] = (weight[here].float() / scales[i, j]).to(torch.float8_e4m3fn)
    return {f"{stem}.weight": numbers, f"{stem}.weight_scale_inv": scales}


def fp8_of_rows(stem: str, weight: Tensor) -> Tensors:
    """Eight-bit floats with a scale for each row."""
    scales = weight.float().abs().amax(dim=1, keepdim=True) / 448
    numbers = (weight.float() / scales).to(torch.float8_e4m3fn)
    return {f"{stem}.weight": numbers, f"{stem}.weight_scale": scales}


def integers(stem: str, weight: Tensor) -> Tensors:
    """Integers of four bits, eight in a word, with a scale for each group of a row."""
    out, columns = weight.shape
    return {
        f"{stem}.weight_packed": torch.zeros(out, columns // 8, dtype=torch.int32),
        f"{stem}.weight_scale": torch.ones(out, columns // GROUP, dtype=torch.bfloat16),
        f"{stem}.weight_shape": torch.tensor([out, columns]),
    }


def gptq(stem: str, weight: Tensor) -> Tensors:
    """GPTQ in four bits, as AutoGPTQ saves it."""
    out, columns = weight.shape
    return {
        f"{stem}.qweight": torch.zeros(columns // 8, out, dtype=torch.int32),
        f"{stem}.qzeros": torch.zeros(columns // GROUP, out // 8, dtype=torch.int32),
        f"{stem}.scales": torch.ones(columns // GROUP, out, dtype=torch.float16),
        f"{stem}.g_idx": torch.arange(columns, dtype=torch.int32) // GROUP,
    }


def awq(stem: str, weight: Tensor) -> Tensors:
    """AWQ in four bits, as AutoAWQ saves it."""
    out, columns = weight.shape
    return {
        f"{stem}.qweight": torch.zeros(columns, out // 8, dtype=torch.int32),
        f"{stem}.qzeros": torch.zeros(columns // GROUP, out // 8, dtype=torch.int32),
        f"{stem}.scales": torch.ones(columns // GROUP, out, dtype=torch.float16),
    }


def nvfp4(stem: str, weight: Tensor) -> Tensors:
    """NVFP4, as ModelOpt exports it."""
    out, columns = weight.shape
    return {
        f"{stem}.weight": torch.zeros(out, columns // 2, dtype=torch.uint8),
        f"{stem}.weight_scale": torch.ones(out, columns // 16).to(torch.float8_e4m3fn),
        f"{stem}.weight_scale_2": torch.tensor(1.0),
        f"{stem}.input_scale": torch.tensor(1.0),
    }


def mlx(stem: str, weight: Tensor) -> Tensors:
    """Four bits, eight in a word, with a scale and an offset for each group of a row, as MLX saves it."""
    out, columns = weight.shape
    return {
        f"{stem}.weight": torch.zeros(out, columns // 8, dtype=torch.uint32),
        f"{stem}.scales": torch.ones(out, columns // GROUP, dtype=torch.bfloat16),
        f"{stem}.biases": torch.zeros(out, columns // GROUP, dtype=torch.bfloat16),
    }


def unheard_of(stem: str, weight: Tensor) -> Tensors:
    """A method that nobody knows: codes and a book of them."""
    return {
        f"{stem}.codes": torch.zeros(weight.shape[0], weight.shape[1] // 8, dtype=torch.int16),
        f"{stem}.codebook": torch.zeros(256, 8, dtype=torch.float16),
    }


def _compressed(**weights: Any) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": {"symmetric": True, "dynamic": False, **weights}}
    return {
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
    }


LAID_OUT: dict[str, tuple[Pack, dict[str, Any]]] = {
    "fp8": (fp8_in_blocks, {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK], "fmt": "e4m3"}),
    "fbgemm-fp8": (fp8_of_rows, {"quant_method": "fbgemm_fp8"}),
    "compressed-fp8": (
        fp8_of_rows,
        {**_compressed(num_bits=8, type="float", strategy="channel"), "format": "float-quantized"},
    ),
    "compressed-integers": (
        integers,
        {**_compressed(num_bits=4, type="int", strategy="group", group_size=GROUP), "format": "pack-quantized"},
    ),
    "gptq": (gptq, {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "sym": True}),
    "awq": (awq, {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}),
    "nvfp4": (
        nvfp4,
        {
            **_compressed(num_bits=4, type="float", group_size=16),
            "quant_method": "modelopt",
            "quant_algo": "NVFP4",
        },
    ),
    "mlx": (mlx, {"bits": 4, "group_size": GROUP, "lm_head": False}),
}
"""Methods whose checkpoints are laid out here: how a matrix is packed, and what the config says."""


def lay_out(folder: Path, method: str, kind: str = "llama", **fields: Any) -> Path:
    """Save a small model with every linear module of its layers packed by a method."""
    pack, settings = LAID_OUT[method]
    half = method in ("gptq", "awq")
    save_full(folder, kind, dtype=torch.float16 if half else torch.bfloat16, **fields)

    def packed(tensors: Tensors) -> Tensors:
        found: Tensors = {}
        for name, tensor in tensors.items():
            chosen = name.endswith("proj.weight")
            found |= pack(name.removesuffix(".weight"), tensor) if chosen else {name: tensor}
        return found

    rewrite(folder, packed)
    return configure(folder, quantization_config=settings)


def save_mxfp4(folder: Path) -> Path:
    """Save a small gpt-oss whose experts are in MXFP4."""
    save_full(folder, "gpt_oss")

    def packed(tensors: Tensors) -> Tensors:
        found: Tensors = {}
        for name, tensor in tensors.items():
            if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
                found[name] = tensor
                continue
            experts, columns, out = tensor.shape
            found[f"{name}_blocks"] = torch.zeros(experts, out, columns // 32, 16, dtype=torch.uint8)
            found[f"{name}_scales"] = torch.full((experts, out, columns // 32), 127, dtype=torch.uint8)
        return found

    rewrite(folder, packed)
    kept = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    return configure(folder, quantization_config={"quant_method": "mxfp4", "modules_to_not_convert": kept})


def save_bitsandbytes(folder: Path, full: Path, **given: Any) -> Path:
    """Save the model in a folder as bitsandbytes quantizes it."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    save_full(full)
    quantized = AutoModelForCausalLM.from_pretrained(
        full, quantization_config=BitsAndBytesConfig(**given), device_map="cpu"
    )
    quantized.save_pretrained(folder)
    return folder


BITSANDBYTES: Mapping[str, dict[str, Any]] = {
    "bnb-nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "bnb-fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
    "bnb-double": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    "bnb-int8": {"load_in_8bit": True},
}
METHODS = (*LAID_OUT, "mxfp4", *BITSANDBYTES)


def save(method: str, folder: Path) -> Path:
    """Save a small release packed by a method; bitsandbytes packs its own."""
    if method == "mxfp4":
        return save_mxfp4(folder / "release")
    if method in BITSANDBYTES:
        return save_bitsandbytes(folder / "release", folder / "full", **BITSANDBYTES[method])
    return lay_out(folder / "release", method)

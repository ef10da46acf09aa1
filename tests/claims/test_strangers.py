"""Configs as they are published, of models that the matrix has not: of the sound ones no claim fails.

strangers.jsonl has one config a line, with a name for it: the fields that decide what a model is, of well-known models
and of options that they are published with, written down from what is publicly known of each and not fetched.
"""

import json
from pathlib import Path

import pytest

from tests.support.child import pytest_run

pytestmark = pytest.mark.registry
CONFIGS = Path(__file__).parent / "strangers.jsonl"
# What transformers itself does not take, or cannot run, and the words of the claim that fails.
REFUSED = {
    "mpt-30b-clip": "Validation error for field 'clip_qkv'",
    "exaone4": "transformers refuses the config: ZeroDivisionError",
    "xlnet-uni": "doesn't match the broadcast shape",  # texts side by side, in one direction
}


def test_of_a_sound_config_no_claim_fails(tmp_path):
    configs = [json.loads(line) for line in CONFIGS.read_text().splitlines()]
    for config in configs:
        folder = tmp_path / config.pop("name")
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
    listed = tmp_path / "list"
    listed.write_text("\n".join(str(folder) for folder in sorted(tmp_path.iterdir()) if folder.is_dir()))
    records = tmp_path / "records"
    done = pytest_run(f"--models-from={listed}", f"--records={records}", "--records-as=jsonl", "--no-cache")
    rows = [json.loads(line) for file in records.rglob("results/*.jsonl") for line in file.read_text().splitlines()]
    failing: dict[str, list[str]] = {}
    for row in rows:
        if row["verdict"] == "fails":
            failing.setdefault(Path(row["release"]).name, []).append(row["reason"])
    assert len({row["release"] for row in rows}) == len(configs), done.stdout[-500:]
    assert failing.keys() == REFUSED.keys(), failing
    for name, words in REFUSED.items():
        assert any(words in reason for reason in failing[name]), failing[name]

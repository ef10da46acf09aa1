"""A survey of many repositories of a hub that is busy and failing: its manners, and what it fetches.

REPOSITORIES=1000 in the environment asks for as many: six minutes, most of them waited, for thirty are troubled.
"""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fixtures.survey import tables
from tests.support.checkpoints import SMALL, make
from tests.support.hub_stand_in import Repo, checkpoint, hub
from tests.support.small import ROOT

pytestmark = pytest.mark.registry
MANY, AT_ONCE = int(os.environ.get("REPOSITORIES", "60")), 4


def troubled(number: int) -> str:
    """What is wrong with a repository: with most of them nothing."""
    return {3: "busy at first", 5: "forbidden", 7: "error"}.get(number % 100, "")


def verdict(number: int) -> str:
    """What a survey says of it."""
    return "not run" if troubled(number) in ("forbidden", "error") else "holds"


def test_many_repositories(tmp_path, monkeypatch):
    """Each has its row; never more requests at once than agreed; headers and small files alone are fetched."""
    common = {name: SMALL[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")}
    common |= {"vocab_size": 4000}  # so that the weights are more than what is fetched for their header
    kinds = [
        checkpoint(make(tmp_path / kind, model_type=kind, intermediate_size=40, **common)) for kind in ("bert", "llama")
    ]
    whole = sum(len(kinds[number % 2]["model.safetensors"]) for number in range(MANY))
    repos = {f"org/model-{number}": Repo(kinds[number % 2], troubled(number)) for number in range(MANY)}
    now, most, sent, lock = [0], [0], [0], threading.Lock()
    with hub(repos) as server:
        handler = server.RequestHandlerClass
        answer, send = handler._answer, handler._send  # type: ignore[attr-defined]

        def counted(self, *, body):
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            try:
                answer(self, body=body)
            finally:
                with lock:
                    now[0] -= 1

        def weighed(self, status, content, headers, *, body, cut=False):
            sent[0] += len(content) if body else 0
            send(self, status, content, headers, body=body, cut=cut)

        monkeypatch.setattr(handler, "_answer", counted)
        monkeypatch.setattr(handler, "_send", weighed)
        (tmp_path / "list").write_text("".join(f"{name}\n" for name in repos))
        began = time.monotonic()
        options = [f"--records={tmp_path / 'out'}", "--records-as=jsonl", f"--requests={AT_ONCE}"]
        environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home")}
        environment.pop("HF_HUB_OFFLINE", None)
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--models-from={tmp_path / 'list'}"]
        command += [*options, f"--settled={tmp_path / 'settled'}"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - began
    rows = {row["release"]: row["verdict"] for row in tables.read(tmp_path / "out", "releases")}
    assert rows == {f"org/model-{number}": verdict(number) for number in range(MANY)}, done.stdout[-2000:]
    assert 1 <= most[0] <= AT_ONCE
    assert sent[0] < whole / 2, f"{sent[0]} bytes of {whole} in {seconds:.0f} s: {json.dumps(server.requests[-5:])}"
    assert not list(Path(tmp_path / "home").rglob("*.safetensors"))

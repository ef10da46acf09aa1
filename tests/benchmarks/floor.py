"""The floor under a run: import torch and transformers, build every skeleton and miniature, run each once, no claims.

Run as `python -m tests.benchmarks.floor [MODEL...]`.
"""

import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import transformers  # noqa: F401 - its import is a part of the floor

from fixtures.claims.parametrize import ROOT, read_matrix
from fixtures.models.miniature import build_miniature
from fixtures.models.skeleton import build_skeleton
from fixtures.published.release import recorded


def run(name: str) -> None:
    """Build a model of the matrix twice, full-size and small, and run both."""
    config = recorded(ENTRIES[name]).config
    skeleton = build_skeleton(config)
    try:
        with torch.device("meta"), torch.no_grad():
            skeleton.model(**skeleton.inputs())
    except RuntimeError:
        pass  # a model that asks for a number on its way costs the floor less than it costs a run
    miniature = build_miniature(config, kinds_of=skeleton.model)
    with torch.no_grad():
        miniature.model(**miniature.inputs())


ENTRIES = read_matrix(ROOT / "models.yaml").entries
for model in sys.argv[1:] or ENTRIES:
    run(model)

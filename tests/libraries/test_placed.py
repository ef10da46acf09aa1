"""Which weights a release has on the device: its own where the hub has them, for a revision too."""

import json
import os
import subprocess
import sys

import pytest

from fixtures.claims.parametrize import ROOT
from tests.support.checkpoints import publish
from tests.support.hub_stand_in import Repo, checkpoint, hub

pytestmark = pytest.mark.slow


def test_a_revision_on_the_hub_is_placed_with_its_own_weights(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    publish("facebook/opt-125m", source)
    asked = ["-m", "gpu", "--device=cpu", "-k", "test_every_shape_is_the_same_on_the_device"]
    with hub({"org/fine": Repo(checkpoint(source))}) as server:
        run = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-p",
                "no:cacheprovider",
                "--model=org/fine@main",
                f"--report={tmp_path / 'out'}",
                *asked,
            ],
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
            | {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home")},
            capture_output=True,
            text=True,
            check=False,
        )
    assert run.returncode == 0, run.stdout + run.stderr
    (result,) = json.loads((tmp_path / "out" / "report.json").read_text())["results"]
    assert result["verdict"] == "holds"
    assert "scores, with its own weights" in result["observed"]

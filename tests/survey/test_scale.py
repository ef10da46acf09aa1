"""docs/scale.md: its questions are asked of a real record, and its recipe with Dask outlives a worker."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fixtures.survey import tables
from tests.support.checkpoints import SMALL, make
from tests.support.child import pytest_run

ROOT = Path(__file__).parents[2]
QUESTIONS = re.findall(r"```sql\n(.*?)```", (ROOT / "docs/scale.md").read_text(encoding="utf-8"), flags=re.DOTALL)
pytestmark = pytest.mark.slow


def survey(releases: Path, out: Path, *options: str) -> int:
    """Survey the releases below a folder; its exit status."""
    (releases / "list").write_text("".join(f"{path}\n" for path in sorted(releases.glob("org/*"))))
    asked = [f"--models-from={releases / 'list'}", f"--records={out}", f"--settled={releases / 'settled'}"]
    return pytest_run(*asked, *options).returncode


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four small releases; one promises more parameters than it has."""
    folder = tmp_path_factory.mktemp("releases")
    common = {name: SMALL[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")}
    for name in ("llama-a", "llama-b", "llama-c-7b"):
        make(folder / "org" / name, model_type="llama", intermediate_size=40, num_key_value_heads=2, **common)
    make(folder / "org/bert-a", model_type="bert", intermediate_size=40, **common)
    return folder


@pytest.mark.parametrize("question", QUESTIONS, ids=range(1, len(QUESTIONS) + 1))
def test_a_question_has_an_answer(question, releases, tmp_path_factory, request):
    """As it stands in the document, of Parquet that a survey left."""
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is asked for in the extra dev.")
    pytest.importorskip("pyarrow", reason="Parquet takes pyarrow: transformers-spec[records].")
    kept = request.config.stash.setdefault(FOLDER, tmp_path_factory.mktemp("asked"))
    if not (kept / "out").exists():
        survey(releases, kept / "out")
        survey(releases, kept / "before")
    asked = question.replace("'out/", f"'{kept}/out/").replace("'before/", f"'{kept}/before/")
    answer = duckdb.sql(asked)
    assert answer.columns
    rows = answer.fetchall()
    if "parameters_in_name" in question:
        assert rows[0][0].endswith("llama-c-7b")
        assert rows[0][1] == 7e9
    elif "was" not in answer.columns and "chapter" not in answer.columns:
        assert rows


FOLDER: pytest.StashKey[Path] = pytest.StashKey()


def test_there_are_five_questions():
    assert len(QUESTIONS) == 5


def check(shard: int, parts: int, releases: str, out: str, mark: str) -> int:
    """One shard, as the document has it; the first process that is given the first shard is killed in it."""
    command = [sys.executable, "-m", "pytest", f"--models-from={releases}/list", f"--shard={shard}/{parts}"]
    command += [f"--records={out}", f"--settled={releases}/settled", "--resume", "-p", "no:cacheprovider"]
    if shard == 1 and not Path(mark).exists():
        running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while running.poll() is None and not list(Path(out).glob("releases/.shard-0001*")):
            time.sleep(0.005)  # it may be done before it is seen to have begun; its worker is killed all the same
        Path(mark).touch()
        running.kill()
        os._exit(9)  # the worker goes with it
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode


def test_a_worker_of_dask_that_is_killed_costs_nothing(releases, tmp_path):
    """Two workers, two shards: the one that dies in its shard leaves it to another, and every release is there once."""
    distributed = pytest.importorskip("distributed", reason="Dask is an extra: transformers-spec[cluster].")
    (releases / "list").write_text("".join(f"{path}\n" for path in sorted(releases.glob("org/*"))))
    given = (str(releases), str(tmp_path / "out"), str(tmp_path / "killed"))
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        found = client.gather([client.submit(check, shard, 2, *given, pure=False) for shard in (1, 2)])
    assert (tmp_path / "killed").exists()
    assert set(found) <= {0, 1, 5}
    rows = [row["release"] for row in tables.read(tmp_path / "out", "releases")]
    assert sorted(rows) == (releases / "list").read_text().split()

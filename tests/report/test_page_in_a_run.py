"""The page in a run: written beside the record with --report, from workers as from one process, and never without."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.report.page import FILES
from fixtures.report.page.__main__ import read as read_record
from fixtures.report.page.lesson import read

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CHAPTER = '''
"""Positions: where a word stands.

It has to be told.
"""
import pytest
from fixtures.verdicts.evidence import same

MODELS = ["org/small", "org/large"]

@pytest.fixture(scope="session", params=MODELS, ids=MODELS)
def model(request):
    return request.param

@pytest.mark.parametrize("model", MODELS, indirect=True, scope="session")
def test_every_place_has_a_vector(model):
    """Each position has one.

    And more to say.
    """
    same("vectors", observed=[1, 10], expected=[1, 10])
'''


@pytest.fixture
def suite(pytester):
    """Write a specification of one chapter."""
    pytester.makeini("[pytest]\npythonpath = .\n")
    (pytester.mkdir("specs") / "test_03_positions.py").write_text(CHAPTER.lstrip())
    return pytester


def run(suite, *options: str) -> subprocess.CompletedProcess[str]:
    plugins = (
        "fixtures.verdicts.judge",
        "fixtures.report.record",
        "fixtures.report.terminal",
        "fixtures.report.page.plugin",
        "no:cacheprovider",
    )
    command = [sys.executable, "-m", "pytest", *(word for plugin in plugins for word in ("-p", plugin)), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=suite.path, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "workers"])
def test_a_run_leaves_its_page(suite, options):
    """The page, the summary and the badge stand beside the record, which has the chapters' words and the code."""
    done = run(suite, "--report", "out", *options)
    assert done.returncode == 0, done.stdout
    assert sorted(os.listdir(suite.path / "out")) == sorted([*FILES, "report.json"])
    assert "The page: out/index.html" in done.stdout
    document = read_record(suite.path / "out")
    assert document["chapters"] == [
        {
            "id": "specs/test_03_positions.py",
            "title": "Positions",
            "text": "Where a word stands.\n\nIt has to be told.",
            "claims": 1,
        }
    ]
    (claim,) = document["claims"]
    assert claim["code"].startswith('@pytest.mark.parametrize("model"')
    assert claim["more"] == "And more to say."
    assert "It has to be told." in (suite.path / "out/index.html").read_text()


def test_without_report_there_is_no_page(suite):
    """A run without --report writes none, and loads nothing of what draws it."""
    (suite.path / "conftest.py").write_text(
        "import sys\ndef pytest_unconfigure():\n"
        "    drawing = {'matplotlib', 'jinja2', 'fixtures.report.pictures', 'fixtures.report.page.write'}\n"
        "    print('loaded', sorted(drawing & set(sys.modules)))\n"
    )
    done = run(suite)
    assert done.stdout.splitlines()[-1] == "loaded []"
    assert [*suite.path.rglob("index.html")] == []


def test_a_run_of_nothing_leaves_an_earlier_record_and_its_page(suite):
    """A run that selects nothing takes nothing away, and does not call the page its own."""
    run(suite, "--report", "out")
    before = {path.name: path.read_bytes() for path in (suite.path / "out").iterdir()}
    done = run(suite, "--report", "out", "-k", "nothing_of_the_kind")
    assert {path.name: path.read_bytes() for path in (suite.path / "out").iterdir()} == before
    assert "The page:" not in done.stdout
    assert "the record of an earlier run is left as it was" in done.stdout


def test_a_page_that_cannot_be_written_fails_the_run_in_a_sentence(suite):
    """Where something is in the way of the page, the run says so before any claim, and is no success."""
    (suite.path / "out/index.html").mkdir(parents=True)
    done = run(suite, "--report", "out")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--report out: the page cannot be replaced:" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_pictures_come_from_the_running_models(tmp_path):
    """Two workers, two models: what each drew from is in the record, and the page shows it."""
    options = ("-n", "2", "-p", "no:cacheprovider", "-k", "opt-125m or pythia", "--report", str(tmp_path))
    claims = "specs/test_03_positional_encoding.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "fixtures.report.page.plugin", claims, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout
    drawn = {model["id"]: model["pictures"] for model in read_record(tmp_path)["models"]}
    assert {model: pictures["positions"]["scheme"] for model, pictures in drawn.items()} == {
        "facebook/opt-125m": "learned", "EleutherAI/pythia-1.4b": "rotary"
    }  # fmt: skip
    text = (tmp_path / "index.html").read_text()
    assert all(part in text for part in ('"vectors"', '"angles"'))


def test_what_is_no_longer_there_has_no_words(tmp_path):
    """A chapter whose file is gone, or is no Python, is left out of the words and stays in the record."""
    (tmp_path / "broken.py").write_text("def (")
    assert read(tmp_path, ["gone.py::test_a", "broken.py::test_b"]) == {"chapters": [], "claims": {}}

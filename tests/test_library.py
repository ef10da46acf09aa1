"""The importable form: in another program and in another repository, what it finds is what a run of pytest finds."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

import transformers_spec
from transformers_spec import CheckError, Record, check, run

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parents[1] / "fixtures/published/configs/facebook/opt-125m.json"
FEW = "test_04"  # a chapter that takes little time


@pytest.fixture
def repository(tmp_path):
    """Somebody's repository: whatever of it a run of ours would read or import ends the run."""
    (tmp_path / "a model").mkdir()
    shutil.copyfile(CONFIG, tmp_path / "a model/config.json")
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --unheard-of -k nothing\ntestpaths = a\\ model\n")
    for name in ("conftest", "fixtures", "specs", "judge"):
        (tmp_path / f"{name}.py").write_text(f"raise RuntimeError('the {name} of somebody else')\n")
    return tmp_path


CALLER = f"""
import json, logging, os, random, sys, threading, warnings
import transformers_spec

def state():
    return {{
        "random": hash(random.getstate()), "threads": threading.active_count(), "environment": dict(os.environ),
        "modules": sorted(sys.modules), "path": list(sys.path), "folder": os.getcwd(), "filters": len(warnings.filters),
        "loggers": sorted(logging.root.manager.loggerDict), "handlers": len(logging.root.handlers),
        "level": logging.root.level, "hooks": [sys.excepthook is sys.__excepthook__, len(sys.meta_path)],
    }}

before = state()
first = transformers_spec.check("a model", select={FEW!r})
second = transformers_spec.check("a model/config.json", select={FEW!r})
after = state()
changed = [name for name in before if before[name] != after[name]]
print(json.dumps({{"changed": changed, "first": first.to_dict(), "second": second.to_dict()}}))
"""


def test_a_program_calls_it_twice_and_stays_as_it_was(installed, repository, monkeypatch):
    """Two checks in one process find the same, and of the caller nothing is changed."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "--unheard-of")
    done = installed("python", "-c", CALLER, at=repository)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["changed"] == []
    first, second = (
        [(r["claim"], r["verdict"], r["expected"]) for r in found[name]["results"]] for name in ("first", "second")
    )
    assert first == second
    assert first


def test_pytest_runs_it_in_somebody_elses_repository(installed, repository, monkeypatch):
    """`pytest --pyargs transformers_spec` is the command, whatever lies around; its record comes back as objects."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "-k nothing")
    words = ("--model=a model", "-k", FEW, "--report=out", "--junit-xml=junit.xml")
    done = installed("python", "-m", "pytest", "--pyargs", "transformers_spec", *words, at=repository)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a model (directory)" in done.stdout
    document = json.loads((repository / "out/report.json").read_text())
    cases = list(ElementTree.parse(repository / "junit.xml").iter("testcase"))
    assert len(cases) == len(document["results"]) > 1
    record = Record.of_document(document)
    assert record.passed
    assert record.model.facts.layers == 12
    assert record.claim(record.results[0].claim).statement
    again = record.to_dict()
    assert json.loads(record.to_json()) == again
    assert Record.of_document(again) == record
    for key in ("suite", "claims", "models", "results"):  # nothing that a record has is lost, but what the page needs
        had, kept = ([d[key]] if key == "suite" else d[key] for d in (document, again))
        for old, new in zip(had, kept, strict=True):
            of_the_page = ("code", "more", "of", "notes", "pictures")
            assert {name: value for name, value in old.items() if name not in of_the_page}.items() <= new.items()


def test_somebody_elses_tests_are_left_alone(installed, tmp_path):
    """A run that does not name the specification has its own options, conftest and fixtures, --model among them."""
    (tmp_path / "conftest.py").write_text("def pytest_addoption(parser):\n    parser.addoption('--model')\n")
    (tmp_path / "fixtures.py").write_text("HERE = True\n")
    body = "import fixtures, sys\n\ndef test_it(pytestconfig):\n    assert fixtures.HERE\n"
    body += "    assert pytestconfig.getoption('--model') == 'x'\n    assert 'torch' not in sys.modules\n"
    (tmp_path / "test_theirs.py").write_text(body)
    done = installed("python", "-m", "pytest", "--model=x", at=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_cannot_be_checked_is_told_in_a_sentence(tmp_path):
    with pytest.raises(
        CheckError, match=r"^no-such: --model=no-such: expected a hub id .*has not the form of a hub id"
    ):
        check("no-such")
    with pytest.raises(CheckError, match=r"^expected a release .* found ''"):
        check("")
    with pytest.raises(CheckError, match="Nothing was selected: -k 'unheard_of' matches no claim"):
        check(CONFIG, select="unheard_of")


def _command(monkeypatch, program: str) -> None:
    monkeypatch.setattr(run, "COMMAND", (sys.executable, "-c", program))


def test_a_child_that_crashes_is_told_in_a_sentence(monkeypatch):
    _command(monkeypatch, "import os; print('so far', flush=True); os.kill(os.getpid(), 11)")
    with pytest.raises(CheckError, match=r"ended with signal SIGSEGV; 0 results .*\nso far$") as caught:
        check("org/name")
    assert caught.value.record is None


def test_what_was_known_when_time_was_over_is_kept(monkeypatch, tmp_path):
    """The error has the record so far; no process is left behind, not even one that the child had started."""
    document = {"schema": 1, "suite": {"complete": False}, "claims": [], "models": []}
    result = {"claim": "specs/a.py::test_b", "model": "m", "verdict": "holds", "page's own": 1}
    document["results"] = [result]
    _command(
        monkeypatch,
        "import subprocess, sys, time; from pathlib import Path\n"
        "folder = next(w for w in sys.argv if w.startswith('--report=')).partition('=')[2]\n"
        f"Path(folder, 'report.json').write_text({json.dumps(document)!r})\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid))\n"
        "time.sleep(600)",
    )
    with pytest.raises(CheckError, match="not done within 3 seconds; 1 results were there") as caught:
        check("org/name", timeout=3)
    assert caught.value.record is not None
    assert caught.value.record.results[0].name == "test_b"
    pid = int((tmp_path / "pid").read_text())
    until = time.monotonic() + 30
    while _runs(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def test_options_are_handed_on(monkeypatch):
    _command(monkeypatch, "import sys; print('ERROR: ' + '|'.join(sys.argv[1:])); sys.exit(4)")
    with pytest.raises(CheckError) as caught:
        check("~", weights=True, marks="gpu", select="-a or b", device="cuda:1")
    arguments = str(caught.value).partition("--model=")[2].split("|")
    assert arguments[:5] == [os.path.expanduser("~"), "--weights", "-mgpu", "-k-a or b", "--device=cuda:1"]


def test_every_public_name_is_there():
    assert all(getattr(transformers_spec, name).__doc__ or name == "Verdict" for name in transformers_spec.__all__)

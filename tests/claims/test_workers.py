"""Under pytest-xdist, every claim on a model runs in the same process."""

from collections import defaultdict
from pathlib import Path

import pytest

from fixtures.claims.workers import models_of

pytestmark = pytest.mark.slow

pytest_plugins = ("pytester",)
ROOT = Path(__file__).parents[2]
CONFTEST = """
import pytest
MODELS = ["org/a", "org/a-large", "b", "c"]
pytest_plugins = ["fixtures.claims.workers"]

def pytest_generate_tests(metafunc):
    metafunc.parametrize("model", MODELS, ids=MODELS, scope="session")
    if "length" in metafunc.fixturenames:
        metafunc.parametrize("length", [10, 20])
"""
CHAPTER = """
import os, pathlib
def _note(model):
    with open(pathlib.Path(__file__).with_name("processes"), "a") as file:
        print(model, os.getpid(), file=file)
def test_one(model): _note(model)
def test_two(model): _note(model)
def test_three(model, length): _note(model)
"""


def test_a_models_claims_share_a_process(pytester, monkeypatch):
    """Variants included, whatever pytest and xdist make of marks."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeini("[pytest]\naddopts = --import-mode=importlib -p no:benchmark -p no:cacheprovider\n")
    pytester.makeconftest(CONFTEST)
    specs = pytester.mkdir("specs")
    (specs / "test_01_a.py").write_text(CHAPTER)
    pytester.runpytest_subprocess("-n", "2").assert_outcomes(passed=16)
    processes = defaultdict(set)
    for line in (specs / "processes").read_text().splitlines():
        model, process = line.split()
        processes[model].add(process)
    assert {model: len(found) for model, found in processes.items()} == {"org/a": 1, "org/a-large": 1, "b": 1, "c": 1}
    assert len(set.union(*processes.values())) == 2


def test_other_tests_of_a_file_share_a_process(pytester, monkeypatch):
    """What a file makes once is made once."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeini("[pytest]\naddopts = --import-mode=importlib -p no:benchmark -p no:cacheprovider\n")
    pytester.makeconftest('pytest_plugins = ["fixtures.claims.workers"]')
    note = 'def test_{}():\n    with open("{}", "a") as file: print(os.getpid(), file=file)\n'
    for name in "ab":
        kept = pytester.path / f"processes-{name}"
        content = "import os\n" + "".join(note.format(number, kept) for number in range(4))
        (pytester.path / f"test_{name}.py").write_text(content)
    pytester.runpytest_subprocess("-n", "2").assert_outcomes(passed=8)
    found = [set((pytester.path / f"processes-{name}").read_text().split()) for name in "ab"]
    assert [len(processes) for processes in found] == [1, 1]


@pytest.mark.parametrize(
    ("nodeid", "found"),
    [
        ("specs/test_01.py::test_x[org/a]", "org/a"),
        ("specs/test_01.py::test_y[org/a-eager-float32-512]", "org/a"),
        ("../elsewhere/specs/test_01.py::test_x[b]", "b"),
        ("specs/test_01.py::test_of_no_model", None),
        ("tests/test_01.py::test_x[org/a]", None),
    ],
)
def test_the_model_is_read_off_the_id(nodeid, found):
    others = ["specs/test_01.py::test_x[org/a]", "specs/test_01.py::test_x[b]"]
    assert models_of([*others, nodeid]).get(nodeid) == found

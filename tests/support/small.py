"""A small specification of three models and two chapters, to try the machinery on without a real model."""

import json
import os
import subprocess
import sys
from pathlib import Path

from fixtures.report import record

ROOT = Path(record.__file__).parents[2]
CONFTEST = """
import pytest
from fixtures.verdicts import judge as verdicts

MODELS = ["org/small", "org/large", "mixer"]

def pytest_generate_tests(metafunc):
    if "model" in metafunc.fixturenames:
        about = metafunc.definition.get_closest_marker("about")
        metafunc.parametrize("model", about.args if about else MODELS, indirect=True, scope="session")

@pytest.fixture(scope="session")
def model(request):
    return request.param

def pytest_expected_departure(item):
    if item.originalname == "test_departs" and verdicts.model_of(item) == "org/large":
        return verdicts.Departure("nothing is added")

def pytest_observed_facts(model):
    return verdicts.Observed("matrix", {"d_model": len(model)})
"""
FIRST = '''
"""Tokens: the ids of a sentence."""
import pytest

@pytest.mark.lesson("in its first paragraph")
@pytest.mark.about("org/large")
def test_about(model):
    """The lesson's model is large."""
'''
SECOND = '''
"""Position: who stands where."""
import os, time
import pytest
from fixtures.verdicts.evidence import same
from fixtures.verdicts.judge import does_not_apply, not_run

def test_holds(model):
    """The widths are equal.

    And more.
    """
    same("width", observed=(1, 2), expected=[1, 2])

def test_departs(model):
    """A vector is added."""
    if model == "mixer":
        does_not_apply("nothing attends")
    same("added", observed=model != "org/large", expected=True)

@pytest.mark.gpu
def test_gpu(model):
    """It is fast."""
    not_run("no GPU here")
'''
FAILING = '''
def test_fails(model):
    """The small one fails."""
    same("name", observed=model.replace("org/small", "bad"), expected=model)
'''


def arguments(*options: str) -> list[str]:
    plugins = (
        "fixtures.verdicts.judge",
        "fixtures.report.record",
        "fixtures.report.progress",
        "fixtures.report.terminal",
        "fixtures.report.resume",
        "no:benchmark",
        "no:cacheprovider",
    )
    return [*(word for plugin in plugins for word in ("-p", plugin)), *options]


def write(pytester) -> None:
    """Write the specification into a test's folder."""
    pytester.makeini("[pytest]\nstrict = true\nmarkers =\n lesson(place): x\n about(*models): x\n gpu: x\n")
    pytester.makeconftest(CONFTEST)
    specs = pytester.mkdir("specs")
    (specs / "test_01_tokens.py").write_text(FIRST.lstrip())
    (specs / "test_02_position.py").write_text(SECOND.lstrip())


def add(pytester, body: str) -> None:
    with (pytester.path / "specs/test_02_position.py").open("a") as file:
        file.write(body)


def report(pytester, directory: str = "out"):
    return json.loads((pytester.path / directory / "report.json").read_text())


def start(pytester, *options: str) -> subprocess.Popen:
    """Start a run in a process of its own, to be killed or to use workers."""
    command = [sys.executable, "-m", "pytest", *arguments("--report", "out", *options)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=pytester.path, env=environment, stdout=subprocess.PIPE, text=True)

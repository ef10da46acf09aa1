"""One model, one budget: what crashes, eats memory or never ends is not run, with the limit, and the next model is."""

import json
import os
import subprocess
import sys
import time

import pytest

from fixtures.published.entries_file import CONFIGS
from tests.support.checkpoints import SMALL
from tests.support.small import ROOT, report

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="the limits are the Linux kernel's")]
CONFTEST = """
import pytest

MODELS = ["org/good", "org/bad", "org/last"]

def pytest_addoption(parser):
    parser.addoption("--model", action="append")
    parser.addoption("--weights", action="store_true")

def pytest_generate_tests(metafunc):
    metafunc.parametrize("model", MODELS, ids=MODELS, indirect=True, scope="session")

@pytest.fixture(scope="session")
def model(request):
    return request.param
"""
CLAIMS = '''
"""Claims: of three models."""
import ctypes, os, warnings
import pytest

def test_before(model):
    """It holds."""
    warnings.warn("mind this")

def test_bad(model):
    """It is well."""
    if model == "org/bad":
        {way}

def test_behind(model):
    """It holds as well."""
'''
WAYS = {
    "never ends": "ctypes.PyDLL(None).pause()",  # holding the lock that Python's own threads and signals wait for
    "aborts": "os.abort()",
    "crashes": "ctypes.string_at(0)",
    "exits": "os._exit(0)",
    "eats memory": "[bytearray(10**8) for _ in range(50)]; os.abort()",
}


@pytest.fixture
def suite(pytester):
    pytester.makeini("[pytest]\n")
    pytester.makeconftest(CONFTEST)
    pytester.mkdir("specs")
    return pytester


def run(suite, way, *options):
    (suite.path / "specs/test_01_claims.py").write_text(CLAIMS.lstrip().replace("{way}", way))
    plugins = ("verdicts.judge", "report.record", "report.terminal", "claims.limits", "claims.budget")
    named = [word for plugin in plugins for word in ("-p", f"fixtures.{plugin}")]
    rest = ["-p", "no:cacheprovider", "-p", "no:benchmark", "--model=x", "--report=out", *options]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *named, *rest],
        cwd=suite.path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def verdicts(suite):
    return {(r["claim"].rpartition("_")[2], r["model"][4:]): r["verdict"] for r in report(suite)["results"]}


GOOD = {(claim, model): "holds" for claim in ("before", "bad", "behind") for model in ("good", "last")}


@pytest.mark.parametrize("way", WAYS)
def test_a_bad_model_costs_itself_alone(suite, way):
    began = time.monotonic()
    done = run(suite, WAYS[way], "--limit=seconds=5", "--limit=gigabytes=1")
    found = verdicts(suite)
    assert {key: verdict for key, verdict in found.items() if key in GOOD} == GOOD, done.stdout
    assert found["before", "bad"] == "holds"
    if way != "eats memory":  # which Python itself is told of
        assert found["bad", "bad"] == found["behind", "bad"] == "not run"
        reasons = {r["reason"] for r in report(suite)["results"] if r["verdict"] == "not run"}
        words = "--limit=seconds=N allows it more" if way == "never ends" else "--limit=gigabytes=N allows it more"
        assert all(words in reason and "org/bad" in reason for reason in reasons)
    assert done.returncode == 1
    assert report(suite)["suite"]["complete"] is True
    assert "mind this" in done.stdout
    assert time.monotonic() - began < 100


@pytest.mark.parametrize("way", ["never ends", "aborts"])
def test_it_does_where_weights_are_loaded(suite, way):
    done = run(suite, WAYS[way], "--limit=seconds=5", "--weights")
    found = verdicts(suite)
    assert {key: verdict for key, verdict in found.items() if key in GOOD} == GOOD, done.stdout
    assert found["bad", "bad"] == found["behind", "bad"] == "not run"
    assert done.returncode == 1


GRANTED = {
    "seconds": ("AT_WORK.grant(model, {granted}); time.sleep(6)", 60, "--limit=seconds=3"),
    "memory": ("AT_WORK.grant(model, 0, {granted}); bytearray(2 * 10**9)", 3 * 10**9, "--limit=gigabytes=1"),
}


@pytest.mark.parametrize("what", GRANTED)
def test_a_large_model_is_granted_more(suite, what):
    """What it may take follows from its size, which is known once its files are looked at."""
    way, granted, limit = GRANTED[what]
    imports = "import time; from fixtures.claims.at_work import AT_WORK; "
    run(suite, imports + way.format(granted=granted), limit)
    assert set(verdicts(suite).values()) == {"holds"}
    run(suite, imports + way.format(granted=0), limit)
    assert verdicts(suite)["bad", "bad"] != "holds"


ABORTING = """
import os

def pytest_runtest_call(item):
    if "bert" in item.nodeid:
        os.abort()
"""


def test_no_entry_is_drafted_of_a_model_that_was_ended(tmp_path):
    (tmp_path / "aborting.py").write_text(ABORTING)
    draft, models = tmp_path / "draft.yaml", ("facebook/opt-125m", "google-bert/bert-base-cased")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "aborting", f"--draft={draft}", "-p", "no:cacheprovider"]
        + [f"--model={CONFIGS / f'{model}.json'}" for model in models]
        + ["specs/test_06_the_stack.py"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert "no entry was drafted" in done.stdout
    assert "ends the process that runs it (SIGABRT)" in " ".join(done.stdout.split())
    assert "opt-125m" in draft.read_text()
    assert "bert-base-cased" not in draft.read_text()


@pytest.mark.parametrize("way", ["never ends", "aborts"])
def test_it_does_with_workers(suite, way):
    done = run(suite, WAYS[way], "--limit=seconds=5", "-n", "1")
    found = verdicts(suite)
    assert {key: verdict for key, verdict in found.items() if key in GOOD} == GOOD, done.stdout
    assert found["bad", "bad"] == found["behind", "bad"] == "not run"
    assert done.returncode == 1


def test_a_good_run_is_as_in_one_process(suite):
    apart = run(suite, "pass")
    found = report(suite)
    here = run(suite, "pass", "--pdb")
    for document in (found, other := report(suite)):
        del document["suite"]
        for result in document["results"]:
            del result["seconds"]
    assert found == other
    assert apart.returncode == here.returncode == 0


@pytest.mark.parametrize("way", ["pytest.exit('enough')", "raise KeyboardInterrupt"])
def test_what_stops_a_run_stops_it(suite, way):
    done = run(suite, way)
    assert done.returncode == pytest.ExitCode.INTERRUPTED
    assert ("behind", "bad") not in verdicts(suite)


def test_the_first_failure_may_end_it(suite):
    done = run(suite, "assert False", "-x")
    assert done.returncode == 1
    assert verdicts(suite)["bad", "bad"] == "fails"
    assert ("behind", "bad") not in verdicts(suite)


EMBEDDED = """
import sys, torch, pytest
torch.set_num_threads(2)
for _ in range(3):
    torch.rand(2000, 2000) @ torch.rand(2000, 2000)  # the threads are there
sys.exit(pytest.main(["-p", "no:cacheprovider", f"--model={sys.argv[1]}", "-k", "test_05 or test_06"]))
"""


def test_a_program_that_has_computed_may_call_pytest(tmp_path):
    """Threads of torch's are not there in a fork, and what would wait for them has none."""
    (tmp_path / "config.json").write_text(json.dumps(SMALL | {"model_type": "llama"}))
    done = subprocess.run(
        [sys.executable, "-c", EMBEDDED, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout

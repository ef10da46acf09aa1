"""A run that is killed at any moment goes on from there: each result once, none lost, the verdicts of an unbroken run.

A kill leaves a journal that ends anywhere, in the middle of a line as well. FUZZ_EXAMPLES says how many ends are tried.
"""

import json
import os
import shutil

import pytest

from fixtures.report.record import JOURNAL, REPORT
from tests.support.small import FAILING, add, arguments

hypothesis = pytest.importorskip("hypothesis", reason="pip install -e '.[dev]' brings it")
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from tests.report.test_resume import HANGS, killed  # noqa: E402

pytestmark = pytest.mark.slow
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "12"))


def results(folder):
    """The verdict of each cell; a cell that stands there twice is no record."""
    found = [
        ((r["claim"], r["model"], r.get("variant")), r["verdict"])
        for r in json.loads((folder / REPORT).read_text())["results"]
    ]
    assert len(dict(found)) == len(found), "a result stands there twice"
    return dict(found)


def test_a_journal_that_ends_anywhere_is_gone_on_from(suite):
    add(suite, HANGS + FAILING)
    killed(suite)
    whole = (suite.path / "out" / JOURNAL).read_bytes()
    suite.runpytest_inprocess(*arguments("--report", "unbroken"))
    unbroken = results(suite.path / "unbroken")

    @given(end=st.integers(0, len(whole)))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=EXAMPLES <= 12,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    def goes_on(end):
        folder = suite.path / "cut"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / JOURNAL).write_bytes(whole[:end])
        suite.runpytest_inprocess(*arguments("--report", "cut", "--resume"))
        assert results(folder) == unbroken
        assert json.loads((folder / REPORT).read_text())["suite"]["complete"] is True

    goes_on()


@pytest.mark.parametrize("seconds", [0.0, 0.4])
def test_a_run_that_is_killed_soon_goes_on(suite, seconds):
    """A real kill, before anything and after a while."""
    import signal
    import time

    from tests.support.small import start

    add(suite, FAILING)
    run = start(suite)
    time.sleep(seconds)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    suite.runpytest_inprocess(*arguments("--report", "out", "--resume"))
    suite.runpytest_inprocess(*arguments("--report", "unbroken"))
    assert results(suite.path / "out") == results(suite.path / "unbroken")

"""pytest-benchmark beyond its public face: what is used of it is there."""

import pytest

TIMED = """
import time
from fixtures.timings.benchmark import rounds, times

def test_timed(benchmark, pytestconfig):
    assert times(pytestconfig) is {on}
    slow = iter([0.02, 0.0, 0.0])
    benchmark.pedantic(lambda: time.sleep(next(slow)), rounds=3)
    if {on}:
        first, *others = rounds(benchmark)
        assert first > 0.02 and len(others) == 2 and max(others) < first
"""


@pytest.mark.parametrize(("option", "on"), [("--benchmark-only", True), ("--benchmark-disable", False)])
def test_whether_it_times_and_what_it_timed_is_known(pytester, monkeypatch, option, on):
    """The rounds come in their order, the slow one first; where timing is off, that is known as well."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # a worker's run would not time
    pytester.makepyfile(TIMED.format(on=on))
    pytester.runpytest_inprocess(option, "-p", "no:cacheprovider").assert_outcomes(passed=1)

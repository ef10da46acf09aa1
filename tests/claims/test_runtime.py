"""The process of a run: it runs once, ends as it should, and leaves Python as it was."""

import gc
import os
from argparse import Namespace

import pytest

from fixtures.claims import runtime
from tests.support.small import FAILING, add, arguments

INSIDE = ("-p", "fixtures.claims.runtime")


def test_a_run_starts_once_and_ends_as_it_does(suite):
    """Every claim runs one time, and the exit status is the run's own."""
    run = suite.runpytest_inprocess(*arguments(*INSIDE))
    run.assert_outcomes(passed=5, skipped=3, xfailed=1)
    assert run.ret == 0
    add(suite, FAILING)
    assert suite.runpytest_inprocess(*arguments(*INSIDE)).ret == 1


def test_the_search_for_garbage_is_python_s_again(suite):
    """What a run changes for itself is changed back."""
    before = gc.get_threshold()
    suite.runpytest_inprocess(*arguments(*INSIDE))
    assert gc.get_threshold() == before


@pytest.mark.parametrize(
    ("options", "own", "threads", "pages"),
    [
        ({}, {}, "1", None),
        ({"numprocesses": 2, "markexpr": "loading"}, {}, str(max(1, (os.cpu_count() or 1) // 2)), None),
        ({"benchmark_only": True}, {}, str(os.cpu_count()), "1"),
        ({"benchmark_enable": True}, {runtime.LARGE_PAGES: "0", "OMP_NUM_THREADS": "3"}, "3", "0"),
    ],
)
def test_threads_and_pages_suit_the_work(monkeypatch, options, own, threads, pages):
    """One thread for miniatures, every core for what is large, large pages for timings; what was set is left alone."""
    for name in ("OMP_NUM_THREADS", runtime.LARGE_PAGES):
        monkeypatch.setenv(name, own.get(name, ""))
        if name not in own:
            monkeypatch.delenv(name)
    runtime.settled(Namespace(**options))
    assert os.environ["OMP_NUM_THREADS"] == threads
    assert os.environ.get(runtime.LARGE_PAGES) == pages

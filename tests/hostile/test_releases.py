"""Hostile releases in one run: each is one sentence and a verdict, none is executed, and the sound ones hold.

TABLES=1 in the environment writes docs/hostile.md anew.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.hostile.inputs import IGNORED, REFUSED, REPORTED, make
from tests.support.small import ROOT
from tests.support.tables import WRITE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="pipes, devices and the limits are Linux's"),
]
TABLE = ROOT / "docs/hostile.md"
SECONDS, MEGABYTES = 120, 1500  # for all of them in one run; about 15 and 440 on two cores
GROUPS = {"refused": REFUSED, "reported": REPORTED, "ignored": IGNORED}
HEAD = f"""# Hostile releases

Each row is a small, sound release with one thing done to it. All of them are tried in one run, between two sound ones;
together they take less than {SECONDS} seconds and {MEGABYTES} MB. None is executed, none costs another its verdicts.
`TABLES=1 pytest tests/hostile` writes this table, and the test of that name keeps its sentences true. Seconds and MB
are those of the claims on that release when the table was written: MB are what the process took beyond what it had.

| what is done to it | what is printed | seconds | MB |
|---|---|---|---|
"""
# Linux keeps the most memory that a process ever had, and forgets it when it is told to.
WATCH = """
import os, pathlib, re, time
import pytest

PLACE = pathlib.Path(os.environ["WATCHED"])

def memory(what):
    return int(re.search(what + r":\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before, began = memory("VmRSS"), time.monotonic()
    done = yield
    with PLACE.open("a") as file:
        print(item.nodeid.rpartition("[")[2].rstrip("]"), time.monotonic() - began, memory("VmHWM") - before, file=file)
    return done
"""


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One run of all of them: what it printed, its exit status, its record, where they lie."""
    root = tmp_path_factory.mktemp("hostile")
    names = {f"{group}-{n}": damage for group, of in GROUPS.items() for n, damage in enumerate(of.values())}
    folders = {
        name: make(root / name, damage) for name, damage in {"good": _nothing, **names, "last": _nothing}.items()
    }
    (root / "watching.py").write_text(WATCH)
    (root / "list").write_text("\n".join(map(str, folders.values())))
    began = time.monotonic()
    asked = [
        "-p",
        "watching",
        f"--models-from={root / 'list'}",
        f"--report={root / 'out'}",
        "-q",
        "-k",
        "test_02 or test_14",
    ]
    # Linux counts what starts a process into its ru_maxrss: the process itself asks the kernel for its own.
    probe = "import re, resource, sys, pytest; code = pytest.main(sys.argv[1:]); "
    probe += "own = int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]); "
    probe += "print('peak', max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)); sys.exit(code)"
    done = subprocess.run(
        [sys.executable, "-c", probe, *asked],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(root), "WATCHED": str(root / "watched")},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    took = time.monotonic() - began
    report = json.loads((root / "out/report.json").read_text())
    peak = int(done.stdout.rpartition("peak ")[2]) / 1024
    spent = _spent(root / "watched")
    return SimpleNamespace(done=done, report=report, root=root, seconds=took, peak=peak, spent=spent)


def _spent(file: Path) -> dict[str, tuple[float, float]]:
    """Seconds of all claims on a release, and the most MB that one of them took, by the release's name."""
    found: dict[str, tuple[float, float]] = {}
    for line in file.read_text().splitlines():
        model, seconds, kilobytes = line.rsplit(" ", 2)
        before, most = found.get(model, (0.0, 0.0))
        found[model] = before + float(seconds), max(most, int(kilobytes) / 1024)
    return found


def _nothing(_: Path) -> None:
    """A sound one."""


def _of(tried: Any, model: str) -> list[dict[str, Any]]:
    return [result for result in tried.report["results"] if result["model"] == model]


def _failing(tried: Any, model: str) -> list[str]:
    return [result["reason"] for result in _of(tried, model) if result["verdict"] == "fails"]


def test_the_run_fails_without_a_traceback_of_ours(tried):
    assert tried.done.returncode == 1, tried.done.stderr
    assert "Traceback" not in tried.done.stdout + tried.done.stderr
    assert "INTERNALERROR" not in tried.done.stdout + tried.done.stderr
    assert tried.report["suite"]["complete"] is True


@pytest.mark.parametrize("sound", ["good", "last"])
def test_the_sound_ones_hold(tried, sound):
    verdicts = [result["verdict"] for result in _of(tried, sound)]
    assert "holds" in verdicts
    assert "fails" not in verdicts


@pytest.mark.parametrize(("group", "count"), [("refused", len(REFUSED)), ("reported", len(REPORTED))])
def test_each_is_a_sentence_and_a_verdict(tried, group, count):
    for number in range(count):
        name = list(GROUPS[group])[number]
        reasons = _failing(tried, f"{group}-{number}")
        assert reasons, f"{name}: nothing failed"
        assert all(reason.isprintable() for reason in reasons), name


def test_nothing_is_executed_or_changes_a_verdict(tried):
    assert not list(tried.root.rglob("EXECUTED"))
    good = {result["claim"] for result in _of(tried, "good") if result["verdict"] == "holds"}
    for number, name in enumerate(IGNORED):
        found = {result["claim"] for result in _of(tried, f"ignored-{number}") if result["verdict"] == "holds"}
        assert found == good, name


def test_nothing_printed_moves_the_cursor(tried):
    assert not [sign for sign in tried.done.stdout if (sign not in "\n\t" and ord(sign) < 32) or sign in "\x7f\u202e"]


def test_they_take_little(tried):
    assert tried.seconds < SECONDS
    assert tried.peak < MEGABYTES


def test_the_table_is_what_is_printed(tried):
    rows = []
    for group, inputs in GROUPS.items():
        for number, name in enumerate(inputs):
            model = f"{group}-{number}"
            reason = next(iter(_failing(tried, model)), "nothing: it is not looked at")
            words = reason.replace(f"{tried.root}/{model}/", "").removeprefix(f"{model}: ").replace("|", "\\|")
            seconds, megabytes = tried.spent[model]
            rows.append(f"| {name} | {words} | {seconds:.2f} | {megabytes:.0f} |")
    text = HEAD + "\n".join(rows) + "\n"
    if WRITE:
        TABLE.write_text(text)
    assert _sentences(TABLE.read_text()) == _sentences(text)


def _sentences(table: str) -> str:
    """The table without what another machine takes for it."""
    return re.sub(r"\| \d+\.\d\d \| \d+ \|$", "|", table, flags=re.MULTILINE)

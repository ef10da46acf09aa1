"""The folder of a report: nothing recorded is lost, one run at a time, no planted link followed, damage set aside."""

import json
import os
import subprocess
import sys

import pytest

from fixtures.report import earlier, folder
from fixtures.report.record import JOURNAL, REPORT
from tests.support.small import ROOT, add, arguments, report, start

pytestmark = pytest.mark.slow

OUT = ("--report", "out")
ONE = json.dumps(["result", {"claim": "c", "model": "m", "verdict": "holds"}])

STOPS = """
if os.path.exists("stop"):
    def test_departs(model):
        pytest.exit("x")
"""
ODD = """
def test_odd(model):
    same("name", observed="m\\udce9", expected="m\\udce9")
"""
HOLDER = """
from pathlib import Path
from fixtures.report.folder import lock

lock(Path("out"))
print(1, flush=True)
input()
"""


def kept(suite):
    """What is in the folder, by name."""
    return {path.name: path.read_bytes() for path in (suite.path / "out").iterdir()}


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "workers"])
@pytest.mark.parametrize("less", [("-k", "mixer"), ("-k", "holds")], ids=["models", "claims"])
def test_a_run_of_less_does_not_replace_one_of_more(suite, less, workers):
    suite.runpytest_inprocess(*arguments(*OUT))
    before = kept(suite)
    run = start(suite, *less, *workers)
    run.communicate(timeout=120)
    assert run.returncode in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED)
    assert kept(suite) == before


def test_the_refusal_names_the_ways_out(suite):
    suite.runpytest_inprocess(*arguments(*OUT))
    run = suite.runpytest_inprocess(*arguments(*OUT, "-k", "mixer"))
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    sentence = "it holds results of org/large, org/small, which this run would lose. Name another directory, go on with"
    assert f"ERROR: --report out: {sentence} --resume, or say --replace." in run.stderr.str()


def test_a_run_of_as_much_replaces_it(suite):
    suite.runpytest_inprocess(*arguments(*OUT, "-k", "mixer"))
    suite.runpytest_inprocess(*arguments(*OUT))
    suite.runpytest_inprocess(*arguments(*OUT))
    assert list(kept(suite)) == [REPORT]
    assert len(report(suite)["results"]) == 10


def test_a_run_that_is_stopped_leaves_the_one_before_beside_it(suite):
    suite.runpytest_inprocess(*arguments(*OUT))
    before = report(suite)
    add(
        suite,
        STOPS,
    )
    (suite.path / "stop").touch()
    suite.runpytest_inprocess(*arguments(*OUT), no_reraise_ctrlc=True)
    assert 0 < len(report(suite)["results"]) < 10
    assert json.loads((suite.path / "out/report-before.json").read_text()) == before
    (suite.path / "stop").unlink()
    suite.runpytest_inprocess(*arguments(*OUT))
    assert list(kept(suite)) == [REPORT]


def test_a_second_run_into_the_folder_refuses(suite):
    (suite.path / "out").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        cwd=suite.path,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        run = suite.runpytest_inprocess(*arguments(*OUT))
        assert run.ret == pytest.ExitCode.USAGE_ERROR
        assert "ERROR: --report out: nothing can be written there: another run is writing there" in run.stderr.str()
        assert kept(suite) == {}
        other.kill()  # the lock dies with it
    assert suite.runpytest_inprocess(*arguments(*OUT)).ret == 0


@pytest.mark.parametrize("name", [f".{JOURNAL}.new", f".{REPORT}.new", REPORT, JOURNAL])
def test_a_planted_link_is_not_followed(suite, name):
    (suite.path / "mine").write_text("mine")
    (suite.path / "out").mkdir()
    (suite.path / "out" / name).symlink_to(suite.path / "mine")
    suite.runpytest_inprocess(*arguments(*OUT))
    assert (suite.path / "mine").read_text() == "mine"
    assert len(report(suite)["results"]) == 10


def test_a_file_of_one_step_follows_no_link(tmp_path):
    (tmp_path / "mine").write_text("mine")
    for name in ("page", ".page.new"):
        (tmp_path / name).symlink_to("mine")
    folder.replace(tmp_path / "page", "a \udce9")
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "page").is_symlink()
    assert (tmp_path / "page").read_text() == "a \\udce9"


@pytest.mark.parametrize("resume", [(), ("--resume",)], ids=["anew", "resumed"])
@pytest.mark.parametrize("damage", [b"[" * 100_000, b"\xff\xfe"], ids=["deep", "not-text"])
def test_a_damaged_journal_is_set_aside_and_said(suite, damage, resume):
    suite.runpytest_inprocess(*arguments(*OUT))
    document = report(suite)
    lines = [json.dumps([kind, value]).encode() for kind, value in [("suite", document["suite"])]]
    lines += [json.dumps(["result", result]).encode() for result in document["results"]]
    (suite.path / "out" / JOURNAL).write_bytes(b"\n".join([*lines[:4], damage, *lines[4:], b""]))
    run = suite.runpytest_inprocess(*arguments(*OUT, *resume))
    assert run.ret == 0
    assert (
        f"{JOURNAL} is damaged, and is kept as journal-damaged.jsonl: 1 of its lines are no entries."
        in run.stdout.str()
    )
    assert damage in (suite.path / "out/journal-damaged.jsonl").read_bytes()
    assert len(report(suite)["results"]) == 10


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[" * 100_000, b"\xff", b'{"claims": [], "models": [5], "results": []}']
)
def test_what_is_no_report_is_set_aside_and_said(suite, content):
    (suite.path / "out").mkdir()
    (suite.path / "out" / REPORT).write_bytes(content)
    run = suite.runpytest_inprocess(*arguments(*OUT))
    assert run.ret == 0
    assert "report.json is damaged, and is kept as report-damaged.json: expected" in run.stdout.str()
    assert (suite.path / "out/report-damaged.json").read_bytes() == content
    run = suite.runpytest_inprocess(*arguments("--report", "out", "--resume"))
    assert run.ret == 0


@pytest.mark.parametrize(
    "line", ["5", "[]", '["result", 5]', '["facts", {"id": []}]', '["suite", {}]', '["x", {}]', "{"]
)
def test_a_line_that_is_no_entry_is_counted(tmp_path, line):
    file = tmp_path / JOURNAL
    file.write_text(f"{line}\n{ONE}\n")
    assert earlier.lines_of(file) == ([("result", json.loads(ONE)[1])], 1)


def test_lines_that_are_no_entries_are_counted(tmp_path):
    file = tmp_path / JOURNAL
    file.write_text(f'{ONE}\n\n[1]\n{ONE}\n["result"')
    assert len(earlier.lines_of(file)[0]) == 2
    assert earlier.lines_of(file)[1] == 1


def test_a_name_that_is_no_text_is_kept(suite):
    add(
        suite,
        ODD,
    )
    run = suite.runpytest_inprocess(*arguments(*OUT))
    assert run.ret == 0
    odd = [r for r in report(suite)["results"] if r["claim"].endswith("odd")]
    assert {r["observed"]["name"] for r in odd} == {"m\udce9"}

"""--resume: a run goes on where an earlier one was stopped, and ends as if it had not been."""

import json
import signal
import time

import pytest

from fixtures.report.record import JOURNAL, REPORT
from tests.support.small import FAILING, add, arguments, report, start

pytestmark = pytest.mark.slow

GO_ON = ("--report", "out", "--resume")
TOLD = """
@pytest.fixture(autouse=True)
def told(request):
    with open("ran", "a") as file:
        file.write(request.node.name + "\\n")
"""
HANGS = """
def test_hangs(model):
    '''It hangs.'''
    if os.path.exists("hang"):
        open("hangs", "w").close()
        time.sleep(600)
"""
STOPS = """
def test_stops(model):
    '''It stops.'''
    if not os.path.exists("on"):
        pytest.exit("no")
"""
LONG = """
@pytest.mark.parametrize("length", [8, 16])
def test_long(model, length):
    '''It is long.'''
"""


def ran(suite) -> list[str]:
    """Take the names of the items that ran since this was last asked."""
    file = suite.path / "ran"
    names = file.read_text().split() if file.exists() else []
    file.unlink(missing_ok=True)
    return names


def results(suite, directory: str = "out"):
    """The verdicts of a report, by claim and model."""
    return {(r["claim"], r["model"], r.get("variant")): r["verdict"] for r in report(suite, directory)["results"]}


def killed(suite, *options: str) -> None:
    """Run until a claim hangs, and kill."""
    (suite.path / "hang").touch()
    run = start(suite, *options)
    deadline = time.monotonic() + 60
    while not (suite.path / "hangs").exists() and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    (suite.path / "hang").unlink()


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "workers"])
def test_killed_run_goes_on(suite, options):
    """After a kill what is done is not repeated, and the record is that of a run which was not stopped."""
    add(suite, TOLD + HANGS + FAILING)
    killed(suite)
    before = ran(suite)
    kept = (suite.path / "out" / JOURNAL).read_text().count('["result"')
    assert 0 < kept < 16
    run = start(suite, *GO_ON, *options)
    printed, _ = run.communicate(timeout=120)
    assert f"resumed: {kept - before_not_run(suite, before)} results are kept" in printed
    after = ran(suite)
    repeated = set(before) & set(after)
    assert all("gpu" in name or "hangs" in name for name in repeated), repeated
    assert run.returncode == 1  # one claim fails, before or now
    suite.runpytest_inprocess(*arguments("--report", "unbroken"))
    assert results(suite) == results(suite, "unbroken")
    assert report(suite)["suite"]["complete"] is True
    assert report(suite)["claims"] == report(suite, "unbroken")["claims"]
    assert report(suite)["models"] == report(suite, "unbroken")["models"]


def before_not_run(suite, names: list[str]) -> int:
    """How many of the items that ran said that something was missing, and are tried again."""
    return sum("gpu" in name for name in names)


@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["alone", "workers"])
@pytest.mark.parametrize("fails", [True, False], ids=["fails", "holds"])
def test_what_is_done_runs_no_more(suite, options, fails):
    """Going on from a whole record runs what was not run alone, and ends as that run did."""
    (suite.path / "specs/test_01_tokens.py").unlink()
    add(suite, TOLD + (FAILING if fails else ""))
    suite.runpytest_inprocess(*arguments("--report", "out"))
    ran(suite)
    whole = results(suite)
    run = start(suite, "--resume", *options)
    printed, _ = run.communicate(timeout=120)
    assert {name.partition("[")[0] for name in ran(suite)} == {"test_gpu"}
    assert run.returncode == (1 if fails else 0)
    assert results(suite) == whole
    run = start(suite, "--resume", "-k", "not gpu", *options)
    printed, _ = run.communicate(timeout=120)
    assert not ran(suite)
    assert run.returncode == (1 if fails else 0), printed
    assert results(suite) == whole
    assert report(suite)["suite"]["complete"] is True
    assert f"{'3' if fails else '2'} claims ran on 3 models" in printed


def test_selection_may_grow_and_shrink(suite):
    """What an earlier run did of other models stays in the record."""
    add(suite, TOLD)
    suite.runpytest_inprocess(*arguments("--report", "out", "-k", "mixer"))
    suite.runpytest_inprocess(*arguments(*GO_ON, "-k", "small"))
    assert {model for _, model, _ in results(suite)} == {"mixer", "org/small"}
    assert [model["id"] for model in report(suite)["models"]] == ["org/small", "mixer"]
    assert report(suite)["suite"]["complete"] is True
    ran(suite)
    suite.runpytest_inprocess(*arguments(*GO_ON))
    assert not [name for name in ran(suite) if "large" not in name and "gpu" not in name]
    assert [model["id"] for model in report(suite)["models"]] == ["org/small", "org/large", "mixer"]


def test_variants_are_told_apart(suite):
    """A claim with further parameters has a result for each, and goes on with the one that was missing."""
    add(suite, TOLD + LONG)
    suite.runpytest_inprocess(*arguments("--report", "out", "-k", "long and mixer"))
    assert results(suite) == {
        ("specs/test_02_position.py::test_long", "mixer", f"length {length}"): "holds" for length in (8, 16)
    }
    kept = report(suite)
    kept["results"] = [result for result in kept["results"] if result["variant"] == "length 8"]
    (suite.path / "out" / REPORT).write_text(json.dumps(kept))
    ran(suite)
    suite.runpytest_inprocess(*arguments(*GO_ON, "-k", "long and mixer"))
    assert ran(suite) == ["test_long[mixer-16]"]
    assert len(results(suite)) == 2


def test_interrupted_run_goes_on(suite):
    """A run that was stopped by hand goes on from its report."""
    add(suite, TOLD + STOPS)
    suite.runpytest_inprocess(*arguments("--report", "out"), no_reraise_ctrlc=True)
    before = ran(suite)
    (suite.path / "on").touch()
    run = suite.runpytest_inprocess(*arguments(*GO_ON))
    assert run.ret == 0
    assert not {name for name in {*before} & {*ran(suite)} if "gpu" not in name and "stops" not in name}
    assert report(suite)["suite"]["complete"] is True
    assert len(results(suite)) == 13


def test_nothing_to_go_on_from_runs_all(suite):
    """The first run may be the one that is repeated: a job that is started again has one command."""
    run = suite.runpytest_inprocess(*arguments(*GO_ON))
    assert run.ret == 0
    assert len(results(suite)) == 10
    run.stdout.no_fnmatch_line("resumed:*")


def test_another_selection_of_nothing_says_so(suite):
    """-k that matches nothing is said although there are results."""
    suite.runpytest_inprocess(*arguments("--report", "out"))
    run = suite.runpytest_inprocess(*arguments(*GO_ON, "-k", "xyz"))
    assert run.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert "matches no claim and no model" in run.stdout.str()
    assert len(results(suite)) == 10


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda kept: kept["suite"]["versions"].update(torch="1.0"), "holds a run with torch 1.0, and here it is"),
        (lambda kept: kept["suite"].update(device="cuda"), "holds a run with device cuda, and here it is cpu"),
        (lambda kept: kept.pop("suite"), "is no record of a run (KeyError"),
    ],
    ids=["versions", "device", "shape"],
)
def test_record_of_another_kind_is_refused(suite, change, why):
    """Results of two versions or devices do not mix, and what is no record is left as it is."""
    suite.runpytest_inprocess(*arguments("--report", "out"))
    kept = report(suite)
    change(kept)
    text = json.dumps(kept)
    (suite.path / "out" / REPORT).write_text(text)
    run = suite.runpytest_inprocess(*arguments(*GO_ON))
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    assert why in run.stderr.str()
    assert (suite.path / "out" / REPORT).read_text() == text


def test_directory_is_named(suite):
    """Without --report there is nothing to go on from."""
    run = suite.runpytest_inprocess(*arguments("--resume"))
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    run.stderr.fnmatch_lines(["ERROR: --resume: expected the directory*--report=DIR*"])


def test_the_device_is_settled_before_it_is_compared(suite, monkeypatch):
    """The accelerator that -m gpu found is that of the run to go on from, whatever order the plugins are listed in."""
    monkeypatch.setattr("fixtures.claims.selection._accelerator", lambda: "cuda")
    words = ("-p", "fixtures.claims.selection", *arguments("--report", "out", "-m", "gpu"))
    suite.runpytest_inprocess(*words)
    assert report(suite)["suite"]["device"] == "cuda"
    run = suite.runpytest_inprocess(*words, "--resume")
    assert not run.errlines
    assert len(results(suite)) == 3

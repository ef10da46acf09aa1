"""The record: its shape, that nothing done is lost, and what the terminal makes of it."""

import errno
import json
import os
import signal
import time

import pytest

from fixtures.report import record
from fixtures.report.record import Record
from fixtures.report.terminal import Page, tally
from tests.support.small import FAILING, add, arguments, report, start

pytestmark = pytest.mark.slow


def test_record_has_its_shape(suite):
    """The report holds suite, claims, models and results as the contract says."""
    assert suite.runpytest_inprocess(*arguments("--report", "out")).ret == 0
    document = report(suite)
    assert list(document) == ["schema", "suite", "claims", "models", "results"]
    assert document["schema"] == 1
    assert document["suite"]["device"] == "cpu"
    assert document["suite"]["complete"] is True
    assert document["suite"]["versions"].keys() >= {"python", "pytest", "transformers", "torch"}
    assert document["claims"] == [
        {"id": "specs/test_01_tokens.py::test_about", "chapter": "Tokens",
         "statement": "The lesson's model is large.", "lesson": "in its first paragraph"},
        {"id": "specs/test_02_position.py::test_holds", "chapter": "Position",
         "statement": "The widths are equal.", "lesson": ""},
        {"id": "specs/test_02_position.py::test_departs", "chapter": "Position",
         "statement": "A vector is added.", "lesson": ""},
        {"id": "specs/test_02_position.py::test_gpu", "chapter": "Position", "statement": "It is fast.", "lesson": ""},
    ]  # fmt: skip
    assert document["models"] == [
        {"id": "org/small", "origin": "matrix", "facts": {"d_model": 9}},
        {"id": "org/large", "origin": "matrix", "facts": {"d_model": 9}},
        {"id": "mixer", "origin": "matrix", "facts": {"d_model": 5}},
    ]
    assert [(one["claim"].rpartition("_")[2], one["model"], one["verdict"]) for one in document["results"]] == [
        ("about", "org/large", "holds"),
        ("holds", "org/small", "holds"), ("holds", "org/large", "holds"), ("holds", "mixer", "holds"),
        ("departs", "org/small", "holds"), ("departs", "org/large", "departs"), ("departs", "mixer", "does not apply"),
        ("gpu", "org/small", "not run"), ("gpu", "org/large", "not run"), ("gpu", "mixer", "not run"),
    ]  # fmt: skip
    assert list(document["results"][0]) == ["claim", "model", "verdict", "reason", "expected", "observed", "seconds"]
    assert os.listdir(suite.path / "out") == ["report.json"]


def test_without_report_nothing_is_written(suite):
    """A run without --report leaves no file."""
    before = set(suite.path.rglob("*.json*"))
    suite.runpytest_inprocess(*arguments())
    assert set(suite.path.rglob("*.json*")) == before


def test_workers_give_the_same_record(suite):
    """The record of two workers is that of one process, times aside."""
    add(suite, FAILING)
    suite.runpytest_inprocess(*arguments("--report", "alone"))
    start(suite, "-n", "2").communicate(timeout=120)
    alone, shared = report(suite, "alone"), report(suite)
    for document in (alone, shared):
        del document["suite"]["seconds"], document["suite"]["started"]
        for result in document["results"]:
            del result["seconds"]
    assert shared == alone


def test_worker_that_dies_fails_its_claim(suite):
    """A claim that takes its process down fails, and the others are still checked."""
    add(suite, '\ndef test_dies(model):\n    """It dies."""\n    if model == "mixer":\n        os._exit(3)\n')
    run = start(suite, "-n", "1")
    run.communicate(timeout=120)
    dead = [result for result in report(suite)["results"] if result["verdict"] == "fails"]
    assert [(result["claim"], result["model"], result["reason"]) for result in dead] == [
        ("specs/test_02_position.py::test_dies", "mixer", "the process that ran it died")
    ]
    assert len(report(suite)["results"]) == 13
    assert run.returncode == 1


def test_killed_run_keeps_what_was_done(suite):
    """What a run did before it was killed can be read, whole, from its directory."""
    add(suite, '\ndef test_hangs(model):\n    """It hangs."""\n    open("hangs", "w").close()\n    time.sleep(600)\n')
    run = start(suite)
    deadline = time.monotonic() + 60
    while not (suite.path / "hangs").exists() and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    document = record.load(suite.path / "out")
    assert document["suite"]["complete"] is False
    assert len(document["claims"]) == 5
    done = {(result["claim"].rpartition("_")[2], result["model"]) for result in document["results"]}
    first = next(model for model in ("org/large", "org/small") if ("holds", model) in done)
    assert done >= {(name, first) for name in ("holds", "departs", "gpu")}
    assert report(suite)["suite"]["complete"] is False


@pytest.mark.parametrize("how", ["raise KeyboardInterrupt", "pytest.exit('enough')", "assert False"])
def test_interrupted_run_is_not_complete(suite, how):
    """A run that was stopped keeps what it did and says that it is not all."""
    add(suite, f'\ndef test_stops(model):\n    """It stops."""\n    {how}\n')
    suite.runpytest_inprocess(*arguments("--report", "out", "--maxfail=1"), no_reraise_ctrlc=True)
    document = report(suite)
    assert document["suite"]["complete"] is False
    assert len(document["results"]) >= 3
    assert os.listdir(suite.path / "out") == ["report.json"]


def test_next_run_replaces_an_earlier_report(suite):
    """A directory holds the latest run alone, where that is as much as the one before or the user says so."""
    suite.runpytest_inprocess(*arguments("--report", "out"))
    suite.runpytest_inprocess(*arguments("--report", "out", "-k", "mixer", "--replace"))
    assert os.listdir(suite.path / "out") == ["report.json"]
    assert [model["id"] for model in report(suite)["models"]] == ["mixer"]


@pytest.mark.parametrize(
    ("directory", "why"),
    [("file", "a file is in the way"), ("file/below", "Not a directory"), ("taken", "report.json is a directory")],
)
def test_directory_that_cannot_be_written_is_refused(suite, directory, why):
    """A report that cannot be kept is one sentence, before anything runs."""
    (suite.path / "file").write_text("mine")
    (suite.path / "taken/report.json").mkdir(parents=True)
    run = suite.runpytest_inprocess(*arguments("--report", directory))
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    run.stderr.fnmatch_lines([f"ERROR: --report {directory}: nothing can be written there: *{why}*"])
    assert (suite.path / "file").read_text() == "mine"


def test_full_disk_fails_the_run_at_its_end(suite, monkeypatch):
    """Claims go on when the disk is full; the run ends with a sentence and no success."""
    replace, calls = os.replace, list[str]()

    def fills(*paths):
        calls.extend(str(path) for path in paths[1:] if str(path).endswith("report.json"))  # not bytecode
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(*paths)

    monkeypatch.setattr(record.os, "replace", fills)
    run = suite.runpytest_inprocess(*arguments("--report", "out"))
    run.stdout.fnmatch_lines(["--report out: the record could not be kept: *No space left on device"])
    run.assert_outcomes(passed=5, skipped=3, xfailed=1)
    assert run.ret == 1
    assert len(record.load(suite.path / "out")["results"]) == 10


@pytest.mark.parametrize("options", [("-k", "xyz"), ("-k", "xyz", "-n", "1")], ids=["alone", "workers"])
def test_nothing_selected_names_the_models(suite, options):
    """A selection that matches nothing says so and names what there is."""
    run = start(suite, *options)
    printed, _ = run.communicate(timeout=120)
    sentence = "Nothing was selected: -k 'xyz' matches no claim and no model; models are: mixer, org/large, org/small."
    assert sentence in printed.replace("\n", " ")
    assert run.returncode == pytest.ExitCode.NO_TESTS_COLLECTED


def test_mark_without_its_means_is_no_success(suite):
    """Selecting what cannot run here says why and does not succeed."""
    run = suite.runpytest_inprocess(*arguments("-m", "gpu", "-q"))
    run.stdout.fnmatch_lines(["No claim ran: no GPU here"])
    assert run.ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_tests_that_are_no_claims_are_left_alone(pytester):
    """Tests without a model get no table, no line of their own and no verdict."""
    pytester.makepyfile("import pytest\ndef test_plain():\n    pytest.skip('no')\n")
    run = pytester.runpytest_inprocess(*arguments("--report", "out"))
    run.stdout.no_fnmatch_line("*= claims =*")
    run.stdout.no_fnmatch_line("No claim ran*")
    run.stdout.fnmatch_lines(["test_tests_that_are_no_claims_are_left_alone.py s*"])
    assert run.ret == 0
    assert report(pytester)["results"] == []


def test_a_run_ends_with_what_a_person_wants_to_know(suite):
    """One line a model, then what fails, what departs most, the verdict, and counts that add up."""
    add(suite, FAILING)
    run = suite.runpytest_inprocess(*arguments("--tb=short"))
    run.stdout.fnmatch_lines_random(
        ["org/small  2 hold ? 1 fail ? 1 not run  (* s)", "mixer      2 hold ? 1 not run  (* s)"]
    )
    run.stdout.fnmatch_lines([
        "fails  org/small: The small one fails: name: expected 'org/small', observed '*",
        "departs on 1 model: A vector is added",
        "1 claim fails on 1 model.",
        "4 claims ran on 3 models: 7 hold, 1 depart as declared, 1 fail, 3 not run, 1 do*",
    ])  # fmt: skip
    assert "1 Tokens; 2 Position" not in run.stdout.str()


def test_a_run_that_was_stopped_says_after_how_much(suite):
    """The line of a model that was cut short says so."""
    add(suite, FAILING + '\ndef test_later(model):\n    """It is later."""\n')
    run = suite.runpytest_inprocess(*arguments("-x", "-k", "small and (fails or later)"))
    run.stdout.fnmatch_lines(["org/small  1 fail, stopped after 1 of 2  (* s)"])


def test_the_table_of_contents_has_each_sentence_once(suite):
    """Chapters and sentences, whatever number of models there is."""
    run = suite.runpytest_inprocess(*arguments("--collect-only", "-q"))
    run.stdout.fnmatch_lines(
        ["1. Tokens", "   The lesson's model is large.", "2. Position", "   The widths are equal."]
    )
    assert run.stdout.str().count("The widths are equal.") == 1
    assert "org/small" not in run.stdout.str()
    assert run.ret == 0


def test_verbose_shows_models_by_chapters(suite):
    """With -v a run of several models ends with a table, its departures, its failures and its sum."""
    add(suite, FAILING)
    run = suite.runpytest_inprocess(*arguments("--tb=short", "-v"))
    run.stdout.fnmatch_lines([
        " *1 * 2",
        "org/small * 2?1F?1n",
        "org/large * 1 * 2?1d?1n",
        "mixer * 2?1n",
        "# hold; #d depart as declared; #F fail; #n not run",
        "1 Tokens; 2 Position",
        "Departures, as declared:",
        "  A vector is added",
        "    nothing is added (1): org/large",
        "Failures:",
        "  org/small: The small one fails: name: expected 'org/small', observed 'bad'",
        "4 claims ran on 3 models: 7 hold, 1 depart as declared, 1 fail, 3 not run, 1 do*",
    ])  # fmt: skip


def test_terminal_shows_one_model_as_a_sheet(suite):
    """A run of one model ends with its facts and the claims that do not simply hold."""
    run = suite.runpytest_inprocess(*arguments("-k", "mixer", "-v"))
    run.stdout.fnmatch_lines([
        "mixer (matrix)",
        "  d model  5",
        "holds: 1 claim",
        "not run: no GPU here",
        "    It is fast",
        "does not apply: nothing attends",
        "    A vector is added",
        "1 claim ran on 1 model: 1 hold, 0 depart as declared, 0 fail, 1 not run, 1 do *",
    ])  # fmt: skip
    run.stdout.no_fnmatch_line("*widths are equal*")


def fake(models: int = 3, chapters: int = 14) -> Record:
    """Make a record without a run."""
    made = Record()
    ids = [f"organization/model-{number}-base" for number in range(models)]
    claims = [
        {"id": f"specs/test_{number:02}_x.py::test_x", "chapter": f"Chapter {number}", "statement": "So.", "lesson": ""}
        for number in range(chapters)
    ]
    made.take("catalogue", {"claims": claims, "models": ids, "items": models * chapters})
    for claim in claims:
        for model in ids:
            made.take("result", {"claim": claim["id"], "model": model, "verdict": "departs", "reason": "why\x1b[2J"})
    return made


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_table_fits_its_terminal(width):
    """A narrow terminal gets the table in parts, every chapter once, no line too long."""
    lines = Page(width).table(fake())
    assert max(map(len, lines)) <= width
    heads = " ".join(line for line in lines if line.strip().replace(" ", "").isdigit())
    assert heads.split() == [str(number) for number in range(14)]


def test_lines_hold_nothing_that_a_terminal_obeys():
    """A control character in a model's data is shown as Python writes it."""
    page = Page(80, unicode=False)
    made = fake()
    lines = [page.legible(line) for line in [*page.matrix(made), *page.sheet(fake(1)), tally(made)]]
    assert all(line.isprintable() and line.isascii() for line in lines)


def test_unfinished_journal_line_is_left_out(tmp_path):
    """A journal cut in the middle of a line gives everything before it."""
    result = {"claim": "c", "model": "m", "verdict": "holds"}
    whole = json.dumps(["result", result])
    (tmp_path / record.JOURNAL).write_text(f"{whole}\n{whole[:20]}")
    assert record.load(tmp_path)["results"] == [result]


def test_report_is_json_and_lines():
    """The report is JSON with one result a line."""
    document = fake().document()
    text = record.dumps(document)
    assert json.loads(text) == document
    assert sum(line.startswith('  {"claim"') for line in text.splitlines()) == len(document["results"])

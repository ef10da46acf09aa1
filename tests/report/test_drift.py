"""Recorded verdicts: a file that people can read, and runs that are held to it."""

import contextlib
import io
import subprocess
import sys

import pytest

from fixtures.claims.parametrize import ROOT, read_matrix
from fixtures.published.entries_file import claim_names
from fixtures.report import drift, results
from fixtures.report.results import Cell, Difference, Results, ResultsError
from fixtures.verdicts.versions import versions

pytestmark = pytest.mark.slow

VERSION = versions(("transformers",))["transformers"]
RELEASE = "transformers-{}.{}.txt".format(*results.release_of(VERSION))
CHAPTERS = {"test_a": "specs/test_01.py", "test_b": "specs/test_01.py", "test_c": "specs/test_08.py"}
CLAIM = "test_steps_days_and_cost_agree"  # arithmetic on what the paper says: nothing is built for it
MODELS = list(read_matrix(ROOT / "models.yaml").entries)


def row(claim, models, letters):
    return {Cell(claim, model): letter for model, letter in zip(models, letters, strict=True)}


def small(**cells):
    found = Results("5.23.0", ["x", "y"], chapters=CHAPTERS)
    for claim, letters in cells.items():
        found.by_default |= row(claim, found.models, letters)
    return found


def own(letters, version=VERSION):
    """A file of one claim, recorded of the two models it is about."""
    by_default = row(CLAIM, ("vaswani-2017/base", "vaswani-2017/big"), letters)
    return str(Results(version, MODELS, by_default, chapters={CLAIM: "specs/test_00_the_paper.py"}))


def run(monkeypatch, folder, *options):
    """Run that claim against the files of a folder: exit status, what is printed."""
    monkeypatch.setattr(results, "FOLDER", folder)
    monkeypatch.setenv("COLUMNS", "1000")  # no line is broken
    output = io.StringIO()
    quiet = ["-pno:cacheprovider", "-pno:unraisableexception", "-k", CLAIM]
    with contextlib.redirect_stdout(output):
        status = pytest.main([str(ROOT / "specs"), f"--rootdir={ROOT}", f"-c={ROOT / 'pytest.ini'}", *quiet, *options])
    return int(status), " ".join(output.getvalue().split())


def test_a_file_reads_as_it_was_written(tmp_path):
    """Variants, chapters, what is not made of a model, and what rests on more than the library."""
    written = small(test_a="h.", test_b="d-")
    written.by_default[Cell("test_a (length 8)", "y")] = "F"
    written.handled, written.handled_on = {Cell("test_c", "x"): "n"}, "bitsandbytes 0.50.2, with AVX512-BF16"
    (tmp_path / RELEASE).write_text(str(written))
    again = results.read(tmp_path / RELEASE)
    assert str(again) == str(written)
    assert again.cells == {cell: letter for cell, letter in written.cells.items() if letter != "-"}
    assert "h. test_a\n-F test_a (length 8)\nd- test_b" in str(written)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: text.replace("h. test_a", "h test_a"), ":6: expected 2 letters and a claim, found 'h test_a'"),
        (lambda text: text.replace("h. test_a", "hz test_a"), "found 'hz test_a'"),
        (lambda text: text.replace("|y", "y"), ":4: expected a model behind 1 bars, found 'y'"),
        (lambda text: text.replace("transformers", "library"), "expected"),
        (lambda text: "", "expected a line 'transformers VERSION', found none"),
    ],
)
def test_a_line_that_is_none_is_named(change, why, tmp_path):
    (tmp_path / RELEASE).write_text(change(str(small(test_a="h."))))
    with pytest.raises(ResultsError) as error:
        results.read(tmp_path / RELEASE)
    assert why in str(error.value)


def test_differences_are_of_three_kinds():
    """What was not made of a model and now is has appeared; claims that are not recorded differ from nothing."""
    recorded, found = small(test_a="h.", test_b="d-"), small(test_a=".h", test_b="Fh", test_c="hh")
    kinds = {(d.claim, d.model): d.kind for d in results.differences(recorded.by_default, found.by_default)}
    assert kinds == {
        ("test_a", "x"): "gone",
        ("test_a", "y"): "appeared",
        ("test_b", "x"): "changed",
        ("test_b", "y"): "appeared",
    }
    assert Difference("test_a", "x", "-", ".").kind == "changed"


def test_a_part_of_the_run_is_laid_over_the_rest():
    """What did not run stays as recorded; what is recorded of claims and models that are gone is dropped."""
    old = Results("5.23.0", ["x", "z"], {Cell("test_a", "x"): "h", Cell("test_a", "z"): "h"}, chapters=CHAPTERS)
    old.by_default |= {Cell("test_gone", "x"): "h", Cell("test_b", "x"): "d"}
    merged = results.merged(old, small(test_a="F."))
    assert merged.by_default == {Cell("test_a", "x"): "F", Cell("test_a", "y"): ".", Cell("test_b", "x"): "d"}


def test_the_nearest_tested_version_is_the_newest_that_is_not_newer(tmp_path):
    for version in ("5.9", "5.17", "5.23"):
        (tmp_path / f"transformers-{version}.txt").touch()
    (tmp_path / "transformers-5.23.txt~").touch()
    expected = {"5.8.1": "5.9", "5.17.2": "5.17", "5.22.0": "5.17", "6.0.0.dev0": "5.23"}
    for version, nearest in expected.items():
        assert results.nearest(version, tmp_path) == tmp_path / f"transformers-{nearest}.txt"
    assert results.nearest("5.1.0", tmp_path / "none") is None


def test_a_run_as_recorded_passes_in_silence(monkeypatch, tmp_path):
    (tmp_path / RELEASE).write_text(own("hh"))
    status, printed = run(monkeypatch, tmp_path)
    assert status == 0
    assert "verdicts ==" not in printed


@pytest.mark.parametrize("option", ["", "-n2"])
def test_a_verdict_that_is_not_the_recorded_one_fails_the_run(option, monkeypatch, tmp_path):
    """The claim, the model, what it was and what it is, from this process and from workers."""
    (tmp_path / RELEASE).write_text(own("dh"))
    status, printed = run(monkeypatch, tmp_path, *([option] if option else []))
    assert status == 1
    assert f"Recorded otherwise for transformers {VERSION}, which fails the run" in printed
    assert f"changed: departs -> holds {CLAIM} (1): vaswani-2017/base" in printed


def test_on_another_version_it_is_drift(monkeypatch, tmp_path):
    """It is shown, the version is announced, and the run passes."""
    (tmp_path / "transformers-5.1.txt").write_text(own(".h", version="5.1.0"))
    status, printed = run(monkeypatch, tmp_path)
    assert status == 0
    assert f"transformers {VERSION} is newer than all that were tested (5.1)" in printed
    assert "Drift since transformers 5.1.0 (fixtures/results/transformers-5.1.txt): appeared: does not apply" in printed


def test_what_is_recorded_is_what_ran(monkeypatch, tmp_path):
    """A new file, and a line of an old one; the others stay."""
    for old in (None, own("dF")):
        if old:
            (tmp_path / RELEASE).write_text(old)
        status, printed = run(monkeypatch, tmp_path, "--record-verdicts")
        assert status == 0
        assert "2 verdicts were recorded in" in printed
        assert (tmp_path / RELEASE).read_text() == own("hh")


def test_a_damaged_file_fails_the_run_in_a_sentence(monkeypatch, tmp_path):
    (tmp_path / RELEASE).write_text(own("hh").replace("hh", "hz"))
    status, printed = run(monkeypatch, tmp_path)
    assert status == 1
    assert f"{RELEASE}:" in printed
    assert "Traceback" not in printed


def test_a_release_is_never_held_to_the_matrix(monkeypatch, tmp_path):
    """A release that bears a model's name is not that model, and is not recorded."""
    (tmp_path / RELEASE).write_text(own("dF"))
    config = ROOT / "fixtures/published/configs/facebook/opt-125m.json"
    status, printed = run(monkeypatch, tmp_path, f"--model={config}")
    assert "Recorded otherwise" not in printed
    status, _ = run(monkeypatch, tmp_path, f"--model={config}", "--record-verdicts")
    assert status == 4
    assert (tmp_path / RELEASE).read_text() == own("dF")


def test_what_rests_on_the_processor_fails_no_run_on_another(monkeypatch):
    """What loading and quantizing give is compared strictly where it was recorded on the same."""
    was, now = {Cell("test_c", "x"): "h"}, {Cell("test_c", "x"): "d"}
    recorded = Results("5.23.0", ["x"], {}, was, "bitsandbytes 1, with AVX512-BF16", CHAPTERS)
    watch = drift.Watch.__new__(drift.Watch)
    for on, strict in (("bitsandbytes 1, with AVX512-BF16", True), ("bitsandbytes 1, without AVX512-BF16", False)):
        watch.lines = []
        assert watch._differs(Results("5.23.0", ["x"], {}, now, on, CHAPTERS), recorded, "a file") is strict
        assert "    test_c (1): x" in watch.lines


@pytest.mark.skipif(not (results.FOLDER / RELEASE).exists(), reason="This version of transformers is not recorded.")
def test_the_record_of_this_version_is_whole(tmp_path, monkeypatch):
    """Every claim is in it that a plain run makes, and no other; `pytest --record-verdicts` brings it up to date."""
    recorded = results.read(results.FOLDER / RELEASE)
    (tmp_path / "names.py").write_text(
        "def pytest_collection_finish(session):\n    print(*{f'::{item.originalname}' for item in session.items})\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    listed = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-pno:cacheprovider", "-pnames", "specs"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    claims = {word.removeprefix("::") for word in listed.stdout.split() if word.startswith("::")}
    assert {results.name_of(cell.claim) for cell in recorded.by_default} == claims
    assert {results.name_of(cell.claim) for cell in recorded.cells} <= set(claim_names(ROOT / "specs"))
    assert recorded.models == MODELS

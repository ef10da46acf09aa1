"""From version to version: the verdicts on record, of the models that a page is of."""

import pytest

from fixtures.report import results
from fixtures.report.page import history
from fixtures.report.page.write import write
from tests.browser.records import LARGE, SMALL, record

CLAIM = "test_positions_are_added"


def recorded(folder, version, letters):
    lines = [results.LEGEND, f"transformers {version}", SMALL, f"|{LARGE}", "specs/test_04_self_attention.py"]
    name = f"transformers-{version.rpartition('.')[0]}.txt"
    (folder / name).write_text("\n".join([*lines, f"{letters} {CLAIM}"]) + "\n")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    return tmp_path


def test_what_changed_between_versions_is_told(folder, tmp_path):
    recorded(folder, "5.17.0", "hh")
    recorded(folder, "5.23.0", "hd")
    found = history.recorded(record())
    assert found is not None
    assert found.counts["transformers 5.17.0"]["holds"] == 2
    assert [(c.claim, c.model, c.before, c.after) for c in found.changes] == [
        ("Positions are added to the token embeddings.", LARGE, "holds", "departs")
    ]
    write([record()], tmp_path / "page")
    text = (tmp_path / "page/index.html").read_text()
    assert "transformers 5.17.0, transformers 5.23.0" in text


def test_a_claim_that_was_not_made_of_a_model_is_told_apart(folder):
    recorded(folder, "5.17.0", "h-")
    recorded(folder, "5.23.0", "hh")
    found = history.recorded(record())
    assert found is not None
    assert [(c.before, c.after) for c in found.changes] == [("not made of it", "holds")]


def test_of_models_that_are_not_on_record_there_is_no_history(folder):
    recorded(folder, "5.17.0", "hh")
    recorded(folder, "5.23.0", "hd")
    made = record()
    for model in made["models"]:
        model["origin"] = "hub"
    assert history.recorded(made) is None


@pytest.mark.parametrize("versions", [[], ["5.23.0"]])
def test_one_version_is_no_history(folder, versions):
    for version in versions:
        recorded(folder, version, "hh")
    assert history.recorded(record()) is None


def test_a_damaged_record_is_no_end_of_the_page(folder):
    recorded(folder, "5.17.0", "hh")
    (folder / "transformers-5.23.txt").write_text("nothing")
    assert history.recorded(record()) is None

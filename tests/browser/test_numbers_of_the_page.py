"""The page's numbers are the record's: read off the page in a browser, and reckoned anew from report.json.

The record is of a real run on models of each family; a record that was falsified is told from it.
"""

import copy
import json
import re
from collections import Counter

import pytest

from fixtures.report.page.write import write
from tests.support.child import pytest_run

pytestmark = pytest.mark.slow
MODELS = "opt-125m or bert-base-cased or t5-small or Mixtral"
SIGNS = {"●": "holds", "◐": "departs", "✕": "fails", "○": "does not apply"}
LETTERS = {"v-h": "holds", "v-d": "departs", "v-f": "fails", "v-a": "does not apply", "v-n": "not run"}


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    """What a real run left, as report.json."""
    out = tmp_path_factory.mktemp("run")
    done = pytest_run("-k", MODELS, f"--report={out}")
    assert done.returncode == 0, done.stdout
    return json.loads((out / "report.json").read_text())


@pytest.fixture
def shown(browser, tmp_path):
    """Open the page of a record."""
    opened = []

    def show(document, address=""):
        write([document], tmp_path / "page")
        opened.append(browser.new_page(viewport={"width": 1280, "height": 900}, reduced_motion="reduce"))
        opened[-1].goto((tmp_path / "page/index.html").as_uri() + address)
        return opened[-1]

    yield show
    for page in opened:
        page.close()


def counts(text):
    """The numbers of verdicts in a tally, by verdict: "● 12 hold"."""
    words = {"hold": "holds", "depart": "departs", "fail": "fails", "do not apply": "does not apply"}
    found = re.findall(r"(\d[\d,]*) (holds?|departs?|fails?|not run|does not apply|do not apply)", text)
    return {words.get(word, word): int(number.replace(",", "")) for number, word in found}


def results(document, model=None):
    """The verdict of each claim on each model, the worst of its variants where it has several."""
    order = ["fails", "departs", "holds", "not run", "does not apply"]
    found: dict[tuple[str, str], str] = {}
    for one in document["results"]:
        cell = (one["claim"].rpartition("::")[2], one["model"])
        if model in (None, one["model"]):
            found[cell] = min(found.get(cell, one["verdict"]), one["verdict"], key=order.index)
    return found


def differing(page, document):
    """Where the page says something else than the record: what, on the page, by the record."""
    wrong = []

    def compare(what, read, reckoned):
        if read != reckoned:
            wrong.append((what, read, reckoned))

    compare("all verdicts", counts(page.locator(".masthead .tally").inner_text()), Counter(results(document).values()))
    places = {model["id"]: place for place, model in enumerate(document["models"])}
    for model in document["models"]:
        page.select_option("#model", label=model["id"])
        own = Counter(results(document, model["id"]).values())
        read = {
            SIGNS[s]: int(n) for s, n in re.findall(r"(\S) (\d+)", page.locator("#tally").inner_text()) if s in SIGNS
        }
        compare(f"verdicts of {model['id']}", read, {verdict: own[verdict] for verdict in read})
        terms = page.locator("#facts dt").all_inner_texts()
        facts = dict(zip(terms, page.locator("#facts dd").all_inner_texts(), strict=True))
        for name, value in model["facts"].items():
            if type(value) is int and name in facts:
                compare(f"{name} of {model['id']}", int(re.sub(r"\D", "", facts[name].partition(" ")[0])), value)
    cells = page.evaluate(
        """() => [...document.querySelectorAll('#grid td[data-claim]')].map(cell => [
            cell.closest('tr').querySelector('a').getAttribute('href').slice(1),
            Number(cell.dataset.model), cell.classList[0]])"""
    )
    by_place = {place: name for name, place in places.items()}
    drawn = {(anchor, by_place[place]): LETTERS[letter] for anchor, place, letter in cells if letter in LETTERS}
    for cell, verdict in results(document).items():
        compare(f"cell {cell}", drawn.get(cell), verdict)
    return wrong


def test_every_count_fact_and_cell_is_the_records(shown, document):
    page = shown(document)
    assert page.locator("#facts dd").count() > 10
    assert differing(page, document) == []


def test_a_number_that_was_falsified_is_seen(shown, document):
    """The page of another record, in which one fact and one verdict are others, is not this one's."""
    false = copy.deepcopy(document)
    false["models"][0]["facts"]["parameters"] += 1
    holding = next(one for one in false["results"] if one["verdict"] == "holds" and "variant" not in one)
    holding["verdict"] = "departs"
    found = {what for what, *_ in differing(shown(false), document)}
    assert f"parameters of {document['models'][0]['id']}" in found
    assert any(what.startswith("cell ") for what in found)
    assert "all verdicts" in found

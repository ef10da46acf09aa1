"""The page's numbers are the record's: read off the page in a browser, and reckoned anew from report.json.

The record is of a real run on models of each family; a record that was falsified is told from it.
"""

import copy
import json
import re
from collections import Counter

import pytest

from fixtures.report.page import facts_table
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


HEADINGS = {"vocab_size": "vocabulary"}


def facts_rows(page):
    """The table of facts as it is drawn: {model: {heading: value}}."""
    rows = page.evaluate(
        """() => {
            const table = document.getElementById('facts-table');
            const heads = [...table.querySelectorAll('thead th')].slice(1).map(th => th.dataset.heading);
            return [...table.querySelectorAll('tbody tr')].map(tr => [tr.querySelector('th').textContent,
                [...tr.querySelectorAll('td')].map((td, place) => [heads[place], td.dataset.value])]);
        }"""
    )
    return {model: dict(cells) for model, cells in rows}


def memory_rows(page):
    """Bytes in all by the bits of a weight, as the table of what fits where has them."""
    return page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll('[data-picture="fit"] [data-total]')].map(
            total => [total.closest('tr').firstElementChild.textContent, Number(total.dataset.total)]))"""
    )


def reckoned_memory(model, bits, *, tokens, texts):
    """The same from the record: weights and the cache of so many texts, or sixteen bytes a parameter of training."""
    memory = model["pictures"]["memory"]
    if bits not in memory["weights"]:
        return 16 * memory["parameters"]
    tokens = min(tokens, model["pictures"]["settings"].get("context") or 131072)
    return memory["weights"][bits] + texts * tokens * (memory["cache"] + memory["source"])


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
        shown_sheet = page.locator("#facts > div").all_inner_texts()
        for label, text in facts_table.rows(model):
            compare(
                f"{label} of {model['id']}",
                any(" ".join(row.split()) == f"{label} {text}" for row in shown_sheet),
                True,
            )
        for bits, card_row in memory_rows(page).items():
            compare(f"{bits} of {model['id']}", card_row, reckoned_memory(model, bits, tokens=4096, texts=1))
    table = facts_rows(page)
    for model in document["models"]:
        for name, value in model["facts"].items():
            heading = HEADINGS.get(name, name)
            if heading in table[model["id"]] and type(value) is int and not (name == "experts" and not value):
                compare(f"{name} of {model['id']}", table[model["id"]][heading], str(value))
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
    assert len(memory_rows(page)) == 5
    assert differing(page, document) == []


def test_the_sliders_reckon_as_the_record_does(shown, document):
    """More tokens and more texts side by side: the bytes of the cache grow as the record says, up to the context."""
    model = next(one for one in document["models"] if one["id"] == "facebook/opt-125m")
    page = shown(document, "?model=facebook/opt-125m")
    for name, place in (("tokens", 1), ("texts side by side", 3)):
        slider = page.get_by_label(name, exact=True)
        slider.evaluate("(input, to) => { input.value = to; input.dispatchEvent(new Event('input')); }", place)
    rows = memory_rows(page)
    assert rows["16 bits"] == reckoned_memory(model, "16 bits", tokens=256, texts=8)
    page.get_by_label("tokens", exact=True).press("End")
    assert memory_rows(page)["16 bits"] == reckoned_memory(model, "16 bits", tokens=10**9, texts=8)


def test_one_model_is_printed_on_few_pages(shown, document):
    """Verdict, sheet, drawing and a line a claim: at most twelve pages."""
    pdf = shown(document, "?model=google-t5/t5-small").pdf(prefer_css_page_size=True)
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 12


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

"""The page of thousands of releases: totals are those of the tables, and the rows in view alone are drawn."""

import json
from collections import Counter

import pytest

from fixtures.survey import rows
from fixtures.survey.page import PAGE, main, written

pytestmark = pytest.mark.slow
MANY = 5000


def row(number):
    """A row of one release; every tenth fails, and one has a name that would be a tag."""
    made = dict.fromkeys(rows.RELEASES)
    name = "org/<b>bold</b>\u202e" if number == 42 else f"org/model-{number}"
    verdict = "fails" if number % 10 == 0 else "holds"
    return made | {"release": name, "verdict": verdict, "model_type": ("llama", "bert")[number % 2],
                   "parameters": 1000 * number, "fails": (number % 10 == 0 and 2) or 0, "departs": 3,
                   "reason": "model.norm.weight" if verdict == "fails" else None}  # fmt: skip


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """The tables of a survey of many releases."""
    folder = tmp_path_factory.mktemp("records")
    result = dict.fromkeys(rows.RESULTS) | {"claim": "test_no_tensor_is_missing", "verdict": "fails"}
    tables = {"releases": [row(number) for number in range(MANY)], "results": [result] * (MANY // 10)}
    for table, content in tables.items():
        (folder / table).mkdir()
        (folder / table / "shard-0001-of-0001.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in content))
    return folder


@pytest.fixture
def page(browser, records, tmp_path):
    """The page, opened."""
    assert main([str(records), "--out", str(tmp_path)]) == 0
    context = browser.new_context(viewport={"width": 1200, "height": 800}, offline=True)
    opened = context.new_page()
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.goto(f"{(tmp_path / PAGE).as_uri()}#verdict=fails")
    yield opened
    assert faults == []
    context.close()


def totals(page, name):
    """The counts of one table of totals, as a reader sees them."""
    cells = page.locator(f"[data-total={name}] tr").all_inner_texts()
    return {word: int(count.replace(",", "")) for word, count in (cell.split("\t") for cell in cells)}


def test_totals_are_those_of_the_tables(page, records):
    lines = (records / "releases/shard-0001-of-0001.jsonl").read_text().splitlines()
    for name in ("verdict", "model_type"):
        assert totals(page, name) == Counter(json.loads(line)[name] for line in lines)
    assert totals(page, "claims") == {"no tensor is missing": MANY // 10}


def test_a_filter_is_in_the_address(page):
    assert page.locator("#found").inner_text() == "500 of 5,000"
    page.locator("#text").fill("model-990")
    assert page.locator("#found").inner_text() == "1 of 5,000"
    assert "text=model-990" in page.url
    assert "verdict=fails" in page.url


def test_only_what_is_in_view_is_drawn(page):
    page.locator("#verdict").select_option("")
    drawn = page.locator("#rows .row")
    assert 0 < drawn.count() < 100
    page.evaluate("document.getElementById('view').scrollTop = 1e9")
    page.wait_for_function("document.querySelector('#rows').innerText.includes('model-999')")
    assert 0 < drawn.count() < 100
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_name_is_text_and_nothing_else(page):
    page.locator("#verdict").select_option("")
    page.locator("#text").fill("bold")
    assert page.locator("#rows .row span").first.inner_text() == "org/<b>bold</b>\\u202e"


def test_what_is_no_record_is_told(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--out", str(tmp_path / "out")])
    assert "expected the record of a survey" in capsys.readouterr().err


def test_it_opens_quickly(records):
    """Its size bounds what a browser has to read: about a hundred bytes a release."""
    assert len(written(records)) < 200 * MANY

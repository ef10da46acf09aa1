"""The page in a real browser: switching models, the matrix, the keyboard, deep links, windows of all widths, harm.

Chromium is the system's own (Debian: chromium); without it, or without Playwright, these tests are skipped.
"""

import csv
import json

import pytest

from fixtures.report.page.write import write
from tests.browser.records import ADDED, ENCODER, HOSTILE, LARGE, LATER, SMALL, hostile, of_one, record

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install -e '.[dev]'")
axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="axe is not installed: pip install -e '.[dev]'"
)

WIDTHS = {"phone": 320, "narrow": 360, "middle": 820, "wide": 1440, "projector": 1920}
pytestmark = pytest.mark.slow
LATER_NAME, ADDED_NAME = (claim.rpartition("::")[2] for claim in (LATER, ADDED))


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Write the pages that are looked at."""
    folder = tmp_path_factory.mktemp("pages")
    for name, made in {"matrix": record(), "release": of_one(), "hostile": hostile()}.items():
        write([made], folder / name)
    return folder


@pytest.fixture
def show(browser, pages):
    """Open a page and, at the end of the test, see that it said nothing on the console and asked for nothing."""
    opened, messages, asked = [], [], []

    def open_page(name: str = "matrix", address: str = "", *, width: int = 1280, scheme: str = "light"):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce")
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((pages / name / "index.html").as_uri() + address)
        opened.append(page)
        return page

    yield open_page
    for page in opened:
        page.close()
    assert messages == []
    assert [url for url in asked if not url.startswith(("data:", pages.as_uri()))] == []
    assert len(asked) == len(opened)


def verdict(page, claim: str) -> str:
    return page.locator(f"#{claim} > .verdict").inner_text()


def test_switching_the_model_changes_the_page(show):
    """The sheet, the verdicts, the evidence, the pictures and the address follow the model."""
    page = show(address=f"?model={SMALL}")
    assert verdict(page, LATER_NAME) == "● holds"
    page.locator(f"#{LATER_NAME} details.evidence summary").click()
    page.select_option("#model", label=LARGE)
    assert verdict(page, LATER_NAME) == "✕ fails"
    assert "3 weights" in page.locator(f"#{LATER_NAME} details.evidence").inner_text()
    assert page.locator("#sheet-title").inner_text() == f"The model: {LARGE}"
    assert "rotary" in page.locator('[data-picture="positions"]').inner_text()
    assert f"model={LARGE.replace('/', '%2F')}" in page.url
    page.locator("#next").click()
    assert page.locator("#sheet-title").inner_text() == f"The model: {ENCODER}"
    assert page.locator('[data-picture="attention"]').is_hidden()


def test_two_models_are_compared(show):
    """What differs between the model and another is listed: facts and verdicts, and nothing that is the same."""
    page = show(address=f"?model={SMALL}")
    page.select_option("#against", label=LARGE)
    text = page.locator("#differences").inner_text()
    assert "2 facts and 2 verdicts differ" in text
    assert "learned" in text
    assert "✕ fails" in text
    assert "d_model" not in text
    assert "It is fast." not in text


def test_evidence_names_the_axes(show):
    """A shape is shown with the names of its axes, expected beside observed."""
    page = show(address=f"?model={SMALL}")
    page.locator(f"#{LATER_NAME} details.evidence summary").click()
    assert page.locator(f"#{LATER_NAME} td.value").all_inner_texts() == ["[batch 1, seq 10]", "[batch 1, seq 10]"]


def test_a_deep_link_opens_the_claim_with_its_model(show):
    """An address names model and claim; both are there when it is opened."""
    page = show(address=f"?model={LARGE}#{ADDED_NAME}")
    assert page.locator("#sheet-title").inner_text() == f"The model: {LARGE}"
    page.wait_for_function("scrollY > 0")
    top = page.locator(f"#{ADDED_NAME}").bounding_box()["y"]
    assert 0 <= top < 900


def test_a_model_that_is_not_there_is_no_trouble(show):
    """An address with another model shows the first."""
    page = show(address="?model=org/none#nowhere")
    assert page.locator("#model").input_value() in "012"


def test_a_cell_opens_its_reason_and_evidence(show):
    """A click on a cell opens what is behind it; a link leads to the claim with that model."""
    page = show(address=f"?model={SMALL}")
    page.locator("#grid td.v-d").click()
    text = page.locator("#cell").inner_text()
    assert "Nothing is added." in text
    assert LARGE in text
    page.locator("#cell a").click()
    assert page.locator("#cell").is_hidden()
    assert page.url.endswith(f"#{ADDED_NAME}")
    assert page.locator("#sheet-title").inner_text() == f"The model: {LARGE}"


def test_the_matrix_is_walked_by_keyboard(show):
    """Arrows move from cell to cell, Enter opens one, Escape closes it and the focus is where it was."""
    page = show()
    page.locator('#grid td[tabindex="0"]').focus()
    here = "[document.activeElement.dataset.claim, document.activeElement.dataset.model]"
    assert page.evaluate(here) == ["0", "0"]
    for key, place in [
        ("ArrowRight", ["0", "1"]),
        ("ArrowDown", ["1", "1"]),
        ("ArrowUp", ["0", "1"]),
        ("End", ["0", "2"]),
    ]:
        page.keyboard.press(key)
        assert page.evaluate(here) == place
    assert page.locator('#grid td[tabindex="0"]').count() == 1
    page.keyboard.press("Enter")
    assert page.locator("#cell").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("#cell").is_hidden()
    assert page.evaluate(here) == ["0", "2"]


def test_everything_is_reached_by_keyboard(show):
    """From the top, the tab key comes to the skip link, the choice of a model, its neighbours, and on to the claims."""
    page = show()
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    assert reached[:4] == ["To the lesson", "previous", "model", "next"]


@pytest.mark.parametrize(
    ("control", "chosen", "claims", "models"),
    [
        ("#by-verdict", "fails", 1, 1),
        ("#by-verdict", "departs", 1, 1),
        ("#by-trait", "positions=rotary", 4, 1),
        ("#by-trait", "family=encoder-only", 4, 1),
        ("#find", "later", 1, 3),
        ("#find", "org/large", 4, 1),
        ("#find", "nothing of the kind", 0, 3),
    ],
)
def test_the_matrix_is_filtered(show, control, chosen, claims, models):
    """By verdict, by trait, by words: what is left is shown and counted."""
    page = show()
    locator = page.locator(control)
    locator.fill(chosen) if control == "#find" else locator.select_option(chosen)
    assert page.locator("#shown").inner_text() == f"{claims} of 4 claims, {models} of 3 models"
    assert page.locator("#grid td").count() == claims * models
    page.locator("#filters button[type=reset]").click()
    page.wait_for_function("document.querySelectorAll('#grid td').length === 12")


def test_the_matrix_is_sorted(show):
    """Models by size or by name, claims by departures."""
    page = show()
    names = lambda: page.locator("#grid .names .name").all_inner_texts()  # noqa: E731
    assert names() == [SMALL, LARGE, ENCODER]
    page.select_option("#order-models", "size")
    assert names() == [SMALL, ENCODER, LARGE]
    page.select_option("#order-models", "name")
    assert names() == sorted([SMALL, LARGE, ENCODER])
    page.select_option("#order-claims", "unlike")
    assert "v-f" in page.locator("#grid tbody tr").first.inner_html()


def test_the_address_has_the_filters(show):
    """What is filtered and how it is sorted goes into the address, and comes back from it."""
    page = show()
    page.select_option("#by-verdict", "departs")
    page.locator("#find").fill("added")
    page.select_option("#order-models", "size")
    page.locator('#facts-table [data-heading="parameters"] button').click()
    for parameter in ("verdict=departs", "find=added", "models=size", "sort=parameters"):
        assert parameter in page.url
    shown = page.locator("#shown").inner_text()
    again = show(address="?" + page.url.partition("?")[2])
    assert again.locator("#shown").inner_text() == shown
    assert again.locator("#by-verdict").input_value() == "departs"
    assert again.locator('#facts-table [aria-sort="ascending"]').inner_text().startswith("parameters")
    again.locator("#filters button[type=reset]").click()
    again.wait_for_function("!location.search.includes('verdict')")


def test_an_address_with_a_filter_that_is_none_shows_all(show):
    page = show(address="?verdict=nonsense&trait=x%3Dy&sort=nothing")
    assert page.locator("#shown").inner_text() == "4 of 4 claims, 3 of 3 models"
    assert page.locator("#facts-table tbody tr").count() == 3


def test_the_table_of_facts_is_sorted(show):
    """By a heading, up and then down; what a model has not stands last both ways."""
    page = show()
    names = lambda: page.locator("#facts-table tbody th").all_inner_texts()  # noqa: E731
    for heading, up in {"parameters": [SMALL, ENCODER, LARGE], "model": [ENCODER, LARGE, SMALL]}.items():
        page.locator(f'#facts-table [data-heading="{heading}"] button').click()
        assert names() == up
        page.locator(f'#facts-table [data-heading="{heading}"] button').click()
        assert names() == up[::-1]
        assert page.evaluate("document.activeElement.closest('th').dataset.heading") == heading
    page.locator("#facts-table tbody a").first.click()
    assert page.locator("#sheet-title").inner_text() == f"The model: {names()[0]}"


def test_tables_are_taken_as_files(show):
    """Facts and verdicts as CSV, one row a model or a claim."""
    page = show()
    for name, rows, cell in (("facts", 3, "9000000"), ("verdicts", 4, "departs")):
        with page.expect_download() as caught:
            page.locator(f'[data-take="{name}"]').click()
        assert caught.value.suggested_filename == f"{name}.csv"
        with open(caught.value.path(), encoding="utf-8-sig", newline="") as file:
            table = list(csv.reader(file))
        assert len(table) == rows + 1
        assert {len(row) for row in table} == {len(table[0])}
        assert any(cell in row for row in table)


def test_a_name_is_no_formula_in_a_file(browser, tmp_path):
    """What a stranger wrote is not run by the spreadsheet that opens the file."""
    write([json.loads(json.dumps(record()).replace(SMALL, "=1+1"))], tmp_path)
    page = browser.new_page()
    page.goto((tmp_path / "index.html").as_uri())
    with page.expect_download() as caught:
        page.locator('[data-take="facts"]').click()
    content = caught.value.path().read_text(encoding="utf-8-sig")
    page.close()
    assert "\n'=1+1," in content


def test_a_link_to_a_claim_is_copied(browser, pages):
    """With the model, so that whoever opens it finds the claim as it is shown."""
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto((pages / "matrix/index.html").as_uri() + f"?model={LARGE}")
    page.locator(f"#{LATER_NAME} .copy").click()
    page.wait_for_function("[...document.querySelectorAll('.copy')].some(b => b.textContent === 'Copied')")
    copied = page.evaluate("navigator.clipboard.readText()")
    page.goto(copied)
    assert page.locator("#sheet-title").inner_text() == f"The model: {LARGE}"
    assert copied.endswith(f"#{LATER_NAME}")
    context.close()


def test_the_record_is_offered_where_it_lies_beside_the_page(browser, tmp_path):
    """A page that was made beside its record links to it; one that was made elsewhere does not."""
    (tmp_path / "report.json").write_text("{}")
    for folder, offered in ((tmp_path, 1), (tmp_path / "elsewhere", 0)):
        write([record()], folder)
        page = browser.new_page()
        page.goto((folder / "index.html").as_uri())
        assert page.locator('footer a[href="report.json"]').count() == offered
        page.close()


def test_verdicts_are_told_apart_without_colour(show):
    """Every verdict has a sign and a name of its own."""
    page = show()
    cells = page.locator("#grid td").evaluate_all(
        "cells => cells.map(c => [c.getAttribute('aria-label'), c.textContent])"
    )
    assert {tuple(cell) for cell in cells} == {
        ("holds", "●"), ("departs", "◐"), ("fails", "✕"), ("not run", "○"), ("does not apply", "·")
    }  # fmt: skip


def test_a_square_of_the_overview_leads_to_its_claim(show):
    """A click on a square goes to the claim that it stands for."""
    page = show()
    page.locator("#overview-claim-1").click(force=True)
    assert page.url.endswith(f"#{LATER_NAME}")


def test_attention_is_looked_at_head_by_head(show):
    """A small map chooses the large one; pointing at a square tells its weight and its tokens."""
    page = show(address=f"?model={SMALL}")
    page.locator(".small-maps button").nth(1).click()
    assert page.locator(".small-maps button").nth(1).get_attribute("aria-pressed") == "true"
    page.locator(".chosen-map .hit").nth(8).hover()
    assert page.locator(".readout").inner_text() == "“fox” gives “fox” 0.800"
    assert page.locator(".chosen-map .none").count() == 3


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("name", ["matrix", "release", "hostile"])
def test_no_width_makes_the_page_wider_than_its_window(show, name, width):
    """Wide things scroll on their own; the page does not."""
    page = show(name, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["matrix", "release"])
def test_axe_finds_nothing(show, name, scheme):
    """The accessibility rules of axe-core hold, the minor ones too, with everything opened, in light and in dark."""
    page = show(name, scheme=scheme)
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    run = axe.Axe().run(page)
    assert [(found["id"], found["nodes"][0]["target"]) for found in run.response["violations"]] == []


def test_an_open_cell_is_accessible(show):
    """The dialog has a name, and axe finds nothing in it."""
    page = show()
    page.locator("#grid td.v-f").click()
    run = axe.Axe().run(page)
    assert [found["id"] for found in run.response["violations"]] == []


def test_a_hostile_record_is_text(show):
    """Script and markup in names, facts, reasons, evidence and code are shown and never run."""
    page = show("hostile")
    for model in range(3):
        page.select_option("#model", str(model))
        page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        for cell in page.locator(f'#grid td[data-model="{model}"]').all()[:2]:
            cell.click()
            page.keyboard.press("Escape")
    assert page.evaluate("typeof window.broken") == "undefined"
    assert page.evaluate("document.querySelectorAll('main img').length") == 0
    assert "<img src=x" in page.locator("article.claim h3").first.inner_text()
    assert "\x1b" not in page.evaluate("document.body.innerText")
    assert HOSTILE not in page.title()


def test_without_scripts_the_lesson_is_there(browser, pages):
    """Chapters, claims, counts and reasons need no script."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((pages / "matrix/index.html").as_uri())
    text = page.locator("main").inner_text()
    assert "Every later token gets a weight of zero." in text
    assert "3 weights" in text
    assert "Without scripts" in text
    context.close()


def test_the_page_prints_without_its_controls(show):
    """On paper there is the lesson, and neither menu nor filter."""
    page = show()
    page.emulate_media(media="print")
    assert page.locator("#filters").is_hidden()
    assert page.locator(".bar nav").is_hidden()
    assert page.locator("article.claim").first.is_visible()
    assert page.locator("#matrix").is_hidden()
    assert len(page.pdf()) > 10_000
    page.evaluate("document.body.classList.add('whole')")
    assert page.locator("#matrix").is_visible()

"""The page of a record: what it says, that it asks for nothing, and that a foreign string stays a string."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fixtures.report.page import FILES
from fixtures.report.page.__main__ import main
from fixtures.report.page.view import View
from fixtures.report.page.write import badge, endpoint_of, markdown, page, summary, visible, write
from tests.browser.records import ADDED, ENCODER, FAST, HOSTILE, LARGE, LATER, SMALL, SUMS, hostile, of_one, record

ROOT = Path(__file__).parents[2]


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the text outside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text, self._inside = "", ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Keep an element."""
        self.found.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag):
        """Leave a script or a style."""
        self._inside = ""

    def handle_data(self, data):
        """Keep what is read."""
        if not self._inside:
            self.text += data


def test_every_claim_stands_in_its_chapter_with_its_words_and_code():
    """Chapters come in order, each with its text, its claims' statements and the code that checks them."""
    text = page(View(record()))
    reading = re.sub(r"\s+", " ", Elements(text).text)
    places = [
        reading.index(words)
        for words in (
            "Where a word stands has to be told.",
            "The weights of a row sum to one.",
            "Each token looks at others.",
            "It is fast.",
        )
    ]
    claims = re.findall(r'<article class="claim" id="(\w+)"', text)
    assert claims == [claim.rpartition("::")[2] for claim in (SUMS, LATER, ADDED, FAST)]
    assert places == sorted(places)
    assert "def test_rows_sum_to_one(attention):" in reading


def reading_of(document):
    return re.sub(r"\s+", " ", Elements(page(View(document))).text)


def test_the_page_counts_what_holds():
    """Its first sentences say of how many claims that ran how many hold everywhere, and what became of the others."""
    reading = reading_of(record())
    assert (
        "Of 3 claims that ran, 1 holds for every one of 3 models that has what it speaks of. "
        "From 1 some of today's models depart, each for a reason. 1 claim fails. 1 claim could not be run here."
    ) in reading
    assert "6 hold" in reading
    assert "1 departs" in reading


@pytest.mark.parametrize(
    ("release", "sentence"),
    [
        (LARGE, "It fails 1 of 3 claims that ran."),
        (SMALL, "It holds all 3 claims that ran."),
    ],
)
def test_a_release_has_its_verdict_in_one_sentence(release, sentence):
    assert sentence in reading_of(of_one(release))


def test_a_release_that_departs_says_who_knows_it():
    """Its entry declares the departure; of a release without one, models like it are known to have it."""
    made = of_one(LARGE)
    made["results"] = [result for result in made["results"] if result["verdict"] != "fails"]
    assert "It does as the lesson says, but for 1 departure that its entry declares." in reading_of(made)
    made["models"][0]["origin"] = "hub"
    assert "but for 1 departure that is known of models like it." in reading_of(made)


def test_a_release_on_which_nothing_ran_is_not_praised():
    made = of_one(SMALL)
    for result in made["results"]:
        result.update(verdict="not run", reason="There is no memory.")
    assert "None of 4 claims could be run on it." in reading_of(made)


def test_a_page_of_one_release_says_what_it_would_take():
    """What fails comes first, then what was not run and what it would take, then the sheet."""
    made = of_one()
    made["suite"]["left_out"] = {"gpu": 12}
    reading = reading_of(made)
    words = ["What fails or departs", "3 weights", "1 claim: There is no GPU here.", "12 claims: They run on an accele"]
    places = [reading.index(word) for word in [*words, "What it is"]]
    assert places == sorted(places)


def test_a_page_of_one_release_begins_with_its_sheet():
    """The sheet comes before the lesson, and there is no matrix of one column."""
    text = page(View(of_one()))
    assert text.index('id="sheet"') < text.index('class="chapter"')
    assert 'id="grid"' not in text
    assert text.index('id="overview"') < text.index('class="chapter"')


def test_the_page_asks_for_nothing():
    """No element of the page names another file or address, and its policy allows none."""
    text = page(View(record()))
    elements = Elements(text).found
    policy = next(a["content"] for t, a in elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    linked = {
        a[name] for _, a in elements for name in ("src", "href", "srcset", "poster", "data", "action") if a.get(name)
    }
    assert {link for link in linked if link and not link.startswith(("#", "?", "data:"))} == set()
    assert re.findall(r"url\((?!#|\"?data:)[^)]*\)|@import", text) == []


def test_the_script_is_the_one_that_the_policy_names():
    """A script that the page did not bring cannot run: the policy holds the digest of its own."""
    import base64
    import hashlib

    text = page(View(hostile()))
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text


def test_a_foreign_string_is_no_element():
    """Markup, script and control characters in a record make no element, no attribute, and no control character."""
    ours, theirs = Elements(page(View(record()))), Elements(page(View(hostile())))
    assert {tag for tag, _ in theirs.found} <= {tag for tag, _ in ours.found}
    assert not any(name.startswith("on") for _, attributes in theirs.found for name in attributes)
    assert "\x1b" not in page(View(hostile()))
    assert "{{ 7 * 7 }}" in theirs.text


def test_the_embedded_record_is_json_that_ends_no_script():
    """What the script reads comes back as it went in."""
    text = page(View(hostile()))
    embedded = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert embedded is not None
    assert json.loads(embedded[1])["models"][0]["id"] == HOSTILE


def test_the_page_of_a_large_matrix_stays_small():
    """A hundred and fifty claims on thirty-two models, each with its pictures, are less than three megabytes."""
    made = record()
    models = [{**made["models"][number % 2], "id": f"org/model-{number}"} for number in range(32)]
    claims = [{**made["claims"][0], "id": f"specs/test_{n % 14:02}_x.py::test_claim_{n}"} for n in range(150)]
    results = [
        {**made["results"][0], "claim": claim["id"], "model": model["id"]} for claim in claims for model in models
    ]
    text = page(View({**made, "claims": claims, "models": models, "results": results, "chapters": []}))
    assert len(text.encode()) < 3_000_000


def test_control_characters_are_shown():
    """Escape becomes its picture, and what turns the direction of text a replacement."""
    assert visible("a\x1b[2J\u202eb\n") == "a␛[2J�b␊"


def test_a_cell_takes_the_weightiest_of_several_results():
    """A claim checked in two setups fails if it fails in one, and keeps what was seen in both."""
    made = record()
    again = {**made["results"][0], "verdict": "fails", "reason": "in int8", "observed": {"other": 1}}
    view = View({**made, "results": [*made["results"], again]})
    result = view.claims[0].results[SMALL]
    assert (result["verdict"], result["reason"]) == ("fails", "in int8")
    assert result["observed"].keys() == {"shape", "other"}


def test_the_model_shown_first_is_the_one_the_lesson_speaks_of():
    """A model with claims of its own comes before models that are merely among all."""
    made = record()
    made["results"] = [r for r in made["results"] if r["claim"] != SUMS or r["model"] == LARGE]
    assert View(made).models[View(made).first_model]["id"] == LARGE


def test_claims_of_one_name_in_two_chapters_have_anchors_of_their_own():
    """An anchor leads to one claim."""
    made = record()
    made["claims"].append({"id": "specs/test_05_x.py::test_it_is_fast", "statement": "So it is."})
    anchors = [claim.anchor for claim in View(made).claims]
    assert len(set(anchors)) == 5
    assert "test_05_x.test_it_is_fast" in anchors


@pytest.mark.parametrize("made", [record(), of_one(), hostile()], ids=["matrix", "release", "hostile"])
def test_the_summary_is_markdown_without_markup(made):
    """Every table row of the summary has as many cells as its head, and no foreign string is markup."""
    text = summary(View(made))
    assert "<script" not in text
    assert "<img" not in text
    assert "@all" not in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = [len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()]
        assert len(set(rows)) == 1, table
    assert "- [ ]" not in text


def test_the_summary_tells_what_fails():
    """A failure stands in the summary with its model and its reason."""
    text = summary(View(record()))
    assert "| Every later token gets a weight of zero. | org/large | 3 weights |" in text
    assert "4 claims on 3 models: 6 hold, 1 depart as declared, **1 fail**; 3 not run, 1 do not apply." in text


def test_markdown_is_escaped():
    """Signs that Markdown reads are shown as they are."""
    assert markdown("a|b*c_d<e>@f") == r"a\|b\*c\_d&lt;e&gt;&#64;f"


@pytest.mark.parametrize(
    ("made", "message", "color"),
    [
        (record(), "1 fail, 6 hold", "red"),
        (of_one(SMALL), "3 hold", "brightgreen"),
        (of_one(ENCODER), "2 hold", "brightgreen"),
        ({**record(), "results": []}, "nothing ran", "lightgrey"),
    ],
    ids=["fails", "holds", "encoder", "nothing"],
)
def test_the_badge_says_what_holds(made, message, color):
    """The badge's SVG and its JSON say the same."""
    endpoint = endpoint_of(View(made))
    assert (endpoint["schemaVersion"], endpoint["message"], endpoint["color"]) == (1, message, color)
    drawn = ET.fromstring(badge(View(made)))
    assert message in "".join(drawn.itertext())


def test_an_unfinished_run_is_no_green_badge():
    """A run that was stopped says so on the page, in the summary and in the badge's colour."""
    made = of_one(SMALL)
    made["suite"]["complete"] = False
    assert endpoint_of(View(made))["color"] == "yellow"
    assert "stopped early" in page(View(made))
    assert "not complete" in summary(View(made))


# ---- several records, and the command


def test_shards_become_one(tmp_path):
    """Two runs of half the models each make the page of both."""
    write([of_one(SMALL), of_one(LARGE)], tmp_path)
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert SMALL in text
    assert LARGE in text
    assert 'id="trends"' not in text
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


def test_what_a_second_machine_could_run_counts():
    """A claim that one machine did not run and another did, holds."""
    from fixtures.report.page.merge import merged

    here, there = record(), record()
    there["results"] = [{**r, "verdict": "holds"} if r["claim"] == FAST else r for r in there["results"]]
    for documents in ([here, there], [there, here]):
        view = View(merged(documents))
        assert view.claims[3].counts == {"holds": 3}
        assert len(view.claims) == 4


def test_versions_are_compared():
    """Of records of two versions the page is that of the newer, with what changed."""
    from fixtures.report.page.merge import merged, trend

    older, newer = record(transformers="5.9.0"), record(transformers="5.17.0")
    newer["results"] = [{**r, "verdict": "holds"} if r["verdict"] == "fails" else r for r in newer["results"]]
    assert merged([newer, older])["suite"]["versions"]["transformers"] == "5.17.0"
    between = trend([newer, older])
    assert between is not None
    assert [(c.model, c.before, c.after) for c in between.changes] == [(LARGE, "fails", "holds")]
    assert [tally["fails"] for tally in between.counts.values()] == [1, 0]
    text = page(View(merged([newer, older])), between)
    assert "From version to version" in text


def test_timings_are_drawn_where_they_ran():
    """Timed operations stand below the roofline, and the growth of their time with its power."""
    made = record()
    timed = {
        "operation": "prefill of 128 tokens", "model": SMALL, "flop_per_byte": 20.0, "flop_per_second": 4e10,
        "ceiling_flop_per_second": 1e11, "ceiling_bytes_per_second": 2e10, "share_of_roofline": 0.4,
        "setup": "sdpa-bfloat16", "seconds": 0.0321, "spread": 0.04, "tokens_per_second": 3987.5, "margin": 0.05,
    }  # fmt: skip
    grown = {
        "operation": "scores by length", "model": SMALL, "exponent": 2.1, "uncertainty": 0.03,
        "points": {"128": 0.001, "256": 0.004},
    }  # fmt: skip
    made["results"][0]["observed"] = {"prefill: numbers": timed, "scores: numbers": grown, "other": {"operation": "x"}}
    text = page(View(made))
    assert "1 timed operations; the best reaches 40% of the roofline." in text
    assert "with the power 2.10" in text
    assert "power 2.10 ± 0.03" in text
    assert ">bfloat16<" in text  # the ceiling has its name
    cells = re.findall(r"<td>([^<]*)</td>", re.search(r'<tr data-seconds="0.0321">(.*?)</tr>', text)[1])  # type: ignore[index]
    assert cells[2:7] == ["sdpa-bfloat16", "32.1 ms ± 4 %", "3,990", "40", "40 %"]
    assert cells[7] == "105 %"
    assert 'id="timings"' not in page(View(record()))


def test_variants_of_a_claim_keep_their_evidence():
    """A claim that was checked twice on a model has the numbers of both, each with the name of its variant."""
    made = record()
    first = made["results"][0]
    second = {**first, "variant": "length 512", "observed": {"shape": [1, 512]}}
    first["variant"] = "length 10"
    made["results"].insert(1, second)
    claim = View(made).claims[0]
    result = claim.results[SMALL]
    assert result["observed"] == {"shape (length 10)": [1, 10], "shape (length 512)": [1, 512]}
    assert result["expected"] == {"shape": {"batch": 1, "seq": 10}}


def test_the_command_builds_the_page_again(tmp_path, capsys):
    """A report.json, or the directory that it is in, is all that a page needs."""
    (tmp_path / "report.json").write_text(json.dumps(record()), encoding="utf-8")
    assert main([str(tmp_path), "--out", str(tmp_path / "again")]) == 0
    assert main([str(tmp_path / "report.json"), "--out", str(tmp_path / "once_more")]) == 0
    first, second = ((tmp_path / name / "index.html").read_bytes() for name in ("again", "once_more"))
    assert first == second
    assert capsys.readouterr().out.splitlines()[0] == str(tmp_path / "again/index.html")


def test_a_killed_run_has_a_page(tmp_path):
    """What a run's journal kept before it was killed makes a page that says that it is not all."""
    made = record()
    selected = {"claims": made["claims"], "models": [SMALL, LARGE, ENCODER], "items": 12}
    kept = [["suite", {**made["suite"], "complete": False}], ["catalogue", selected], ["result", made["results"][0]]]
    (tmp_path / "journal.jsonl").write_text("\n".join(map(json.dumps, kept)) + '\n["result", {"cl', encoding="utf-8")
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert "stopped early" in (tmp_path / "out/index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "expected a report.json, found none: expected a file that can be read, found none"),
        ("{", "expected a report.json, found none: expected JSON, found something else"),
        ("[]", 'at $: expected type "object", found []'),
        ('{"schema": 2}', "at $: 'suite' is a required property"),
        (json.dumps({**record(), "schema": 2}), "at $.schema: expected const 1, found 2"),
        (
            json.dumps({**record(), "models": []}),
            "at $.results[0].model: expected one of its models, found 'org/small'",
        ),
    ],
    ids=["missing", "broken", "list", "empty", "newer", "unknown model"],
)
def test_a_record_that_is_none_is_refused_in_a_sentence(tmp_path, capsys, text, sentence):
    """The command says what it expected, what it found and where, and writes nothing."""
    file = tmp_path / "report.json"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        main([str(file), "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert f"error: {file}: {sentence}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_out_that_is_a_file_is_refused_in_a_sentence(tmp_path, capsys):
    """The command says that nothing can be written there."""
    (tmp_path / "report.json").write_text(json.dumps(record()), encoding="utf-8")
    (tmp_path / "out").write_text("mine")
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path), "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert "nothing can be written there" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"


def test_the_command_needs_no_torch(tmp_path):
    """A page is built from the record alone: neither torch nor transformers is loaded for it."""
    (tmp_path / "report.json").write_text(json.dumps(record()), encoding="utf-8")
    code = (
        "import sys; from fixtures.report.page.__main__ import main; main(sys.argv[1:]);"
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path), "--out", str(tmp_path / "out")]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"

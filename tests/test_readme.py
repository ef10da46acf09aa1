"""The README says what is there: its tables are made from the specs."""

import ast
import re
from pathlib import Path

import pytest
import transformers
import yaml

from fixtures.models.model_class import model_types
from fixtures.published.entries_file import claim_names, load
from tests.support.tables import WRITE

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(<!-- (\w+): [^>]*-->\n)(.*?)(<!-- end -->)", re.DOTALL)


def chapters() -> str:
    """The table of chapters: file, what the chapter teaches, how many claims it makes."""
    claims = claim_names(ROOT / "specs").values()
    rows = ["| chapter | teaches | claims |", "|---|---|---|"]
    for file in sorted((ROOT / "specs").glob("test_*.py")):
        first = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").splitlines()[0]
        title, _, lesson = first.partition(": ")
        count = sum(claim.startswith(f"specs/{file.name}::") for claim in claims)
        rows.append(f"| [{title}](specs/{file.name}) | {lesson.strip()} | {count} |")
    return "\n".join(rows) + "\n"


def models() -> str:
    """The table of families: which models of the matrix belong to each."""
    entries = load(ROOT / "models.yaml").entries.values()
    rows = ["| family | models |", "|---|---|"]
    for family in dict.fromkeys(entry.family for entry in entries):
        rows.append(f"| {family} | {', '.join(entry.id for entry in entries if entry.family == family)} |")
    return "\n".join(rows) + "\n"


TYPES, LISTED_FOR = 246, "5.23"  # text model types, and the transformers that has so many


def architectures() -> str:
    """How many model types are understood without an entry, and a table of the others; a sweep keeps it true."""
    types = yaml.safe_load((ROOT / "fixtures/models/model_types.yaml").read_text(encoding="utf-8"))
    known = {name: about for name, about in types.items() if about and "since" not in about}
    found = {name: about.get("cannot") or _in_words(about.get("unread")) for name, about in known.items()}
    others = [f"| {name} | {why} |" for name, why in sorted(found.items()) if why]
    counted = f"{TYPES - len(others)} of {TYPES} are understood (transformers {LISTED_FOR}). Not these:"
    return "\n".join([counted, "", "| model type | why not yet |", "|---|---|", *others]) + "\n"


def _in_words(unread: str | dict[str, str] | None) -> str:
    """Why a model type is not read; where that is single claims or facts, these with it."""
    if not isinstance(unread, dict):
        return unread or ""
    reasons = dict.fromkeys(unread.values())
    return " ".join(f"{why} ({', '.join(claim for claim in unread if unread[claim] == why)})" for why in reasons)


@pytest.mark.skipif(not transformers.__version__.startswith(f"{LISTED_FOR}."), reason="Another version has others.")
def test_there_are_as_many_model_types():
    assert len(model_types()) == TYPES


def test_the_readmes_tables_are_those_of_the_specs():
    """Every generated table in the README is what would be generated now."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    makers = {"chapters": chapters, "models": models, "architectures": architectures}
    if WRITE:
        text = BLOCK.sub(lambda block: block[1] + makers[block[2]]() + block[4], text)
        (ROOT / "README.md").write_text(text, encoding="utf-8")
    found = {name: body for _, name, body, _ in BLOCK.findall(text)}
    assert set(found) == set(makers)
    for name, make in makers.items():
        assert found[name] == make(), f"the table of {name} is another now: TABLES=1 pytest tests/test_readme.py"


def test_the_readmes_paths_exist():
    """Every path of the project that the README names is there."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:specs|fixtures|tests|\.ci)/[\w./-]*)`|\]\(((?:specs|fixtures)/[\w./-]+)\)", text)
    paths = {path for pair in named for path in pair if path and "ORG" not in path}
    assert paths
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []

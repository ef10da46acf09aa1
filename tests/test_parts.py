"""The page before chapter 1 names every part that a chapter asks for."""

import ast
import re
from pathlib import Path

from tests.support.tables import WRITE

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "specs/README.md"
BLOCK = re.compile(r"(<!-- parts: [^>]*-->\n)(.*?)(<!-- end -->)", re.DOTALL)


def asked_for() -> set[str]:
    """The names that claims ask for."""
    found = set()
    for file in (ROOT / "specs").glob("test_*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        claims = (
            node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        )
        found |= {argument.arg for claim in claims for argument in claim.args.args}
    return found


def parts() -> str:
    """The table of the parts: a fixture's name, the first line of its docstring, the module it stands in."""
    names = asked_for()
    rows = ["| part | what it is | where it is made |", "|---|---|---|"]
    for file in sorted((ROOT / "fixtures").rglob("*.py"), key=lambda path: (path.name != "parts.py", path)):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name in names and _is_fixture(node):
                first = (ast.get_docstring(node) or "").splitlines()[0]
                where = file.relative_to(ROOT).as_posix()
                rows.append(f"| `{node.name}` | {first} | [{where}](../{where}) |")
    return "\n".join(rows) + "\n"


def _is_fixture(node: ast.FunctionDef) -> bool:
    return any("fixture" in ast.unparse(decorator) for decorator in node.decorator_list)


def test_the_page_names_the_parts_that_claims_ask_for():
    """The table is what would be made now."""
    if WRITE:
        PAGE.write_text(BLOCK.sub(lambda block: block[1] + parts() + block[3], PAGE.read_text(encoding="utf-8")))
    found = BLOCK.search(PAGE.read_text(encoding="utf-8"))
    assert found, f"expected a table between '<!-- parts: ... -->' and '<!-- end -->' in {PAGE}"
    assert found[2] == parts(), "the table of parts is another now: TABLES=1 pytest tests/test_parts.py"


def test_the_page_tells_the_words_of_the_lesson():
    """Each word that the chapters use for a part of their own is explained before the table."""
    text = PAGE.read_text(encoding="utf-8").partition("## Where")[0]
    for word in ("skeleton", "miniature", "trace", "stream", "stack", "block", "attention", "facts", "published"):
        assert re.search(rf"^\* \*\*{word}\*\*:", text, re.MULTILINE), word

"""The house: rooms on floors, imports that run one way, and a door plate on every room."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOUSE = ROOT / "fixtures"
FLOORS = (
    "verdicts",
    "anatomy",
    "models",
    "published",
    "behaviour",
    "libraries",
    "learning",
    "claims",
    "timings",
    "report",
    "survey",
)


def _modules() -> dict[str, Path]:
    """Every module of the house by its dotted name; a room's own name stands for its `__init__`."""
    found = {}
    for path in sorted(HOUSE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _modules()


def _imported(path: Path) -> set[str]:
    """The modules of the house that a file imports, inside functions included; those for types alone left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and id(node) not in typing_only:
            found |= {name for n in node.names for name in (f"{node.module}.{n.name}", node.module) if name in MODULES}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names if name.name in MODULES}
    return found


def _floor(module: str) -> int:
    room = module.split(".")[1] if "." in module else ""
    return FLOORS.index(room) if room in FLOORS else len(FLOORS)


def test_every_folder_is_a_room_and_every_room_is_there():
    rooms = {path.parent.name for path in HOUSE.glob("*/__init__.py")}
    assert rooms == set(FLOORS)
    assert {path.name for path in HOUSE.glob("*.py")} == {"__init__.py", "command.py"}


@pytest.mark.parametrize("room", FLOORS)
def test_every_room_says_what_it_is_for(room):
    """What it is for, what may be asked of it, and what it does not know."""
    docstring = ast.get_docstring(ast.parse((HOUSE / room / "__init__.py").read_text())) or ""
    assert docstring.startswith(room.capitalize())
    assert "It may ask" in docstring or "It may be asked" in docstring or "It wires" in docstring, docstring
    assert (
        "not know" in docstring
        or "knows no" in docstring
        or "knows neither" in docstring
        or "None of them may" in docstring
    ), docstring


@pytest.mark.parametrize("module", MODULES)
def test_no_import_runs_up(module):
    up = sorted(name for name in _imported(MODULES[module]) if _floor(name) > _floor(module))
    assert not up, f"{module} is below what it imports: {', '.join(up)}; ask from above, or move it"


@pytest.mark.parametrize("module", MODULES)
def test_types_come_from_below_as_well(module):
    """An import for types alone may not run up either: who needs the type needs the room."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    named = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module in MODULES}
    assert not [name for name in named if _floor(name) > _floor(module)]


def test_no_imports_make_a_circle():
    graph = {name: _imported(path) - {name} for name, path in MODULES.items()}
    list(graphlib.TopologicalSorter(graph).static_order())  # CycleError names the circle


def test_the_wiring_is_short():
    assert len((ROOT / "conftest.py").read_text().splitlines()) <= 20

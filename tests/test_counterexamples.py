"""Every claim is seen to fail on some model, and every claim and chapter reads as the others do.

All is read with ast: nothing here imports a chapter or builds a model.
"""

import ast
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from fixtures.claims.parametrize import ROOT, read_matrix
from fixtures.published import entries_file

SPECS = ROOT / "specs"
COUNTEREXAMPLES = Path(__file__).parent / "counterexamples"
ABOUT_ONE_MODEL = ("00", "13")  # the chapters that may name models
FIGURES = {"vaswani2017.py"}  # the figures of the paper of chapter 0, by the names of its models
LONGEST = 120
INSTRUCTIONS = re.compile(r"\b(should|test(s|ed)? that|check(s|ed|ing)?|verif(y|ies|ied|ying))\b", re.IGNORECASE)
IDENTITY = {"id", "model_type", "architectures"}  # what a claim could tell one model from another by

HOW_TO = """
Write a test of a few lines in tests/counterexamples/test_NN_....py that breaks a model in just this respect:

    @pytest.mark.breaks("{claim}")
    def test_what_is_broken(fails):
        \"\"\"One sentence on what this model does wrong.\"\"\"
        fails("ORG/NAME", wound=lambda model: ...)   # a hook, a wrapped forward, a swapped parameter of the miniature

`wound_skeleton=` breaks the model at full size, `config=` changes fields of its config, `entry=` what is published.
`fails` runs the chapter and sees this claim fail and no other. A claim that nothing can break claims nothing: mend it.
"""


def chapters() -> dict[str, ast.Module]:
    """Every chapter's file name and tree."""
    found = {path.name: ast.parse(path.read_bytes()) for path in sorted(SPECS.glob("*.py"))}
    assert found, f"no chapter in {SPECS}"
    return found


def breaks_marks() -> Iterator[tuple[str, str]]:
    """Every claim that a `breaks` mark names, and where it does."""
    for path in sorted(COUNTEREXAMPLES.glob("*.py")):
        module = ast.parse(path.read_bytes())
        for claim, line in _claims_broken(module):
            yield claim, f"{path.name}:{line}"


def _claims_broken(module: ast.Module) -> Iterator[tuple[str, int]]:
    """What the `breaks` marks of a module name, as it stands there or by a constant of the module."""
    constants = _constants(module)
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "breaks":
            for argument in node.args:
                named = constants.get(argument.id) if isinstance(argument, ast.Name) else _text(argument)
                yield named or ast.unparse(argument), node.lineno


def _constants(module: ast.Module) -> dict[str, str | None]:
    """The texts that a module gives a name to, one by one or several side by side."""
    found: dict[str, str | None] = {}
    for node in module.body:
        if isinstance(node, ast.Assign):
            names, values = _side_by_side(node.targets[0]), _side_by_side(node.value)
            found |= {ast.unparse(name): _text(value) for name, value in zip(names, values, strict=False)}
    return found


def _side_by_side(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, ast.Tuple) else [node]


def _text(node: ast.AST) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def claims_of(chapter: ast.Module) -> list[ast.FunctionDef]:
    """The claims of a chapter."""
    return [n for n in ast.walk(chapter) if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]


def test_every_claim_has_a_counterexample():
    broken = {claim for claim, _ in breaks_marks()}
    missing = {name: node for name, node in entries_file.claim_names(SPECS).items() if name not in broken}
    lesson = f"{len(missing)} claims have no counterexample."
    assert not missing, _listed(lesson, missing.values()) + HOW_TO.replace("{claim}", next(iter(missing)))


def test_every_counterexample_names_claims_that_exist():
    claims = entries_file.claim_names(SPECS)
    unknown = [f"{place}: {claim}" for claim, place in breaks_marks() if claim not in claims]
    assert not unknown, _listed(
        "Rename these in breaks(...), or remove the counterexample: specs/ has no such claim.", unknown
    )


def test_every_counterexample_says_what_is_broken():
    silent = []
    for path in sorted(COUNTEREXAMPLES.glob("*.py")):
        for test in claims_of(ast.parse(path.read_bytes())):
            marked = any("breaks" in ast.unparse(mark) for mark in test.decorator_list)
            if not marked or not _is_sentence(_first_line(test)):
                silent.append(f"{path.name}:{test.lineno}: {test.name}")
    assert not silent, _listed("Give each @pytest.mark.breaks(...) and one sentence that says what is broken.", silent)


def test_every_claim_states_a_fact():
    problems = []
    for file, chapter in chapters().items():
        for claim in claims_of(chapter):
            problems += [f"{file}:{claim.lineno}: {claim.name}: {why}" for why in _faults(_first_line(claim))]
    assert not problems, _listed(
        "A claim's docstring begins with the fact it claims, a sentence in the present.", problems
    )


def test_every_chapter_has_a_number_and_a_title():
    problems, numbers = [], []
    for file, chapter in chapters().items():
        if not re.fullmatch(r"test_\d\d_[a-z0-9_]+\.py", file):
            problems.append(f"{file}: a chapter is called test_NN_its_title.py")
        numbers.append(file[5:7])
        if not re.match(r"[A-Z0-9][^:]*: \S", _first_line(chapter)):
            problems.append(f"{file}: a chapter's docstring begins with 'Title: what it teaches'")
    assert not problems, _listed("Chapters are read in the order of their numbers, by their titles.", problems)
    assert len(set(numbers)) == len(numbers), "two chapters have one number"


def test_no_chapter_knows_a_model():
    models = read_matrix(ROOT / "models.yaml").entries
    problems = []
    for file, chapter in chapters().items():
        if file[5:7] not in ABOUT_ONE_MODEL:
            problems += [f"{file}:{line}: {found}" for line, found in _models_in(chapter, list(models))]
    assert not problems, _listed("A claim is about every model that has its nouns; a departure is declared.", problems)


def test_the_machinery_knows_no_model():
    matrix = read_matrix(ROOT / "models.yaml")
    types = {
        json.loads((entries_file.CONFIGS / f"{model}.json").read_bytes())["model_type"] for model in matrix.entries
    }
    problems = []
    for path in sorted((ROOT / "fixtures").rglob("*.py")):
        if path.name not in FIGURES:
            found = _names_in(ast.parse(path.read_bytes()), list(matrix.entries), types)
            problems += [f"fixtures/{path.name}:{line}: {name}" for line, name in found]
    assert not problems, _listed("What a model needs of its own is a line of data, not a branch.", problems)


def test_these_rules_find_what_they_forbid():
    assert not list(_faults("Weights of a row sum to one, see [1, 10, 2048] for OPT-1.3b."))
    assert list(_faults("")) == ["no docstring"]
    for line in (
        "The weights should sum to one.",
        "Verify the sum.",
        "Checks the sum.",
        "Test that it is one.",
        "No stop",
    ):
        assert list(_faults(line)), line
    assert list(_faults("A" * LONGEST + "."))
    names = ["facebook/opt-1.3b", "vaswani-2017/base"]
    for code in (
        "if model.id == 'x': pass",
        "table = {}[config.model_type]",
        "expected = 10 if 'opt-1.3b' in name else 11",
        "run('facebook/opt-1.3b')",
    ):
        assert list(_models_in(ast.parse(code), names)), code
    for code in (
        "'''For OPT-1.3b.'''\nbase = 'base'",
        "why(f'{model.id} is none')",
        "@pytest.mark.lesson('opt-1.3b')\ndef f(): 1",
    ):
        assert not list(_models_in(ast.parse(code), names)), code
    assert list(_names_in(ast.parse("if config.model_type == 'gpt2': pass"), names, {"gpt2"}))
    assert not list(_names_in(ast.parse("'Not gpt2.'\nconfig.model_type in needs"), names, {"gpt2"}))
    broken = "ONE, TWO = 'test_one', 'test_two'\n@pytest.mark.breaks(TWO, 'test_three', NONE)\ndef f(): 1"
    assert [claim for claim, _ in _claims_broken(ast.parse(broken))] == ["test_two", "test_three", "NONE"]


def _listed(lesson: str, problems: Iterable[str]) -> str:
    return "\n".join([lesson, *problems, ""])


def _first_line(documented: ast.Module | ast.FunctionDef) -> str:
    return (ast.get_docstring(documented) or "").partition("\n")[0]


def _is_sentence(line: str) -> bool:
    return bool(re.match(r"[A-Z0-9\"'\[]", line)) and line.endswith(".")


def _faults(line: str) -> Iterator[str]:
    if not line:
        yield "no docstring"
        return
    if not _is_sentence(line):
        yield "the first line is no sentence with a full stop"
    if len(line) > LONGEST:
        yield f"the first line has {len(line)} characters, more than {LONGEST}"
    if instruction := INSTRUCTIONS.search(line):
        yield f"{instruction.group()!r} instructs; state what is so"


def _models_in(chapter: ast.Module, models: list[str]) -> Iterator[tuple[int, str]]:
    """Where a chapter names a model or tells models apart."""
    for node in _code(chapter):
        if isinstance(node, ast.Attribute) and node.attr in IDENTITY:
            yield node.lineno, f"looks at .{node.attr}"
    yield from _names_in(chapter, models, set())


def _names_in(module: ast.Module, models: list[str], types: set[str]) -> Iterator[tuple[int, str]]:
    """Where code names a model, or the type of one."""
    # A plain word such as "base" is a name only with its organization before it.
    names = [*models, *(name for _, _, name in (m.partition("/") for m in models) if re.search(r"\d", name))]
    for node in _code(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            named = [name for name in names if name.lower() in node.value.lower()]
            named += [node.value] if node.value in types else []
            if named:
                yield node.lineno, f"names {named[0]}"


def _code(module: ast.Module) -> Iterator[ast.AST]:
    """What is neither prose nor a quote of the lesson."""
    aside = {id(part) for node in ast.walk(module) if _is_prose(node) for part in ast.walk(node)}
    return (node for node in ast.walk(module) if id(node) not in aside)


def _is_prose(node: ast.AST) -> bool:
    """A docstring, a sentence made with f"...", or a quote of the lesson."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Attribute) and node.func.attr == "lesson"
    return isinstance(node, ast.JoinedStr)

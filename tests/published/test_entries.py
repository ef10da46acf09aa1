"""The matrix is read strictly: every mistake in models.yaml is named by its line, all at once, before anything runs."""

import ast
import json
import re
import subprocess
import sys
import textwrap
from dataclasses import fields
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from fixtures.learning import recipes
from fixtures.models.model_types import corrections
from fixtures.published import entries_file, entry, schema
from fixtures.published.about import claims_about
from fixtures.published.entries_file import EntriesError, claim_names, load
from fixtures.published.entry import departures

ROOT = Path(__file__).parents[2]
CLAIMS = {"test_rows_sum_to_one", "test_positions_are_added"}
GOOD = """\
traits:
  rotary:
    when: {positions: rotary}
    departs: {test_positions_are_added: "Nothing is added to the embeddings."}
  sink:
    departs: {test_rows_sum_to_one: "A sink takes its share."}
models:
  org/one: &one
    source: https://example.org/one
    revision: "0123456789abcdef0123456789abcdef01234567"
    family: decoder-only
    layers: 12
    d_model: 768
    heads: 12
    kv_heads: 4
    d_head: 64
    d_ff: 3072
    vocab_size: 50272
    positions: learned
    projections: separate
    norm: pre
    tied_embeddings: true
    parameters: 124439808
    sentence: {algorithm: byte-level-bpe, tokenizer_size: 50265, ids: [2, 133], pieces: [</s>, The]}
  org/two:
    <<: *one
    positions: rotary
    traits: [sink]
"""


@pytest.fixture
def problems(tmp_path):
    """Return the lines that loading a text, or GOOD with something replaced, ends with."""

    def lines(*replacements: tuple[str, str], text: str | bytes = GOOD, **options) -> list[str]:
        for old, new in replacements:
            assert isinstance(text, str)
            assert old in text
            text = text.replace(old, new, 1)
        path = tmp_path / "models.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(EntriesError) as caught:
            load(path, claims=CLAIMS, **options)
        return str(caught.value).splitlines()

    return lines


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "models.yaml"
    path.write_text(GOOD)
    return load(path, claims=CLAIMS)


def test_a_good_file_gives_its_entries_in_order_with_defaults_filled(good):
    one = good.entries["org/one"]
    assert list(good.entries) == ["org/one", "org/two"]
    assert (one.id, one.line, one.source, one.encoder_layers) == ("org/one", 8, ("https://example.org/one",), None)
    assert (one.attention_layers, one.d_embedding, one.experts, one.departs, one.traits) == (12, 768, 0, {}, ())
    assert one.sentence["ids"] == [2, 133]


def test_facts_are_what_can_be_observed(good):
    facts = good.entries["org/one"].facts
    assert facts["heads"] == 12
    assert facts["encoder_layers"] is None
    assert not {"id", "line", "source", "revision", "note", "sentence", "traits", "departs"} & set(facts)


def test_a_merge_key_brings_what_the_entry_does_not_say(good):
    two = good.entries["org/two"]
    assert (two.line, two.layers, two.positions, two.traits) == (25, 12, "rotary", ("sink",))


def test_departures_come_by_facts_by_name_and_by_the_entry(good):
    sink, rotary = "A sink takes its share.", "Nothing is added to the embeddings."
    assert departures(good.entries["org/one"], good.traits) == {}
    assert departures(good.entries["org/two"], good.traits) == {
        "test_rows_sum_to_one": sink,
        "test_positions_are_added": rotary,
    }
    assert departures({"positions": "rotary"}, good.traits) == {"test_positions_are_added": rotary}
    assert departures({"positions": "alibi"}, good.traits, named=["sink"]) == {"test_rows_sum_to_one": sink}


def test_an_entrys_own_reason_has_the_last_word(problems, tmp_path):
    own = '    traits: [sink]\n    departs: {test_rows_sum_to_one: "Its sink is learned."}'
    path = tmp_path / "own.yaml"
    path.write_text(GOOD.replace("    traits: [sink]", own))
    matrix = load(path)
    assert departures(matrix.entries["org/two"], matrix.traits)["test_rows_sum_to_one"] == "Its sink is learned."


REASON = "departs: {test_rows_sum_to_one: %s}"
SINK = '"A sink takes its share."'
BAD = {
    "unknown key": (("    d_ff: 3072", "    d_ff: 3072\n    d_fff: 1"), 18, "org/one.d_fff", "did you mean d_ff?"),
    "unknown top-level key": (("traits:", "trait: {}\ntraits:"), 1, "trait", "did you mean traits?"),
    "missing key": (("    norm: pre\n", ""), 8, "org/one.norm", "expected this key, found none; add norm: where"),
    "missing heads": (("    heads: 12\n", ""), 8, "org/one.heads", "expected this key, found none"),
    "duplicate key": (("    heads: 12", "    heads: 12\n    heads: 16"), 15, "org/one.heads", "on line 14 too"),
    "duplicate model": (("  org/two:", "  org/one:"), 25, "org/one", "expected each key once, found it on line 8"),
    "wrong type": (("    layers: 12", "    layers: twelve"), 12, "org/one.layers", "expected a whole number of"),
    "float": (("    layers: 12", "    layers: 12.0"), 12, "org/one.layers", "expected a whole number"),
    "bool as int": (("    layers: 12", "    layers: true"), 12, "org/one.layers", "found true"),
    "zero": (("    layers: 12", "    layers: 0"), 12, "org/one.layers", "of at least 1, found 0"),
    "negative": (("    d_model: 768", "    d_model: -768"), 13, "org/one.d_model", "of at least 1, found -768"),
    "nothing": (("positions: learned", "positions:"), 19, "org/one.positions", "found null"),
    "misspelt value": (("positions: learned", "positions: learnt"), 19, "org/one.positions", "did you mean learned?"),
    "joined value": (("separate", "separate+fuse"), 20, "org/one.projections", "several joined by +"),
    "revision": (("89abcdef01234567", "89abcdef"), 10, "org/one.revision", "expected 40 lower-case hexadecimal digits"),
    "size": (("    norm", "    size: 125000000\n    norm"), 21, "org/one.size", "found 125000000; put it in quotes"),
    "kv_heads": (("kv_heads: 4", "kv_heads: 5"), 15, "org/one.kv_heads", "expected a divisor of heads (12), found 5"),
    "attention_layers": (
        ("    d_model: 768", "    attention_layers: 13\n    d_model: 768"),
        *(13, "org/one.attention_layers", "expected at most layers (12), found 13"),
    ),
    "experts_active": (
        ("    norm", "    experts: 8\n    experts_active: 9\n    norm"),
        *(22, "org/one.experts_active", "1 to experts (8), found 9"),
    ),
    "encoder_layers where no encoder is": (
        ("    norm", "    encoder_layers: 6\n    norm"),
        *(21, "org/one.encoder_layers", "expected no such key"),
    ),
    "encoder_layers missing": (
        ("decoder-only", "encoder-decoder"),
        *(8, "org/one.encoder_layers", "expected this key, found none; add encoder_layers"),
    ),
    "ids and pieces": (("pieces: [</s>, The]", "pieces: [The]"), 24, "org/one.sentence.pieces", "2 ids and 1 pieces"),
    "id beyond the tokenizer": (("[2, 133]", "[2, 50265]"), 24, "org/one.sentence.ids[1]", "below tokenizer_size"),
    "id beyond the model": (("[2, 133]", "[2, 50272]"), 24, "org/one.sentence.ids[1]", "below vocab_size (50272)"),
    "one piece, two ids": (("[</s>, The]", "[The, The]"), 24, "org/one.sentence.ids[1]", "paired otherwise before"),
    "unknown trait": (("[sink]", "[snk]"), 28, "org/two.traits[0]", "found the unknown 'snk'; did you mean sink?"),
    "unknown claim": (
        ("{test_rows", "{test_row"),
        *(6, "traits.sink.departs.test_row_sum_to_one", "did you mean test_rows_sum_to_one?"),
    ),
    "unknown fact": (("{positions: rotary}", "{position: rotary}"), 3, "traits.rotary.when.position", "positions?"),
    "impossible fact": (
        ("{positions: rotary}", "{positions: [rotery]}"),
        *(3, "traits.rotary.when.positions[0]", "did you mean rotary?"),
    ),
    "trait without departures": (("    departs: {test_pos", "    note: {test_pos"), 2, "traits.rotary.departs", "add"),
    "number as name": (("  org/two:", "  2:"), 25, "2", "expected a name as key, found 2; put it in quotes"),
    "climbing name": (("  org/two:", "  ../two:"), 25, "../two", "expected ORG/NAME or NAME"),
    "tag": (("layers: 12", "layers: !!python/name:os.system 12"), 12, "org/one.layers", "remove the tag"),
} | {
    f"reason {reason}": ((REASON % SINK, REASON % reason), 6, "traits.sink.departs.test_rows_sum_to_one", "expected a")
    for reason in ('""', "xfail", "TODO", '"FIXME: find out why"', '"two words"', "null", "[]")
}  # fmt: skip


@pytest.mark.parametrize(("replacement", "line", "where", "sentence"), BAD.values(), ids=BAD)
def test_a_mistake_is_named_with_its_line_and_a_way_out(problems, replacement, line, where, sentence):
    found = problems(replacement)
    assert any(each.startswith(f"models.yaml:{line}: {where}: expected ") and sentence in each for each in found), found


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        pytest.param("", 1, "found an empty file", id="empty"),
        pytest.param("# nothing\n", 1, "found an empty file", id="comment"),
        pytest.param("- a\n- b\n", 1, "found a list", id="list"),
        pytest.param("\njust text\n", 2, "found 'just text'", id="text"),
        pytest.param("models:\n  a: {b: c\n  d: e\n", 3, "correct the syntax", id="syntax"),
        pytest.param("models:\n  a: *nowhere\n", 2, "undefined alias", id="alias"),
        pytest.param("models: {}\n---\nmodels: {}\n", 2, "single document", id="two documents"),
        pytest.param("models:\n  \x00", 2, "remove the character", id="control character"),
        pytest.param(b"models:\n  caf\xe9: {}\n", 2, "found byte 0xe9", id="encoding"),
        pytest.param("models: &m {a: *m}\n", 1, "found *m inside itself", id="recursion"),
        pytest.param("models: !!int x\n", 1, "does not fit its tag", id="ill-fitting tag"),
    ],
)
def test_what_is_no_mapping_is_refused_in_a_sentence(problems, text, line, sentence):
    found = problems(text=text)
    assert any(each.startswith(f"models.yaml:{line}: ") and sentence in each for each in found), found


def test_a_missing_file_and_a_directory_are_refused_in_a_sentence(tmp_path):
    for path in (tmp_path / "models.yaml", tmp_path):
        with pytest.raises(EntriesError, match=f"{path.name}:1: file: expected a readable file"):
            load(path)


def test_all_mistakes_come_at_once_in_the_order_of_the_file(problems):
    found = problems(("{positions: rotary}", "{}"), ("layers: 12", "layers: 0"), ("kv_heads: 4", "kv_heads: 5"))
    lines = [int(each.split(":")[1]) for each in found]
    assert set(lines) == {3, 12, 15}
    assert lines == sorted(lines)


def test_a_model_without_its_config_is_named(problems, tmp_path):
    (tmp_path / "configs" / "org").mkdir(parents=True)
    (tmp_path / "configs" / "org" / "one.json").write_text("{}")
    (only,) = problems(configs=tmp_path / "configs")
    assert only.startswith("models.yaml:25: org/two: expected its published config, found no configs/org/two.json")


def test_heads_may_be_missing_where_nothing_attends(tmp_path):
    path = tmp_path / "models.yaml"
    unheaded = re.sub(r"    (heads|kv_heads|d_head|d_ff): \d+\n", "", GOOD)
    path.write_text(unheaded.replace("    layers: 12\n", "    layers: 12\n    attention_layers: 0\n"))
    assert load(path).entries["org/one"].heads is None


def test_the_schema_on_disk_is_the_declared_one():
    """Editors read the file, entries are read by the classes: `python -m fixtures.published.schema` makes it anew."""
    assert entries_file.SCHEMA.read_text(encoding="utf-8") == schema.written()


def test_the_schema_is_a_schema_and_explains_every_key():
    made = json.loads(entries_file.SCHEMA.read_text())
    Draft202012Validator.check_schema(made)
    keys = made["$defs"]["entry"]["properties"]
    assert all("description" in key or "$ref" in key for key in keys.values())
    assert set(keys) == {field.name for field in fields(entry.Entry)} - {"id", "line"}
    assert set(made["$defs"]["when"]["properties"]) == {*entry.FACTS, *entry.derived({})}
    defaults = {name: key["default"] for name, key in keys.items() if "default" in key}
    assert defaults == {"experts": entry.Entry.experts, "experts_active": entry.Entry.experts_active}


def test_claims_are_found_without_importing_a_chapter(tmp_path):
    specs = tmp_path / "specs"
    specs.mkdir()
    (specs / "test_01_a.py").write_text("import nothing_of_this_name\ndef test_one(): ...\ndef helper(): ...\n")
    (specs / "test_02_b.py").write_text("class TestB:\n    async def test_two(self): ...\n")
    assert claim_names(specs) == {
        "test_one": "specs/test_01_a.py::test_one",
        "test_two": "specs/test_02_b.py::TestB::test_two",
    }


def test_two_claims_of_one_name_and_a_broken_chapter_are_refused(tmp_path):
    specs = tmp_path / "specs"
    specs.mkdir()
    for chapter in ("test_01_a.py", "test_02_b.py"):
        (specs / chapter).write_text("\ndef test_one(): ...\n")
    (specs / "test_03_c.py").write_text("def test_two(:\n")
    with pytest.raises(EntriesError) as caught:
        claim_names(specs)
    assert [each.split(": expected")[0] for each in caught.value.problems] == [
        "specs/test_02_b.py:2: test_one",
        "specs/test_03_c.py:1: chapter",
    ]


def test_which_models_a_claim_speaks_of_is_read_as_pytest_reads_it(tmp_path):
    (tmp_path / "test_01_a.py").write_text(
        "import pytest\n"
        "TWO = pytest.mark.about('org/two')\n"
        "pytestmark = [pytest.mark.lesson('x'), pytest.mark.about('org/one', 'org/two')]\n"
        "def test_of_the_chapter(): ...\n"
        "@pytest.mark.gpu\n@TWO\ndef test_of_one(): ...\n"
        "class TestAll:\n    @pytest.mark.about('org/three')\n    def test_inside(self): ...\n"
    )
    (tmp_path / "test_02_b.py").write_text("def test_of_all(): ...\n")
    assert claims_about(tmp_path) == {
        "test_of_the_chapter": ("org/one", "org/two"),
        "test_of_one": ("org/two",),
        "test_inside": ("org/three",),
    }
    named = {model for models in claims_about(ROOT / "specs").values() for model in models}
    assert named <= load(ROOT / "models.yaml").entries.keys() | recipes.ALL.keys()  # some are trained in the run


def test_a_departure_from_a_claim_about_others_is_refused(tmp_path):
    path = tmp_path / "models.yaml"
    own = '    traits: [sink]\n    departs: {test_rows_sum_to_one: "Its sink is learned."}'
    path.write_text(GOOD.replace("    traits: [sink]", own))
    claim, model = next((claim, one.id) for one in load(path).entries.values() for claim in one.departs)
    assert load(path, about={claim: (model,)})
    with pytest.raises(EntriesError) as caught:
        load(path, about={claim: ("org/other",)})
    (problem,) = caught.value.problems
    assert f"{model}.departs.{claim}: expected a claim about this model, found one that speaks of org/other" in problem


def _observed_traits(module: str) -> set[str]:
    """The names that a module of observers gives: keys of mappings, and sets that are returned."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Dict):
            names |= {key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
        elif isinstance(node, ast.Return):
            ways = [node.value.body, node.value.orelse] if isinstance(node.value, ast.IfExp) else [node.value]
            names |= {ast.literal_eval(item) for way in ways if isinstance(way, ast.Set) for item in way.elts}
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value) == "observed":
            names.add(ast.literal_eval(node.slice))
    return names


def test_what_is_observed_is_declared_and_what_is_declared_can_be_had():
    """A trait has two halves, its observer and its departures: a name that only one of them has would say nothing."""
    matrix = load(ROOT / "models.yaml")
    observed = _observed_traits("fixtures/behaviour/traits.py") | _observed_traits("fixtures/libraries/traits.py")
    assert observed - matrix.traits.keys() == set()
    named = {name for one in matrix.entries.values() for name in one.traits}
    assert {name for name, trait in matrix.traits.items() if not trait.when} - observed - named == set()


def test_what_model_types_depart_from_are_claims():
    claims = claim_names(ROOT / "specs")
    named = {claim for about in corrections().values() for claim in about.get("departs", {})}
    assert named
    assert named - claims.keys() == set()


def test_importing_entries_imports_nothing_heavy():
    heavy = "{'jsonschema', 'torch', 'transformers'}"
    code = f"import sys, fixtures.published.entries_file; print(*{heavy} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True)
    assert (ran.stdout.strip(), ran.stderr) == ("", "")


@pytest.mark.skipif(not (ROOT / "models.yaml").exists(), reason="This checkout has no models.yaml yet.")
def test_the_matrix_of_this_repository_is_valid():
    assert load(ROOT / "models.yaml", claims=claim_names(ROOT / "specs"), configs=entries_file.CONFIGS).entries

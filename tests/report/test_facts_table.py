"""The models in numbers: a row a model, of the facts and of what was gathered for its pictures."""

from fixtures.report.page import facts_table

MODEL = {
    "id": "org/one",
    "facts": {"family": "decoder-only", "layers": 2, "parameters": 1000, "norm": "pre", "experts": 0},
    "pictures": {
        "settings": {"context": 2048, "norm_kind": "RMSNorm", "activation": "SiLU"},
        "memory": {"weights": {"16 bits": 2_000_000_000, "4 bits": 612_345_678}, "cache": 0, "source": 0, "active": 9},
    },
}


def column(table, heading):
    place = [name for name, _ in table["columns"]].index(heading)
    return [row[place] for row in table["rows"]]


def test_a_row_has_the_facts_and_what_was_gathered():
    table = facts_table.table([MODEL])
    expected = {"layers": 2, "context": 2048, "norm": "pre RMSNorm", "16 bits": 2.0, "4 bits": 0.6123, "active": 9}
    assert {heading: column(table, heading)[0] for heading in expected} == expected


def test_what_no_model_has_is_no_column_and_what_one_has_not_is_empty():
    table = facts_table.table([MODEL, {"id": "org/two", "facts": {"heads": 4}}])
    headings = [name for name, _ in table["columns"]]
    assert {"experts", "cache", "8 bits"}.isdisjoint(headings)
    assert column(table, "heads") == [None, 4]
    assert column(table, "layers") == [2, None]


def test_a_picture_that_could_not_be_had_gives_no_numbers():
    broken = {**MODEL, "pictures": {"settings": {"trouble": "no"}, "memory": {"trouble": "no"}}}
    assert "context" not in facts_table.known(broken)
    assert "bytes_4_bit" not in facts_table.known(broken)


def test_the_sheet_is_the_terminals():
    rows = dict(facts_table.rows(MODEL))
    assert rows["norm"] == "RMSNorm, pre, before a sublayer"
    assert rows["context"] == "2,048 tokens, as the config has it"
    assert rows["weights"] == "2 GB in bfloat16, 612.3 MB in 4-bit"
    assert rows["fits"] == "a card of 8 GB in 16 and 4 bits"


def test_facts_that_are_none_of_ours_stand_as_they_are():
    assert facts_table.rows({"id": "x", "facts": {"layers": "many"}}) == [("layers", "many")]

"""docs/mutations.md says which claims see which mutation of the library's code; what survives is equivalent."""

import pytest

from tests.support.mutations import ENTRY, MUTATIONS, TABLE, claims_that_fail, rows, summary, survey, written

pytestmark = pytest.mark.slow

EVERY = [(name, on) for name, mutation in MUTATIONS.items() for on in mutation.on]
SAMPLE = [("scale", "opt"), ("rotary base", "qwen3")]


def test_the_table_has_every_mutation_and_is_as_it_is_made():
    assert [*rows()] == EVERY
    assert TABLE.read_text(encoding="utf-8") == written(rows())


def test_what_survives_is_equivalent():
    """A mutation that no claim sees has a sentence that says why nothing could."""
    survivors = {name for (name, _), failing in rows().items() if failing == "**none**"}
    assert not {name for name in survivors if not MUTATIONS[name].equivalent}


@pytest.mark.parametrize(("name", "on"), SAMPLE)
def test_a_mutation_is_seen_as_the_table_says(name, on):
    assert summary(survey(name, on)) == rows()[name, on]


def test_a_mutated_model_of_the_matrix_fails():
    """With its entry, too."""
    assert claims_that_fail(survey("scale", "opt", ENTRY))


@pytest.mark.registry
@pytest.mark.parametrize(("name", "on"), EVERY)
def test_every_mutation_is_seen_as_the_table_says(name, on):
    """All of them, which takes minutes."""
    assert summary(survey(name, on)) == rows()[name, on]

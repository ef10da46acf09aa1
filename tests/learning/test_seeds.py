"""What is claimed of models trained in a run holds for any seed: on another processor the numbers are others."""

import dataclasses

import pytest

from fixtures.claims.trained_models import Pupil
from fixtures.learning import recipes
from tests.support.ward import examine


@pytest.mark.seeds
@pytest.mark.parametrize("seed", range(1, 11))
@pytest.mark.parametrize("name", recipes.ALL)
def test_every_claim_holds_with_another_seed(name, seed, record_property):
    """All claims of the chapter on one model, trained anew; what each compared stands in the test's properties."""
    found = examine(Pupil(dataclasses.replace(recipes.ALL[name], seed=seed)), chapter="11", marks="not weights")
    assert found, f"no claim is about {name}"
    for claim, result in found.items():
        record_property(
            claim, {what: value for what, value in result["observed"].items() if not isinstance(value, dict)}
        )
    assert not {claim: result["reason"] for claim, result in found.items() if result["verdict"] != "holds"}

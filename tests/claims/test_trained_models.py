"""Models that are trained in the run are models under test: named in claims, with facts, and by their own name."""

import re

import pytest

from fixtures.claims.model_under_test import Subject
from fixtures.claims.parametrize import ROOT, Bench
from fixtures.claims.trained_models import Pupil, kept_in
from fixtures.learning import recipes
from tests.support.ward import examine, healthy, matrix

CHAPTER = ROOT / "specs/test_11_learning.py"
SHORT = recipes.LOOK_BACK.varied(steps=2)


def test_every_name_in_the_chapter_is_a_recipes_and_every_recipe_is_named():
    assert set(re.findall(r'"(trained/[\w-]+)"', CHAPTER.read_text(encoding="utf-8"))) == set(recipes.ALL)
    assert all(name == recipe.name for name, recipe in recipes.ALL.items())


def test_a_trained_model_is_under_test_as_others_are(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "ALL", {SHORT.name: SHORT})
    bench = Bench({}, matrix().traits, pupils=True)
    bench.kept_in = tmp_path
    pupil = bench.subject(SHORT.name)
    assert isinstance(pupil, Pupil)
    assert bench.facts(SHORT.name) == ("trained", {})  # nothing is trained for its facts alone
    assert pupil.trained.after.accuracy() < 0.5
    facts = pupil.known_facts or {}
    assert facts.items() >= {"family": "decoder-only", "layers": 1, "heads": 2, "d_model": 32, "vocab_size": 16}.items()
    assert list(tmp_path.iterdir())


def test_where_a_release_is_named_nothing_is_trained():
    assert Bench({}, matrix().traits).trained == {}
    assert isinstance(Bench({"one": healthy("facebook/opt-125m").release}, {}).subject("one"), Subject)


def test_its_results_are_those_of_the_claims_that_name_it():
    found = examine(Pupil(SHORT), chapter="11", claims="prefix or guessed")
    assert {claim: result["verdict"] for claim, result in found.items()} == {
        "test_training_answers_what_was_guessed": "fails",
        "test_one_pass_gives_the_loss_of_every_prefix": "holds",
    }
    assert all(result["model"] == SHORT.name for result in found.values())
    assert set(found["test_training_answers_what_was_guessed"]["observed"]["loss over the steps"]) == {"step", "loss"}


def test_without_pytests_cache_nothing_is_kept(pytester: pytest.Pytester):
    assert kept_in(pytester.parseconfigure("-p", "no:cacheprovider")) is None
    here = kept_in(pytester.parseconfigure())
    assert here is not None
    assert here.is_relative_to(pytester.path)

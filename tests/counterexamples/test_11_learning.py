"""Counterexamples of chapter 11: models that learn something else than they are said to, or nothing."""

import dataclasses
from functools import cached_property

import pytest
import torch

from fixtures.claims.trained_models import Pupil
from fixtures.learning import recipes
from fixtures.learning.training import Model, Trained, train
from tests.support.ward import examine
from tests.support.wounds import attend_with, see

pytestmark = pytest.mark.slow

ANSWERS, WEIGHT = "test_training_answers_what_was_guessed", "test_the_relevant_token_comes_to_get_the_weight"
LOST = "test_without_the_heads_that_look_there_the_answer_is_lost"
SCORES = "test_what_is_learned_is_the_scores"
OWN, PART = "test_each_head_comes_to_look_at_its_own", "test_a_silenced_head_loses_its_part_of_the_answer_alone"
ONE_HEAD, DIFFERENT = "test_one_head_does_not_do_both", "test_heads_come_to_attend_to_different_things"
TWO_LAYERS, ONE_LAYER = "test_recall_is_the_work_of_two_layers", "test_one_layer_does_not_recall"
ORDER, NO_ORDER = "test_order_is_learned_from_positions", "test_without_positions_order_is_not_learned"
CONTENT = "test_without_positions_content_is_learned"
BOTH, LEFT = "test_an_encoder_learns_from_both_sides", "test_made_causal_it_learns_from_the_left_alone"
CROSS = "test_cross_attention_learns_which_source_word_to_look_at"
ALIKE = "test_words_that_may_stand_for_each_other_get_like_vectors"
UNLIKE = "test_where_any_word_may_follow_any_no_vectors_come_close"
PREFIXES, REACHED = "test_one_pass_gives_the_loss_of_every_prefix", "test_a_loss_reaches_every_token_before_it"


class Truant(Pupil):
    """A model trained by another recipe than its own, or wounded before it learned or after."""

    def __init__(self, recipe, *, wound=None, later=None, knew=False):
        super().__init__(recipe)
        self._wound, self._later, self._knew = wound, later, knew

    @cached_property
    def trained(self):
        """The model, wounded."""
        made = train(self.recipe, self._wound)
        if self._later is not None:
            self._later(made.after.model)
            made = dataclasses.replace(made, after=Model(made.after.model, self.recipe))
        return Trained(made.recipe, made.after, made.after, made.course) if self._knew else made


@pytest.fixture
def fails(request):
    """Train a model otherwise and see the claims of the `breaks` mark fail, and no others of the chapter."""

    def check(name, *, why="", wound=None, later=None, knew=False, **changes):
        claims = request.node.get_closest_marker("breaks").args
        patient = Truant(recipes.ALL[name].varied(**changes), wound=wound, later=later, knew=knew)
        found = examine(patient, chapter="11")
        failed = {claim: result["reason"] for claim, result in found.items() if result["verdict"] == "fails"}
        assert set(failed) == set(claims), failed
        assert any(why in reason for reason in failed.values()), failed

    return check


# ---- the relevant token


@pytest.mark.breaks(ANSWERS, WEIGHT, LOST, ORDER)
@pytest.mark.parametrize("change", [{"steps": 1}, {"shuffled": True}, {"frozen": True}, {"positions": False}], ids=str)
def test_a_model_that_cannot_learn_to_look_back(fails, change):
    """It is hardly trained; or its answers are dealt out by chance; or its scores, or its positions, are taken away."""
    fails("trained/look-back", why="accuracy after: expected 0.9", **change)


@pytest.mark.breaks(ANSWERS, WEIGHT)
def test_a_model_that_knew_it_before(fails):
    """What is shown as the model before training is the trained one."""
    fails("trained/look-back", knew=True, why="accuracy before: expected 0.25, observed 1.0")


@pytest.mark.breaks(LOST, ORDER)
def test_a_model_that_has_its_answers_from_elsewhere(fails):
    """Its heads look at the relevant token, and the answers are handed in beside them."""

    def hand_in(model):
        def hook(module, args, kwargs, output):
            right = kwargs["input_ids"].roll(3, dims=1)
            output.logits = output.logits + 100 * torch.nn.functional.one_hot(right, output.logits.shape[-1])
            return output

        model.register_forward_hook(hook, with_kwargs=True)

    fails("trained/look-back", later=hand_in, why="without")


@pytest.mark.breaks(SCORES)
def test_scores_that_learn_all_the_same(fails):
    """What is said to be frozen is trained as all the rest."""
    fails("trained/look-back-with-queries-and-keys-frozen", frozen=False, why="accuracy: observed 1.0")


# ---- heads and layers


@pytest.mark.breaks(ANSWERS, WEIGHT, LOST, OWN, PART, DIFFERENT)
def test_one_head_for_two_needs(fails):
    """Where an answer takes two tokens there is one head to look."""
    fails("trained/two-needs", heads=1, why="heads that do it: expected 2, observed 1")


@pytest.mark.breaks(ANSWERS, WEIGHT, LOST, OWN, PART, DIFFERENT)
def test_two_heads_with_the_same_queries_and_keys(fails):
    """The second head attends as the first one does; its values are its own."""

    def copied(query, key, value):
        return *(tensor[:, :1].expand_as(tensor) for tensor in (query, key)), value

    fails(
        "trained/two-needs",
        later=lambda model: attend_with(model, operands=copied),
        why="weight that two heads lay elsewhere, after: expected 0.4, observed 0.0",
    )


@pytest.mark.breaks(ONE_HEAD)
def test_two_heads_where_one_is_claimed(fails):
    """The model that is said to have one head has two."""
    fails("trained/two-needs-with-one-head", heads=2, why="right in the other")


@pytest.mark.breaks(ANSWERS, WEIGHT, LOST, TWO_LAYERS)
def test_recall_in_one_layer(fails):
    """The model that is to recall has one layer."""
    fails("trained/recall", layers=1, why="layers in which they look: expected [0, 1], observed [0, 0]")


@pytest.mark.breaks(ONE_LAYER)
def test_two_layers_where_one_is_claimed(fails):
    """The model that is said to have one layer has two."""
    fails("trained/recall-in-one-layer", layers=2)


# ---- positions


@pytest.mark.breaks(NO_ORDER)
def test_positions_where_none_are_claimed(fails):
    """The model that is said to have no positions has them."""
    fails("trained/look-back-without-positions", positions=True, why="positions: expected 'none', observed 'learned'")


@pytest.mark.breaks(CONTENT)
@pytest.mark.parametrize("change", [{"positions": True}, {"shuffled": True}], ids=str)
def test_order_that_is_learned_or_content_that_is_not(fails, change):
    """The model that is said to have no positions has them; or its answers are dealt out by chance."""
    fails("trained/two-needs-without-positions", why="decides", **change)


# ---- families


@pytest.mark.breaks(ANSWERS, WEIGHT, BOTH)
def test_an_encoder_that_is_causal(fails):
    """The encoder sees what comes before alone: where the twin comes later, it guesses."""

    def causal(model):
        see(model, "*.attention.self", lambda query, key: key <= query)

    fails("trained/twins", wound=causal, why="decoder-only")


@pytest.mark.breaks(LEFT)
def test_a_causal_model_that_sees_both_sides(fails):
    """What is said to be made causal is the encoder."""
    recipe = recipes.ALL["trained/twins"]
    fails("trained/twins-made-causal", architecture=recipe.architecture, config=recipe.config, why="encoder-only")


@pytest.mark.breaks(ANSWERS, WEIGHT, LOST, CROSS)
def test_cross_attention_that_is_frozen(fails):
    """The queries and keys of source and target stay as they were."""
    fails("trained/reversal", frozen=True)


# ---- vectors of words


@pytest.mark.breaks(ALIKE)
def test_words_that_do_not_stand_for_each_other(fails):
    """In the texts that are trained on any word may follow any other."""
    fails("trained/kinds", options={"cycle": False}, why="lowest cosine within a kind")


@pytest.mark.breaks(UNLIKE)
def test_words_that_come_in_order_all_the_same(fails):
    """In the texts of which no order is claimed kinds follow one another."""
    fails("trained/kinds-in-no-order", options={})


# ---- training is parallel


@pytest.mark.breaks(PREFIXES, REACHED)
def test_a_model_that_looks_ahead(fails):
    """Every token sees the whole text."""
    fails("trained/look-back", wound=lambda model: see(model, "*.self_attn", lambda query, key: key >= 0))


@pytest.mark.breaks(ANSWERS, WEIGHT, LOST, ORDER, REACHED)
def test_a_model_that_sees_two_tokens(fails):
    """A token sees itself and the one before it, and so never the first of a text."""

    def near(query, key):
        return (key <= query) & (key > query - 2)

    fails("trained/look-back", wound=lambda model: see(model, "*.self_attn", near))

"""The tasks mean what they say: the relevant token decides the answer, and nothing of it stands at the place itself."""

import pytest
import torch

from fixtures.learning import recipes, tasks, training
from fixtures.learning.tasks import DIGITS, NAMES, NONE, OF_A_KIND, PROPERTIES, SPECIAL


def drawn(task, **options):
    return tasks.TASKS[task](torch.Generator().manual_seed(0), 64, **options)


def at(texts, need):
    return texts.ids.gather(1, texts.relevant[need].clamp_min(0))


@pytest.mark.parametrize("name", recipes.ALL)
def test_an_answer_and_its_relevant_tokens_stand_in_the_text(name):
    texts = training.draw(recipes.ALL[name], torch.Generator().manual_seed(0), 64)
    text = texts.ids if texts.target is None else texts.target
    assert texts.answers.shape == text.shape
    assert texts.asked.any(dim=1).all()
    assert int(texts.ids.max()) < recipes.ALL[name].config["vocab_size"]
    assert int(texts.answers.max()) < recipes.ALL[name].config["vocab_size"]
    for places in texts.relevant.values():
        assert int(places.max()) < text.shape[1]
        assert ((places == NONE) | (places >= 0)).all()


@pytest.mark.parametrize("back", [1, 3])
def test_the_word_before(back):
    texts = drawn("words", back=back)
    assert texts.answers[:, back:].equal(texts.ids[:, :-back])
    assert not texts.asked[:, :back].any()


def test_recall_answers_what_followed_the_same_word():
    texts = drawn("recall")
    found, places = at(texts, "what followed"), texts.relevant["what followed"]
    assert found[texts.asked].equal(texts.answers[texts.asked])
    key_before = texts.ids.gather(1, (places - 1).clamp_min(0))
    assert key_before[texts.asked].equal(texts.ids[texts.asked])
    assert texts.asked.sum(dim=1).tolist() == [tasks.PAIRS] * 64


def test_a_twin_has_the_same_name_and_the_property_that_is_hidden():
    texts = drawn("twins")
    assert at(texts, "the twin")[texts.asked].equal(texts.answers[texts.asked])
    hidden = texts.ids[texts.asked]
    assert (hidden >= NAMES * PROPERTIES).all()
    assert (hidden - NAMES * PROPERTIES).equal(texts.answers[texts.asked] // PROPERTIES)
    assert (texts.ids < NAMES * PROPERTIES).equal(~texts.asked)


def test_the_target_is_the_source_backwards_one_place_later():
    texts = drawn("reversal")
    assert texts.answers.equal(texts.ids.flip(1))
    assert texts.target[:, 1:].equal(texts.answers[:, :-1])
    assert int(texts.ids.min()) >= SPECIAL
    assert at(texts, "the source word").equal(texts.answers)


def test_two_needs_take_the_letter_of_the_one_and_the_digit_of_the_other():
    texts = drawn("two needs")
    previous, twin = (at(texts, need)[texts.asked] for need in ("the previous word", "the twin"))
    answers = texts.answers[texts.asked]
    assert (answers // DIGITS).equal(previous // DIGITS)
    assert (answers % DIGITS).equal(twin % DIGITS)
    assert (twin // DIGITS).equal(texts.ids[texts.asked] // DIGITS)


def test_kinds_follow_one_another_or_do_not():
    kind = drawn("kinds").ids // OF_A_KIND
    assert ((kind[:, 1:] - kind[:, :-1]) % tasks.KINDS == 1).all()
    kind = drawn("kinds", cycle=False).ids // OF_A_KIND
    assert ((kind[:, 1:] - kind[:, :-1]) % tasks.KINDS != 1).any()


def test_training_gives_the_same_numbers_again_and_leaves_torch_as_it_was():
    recipe = recipes.LOOK_BACK.varied(steps=3)
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    one, other = training.train(recipe), training.train(recipe)
    assert one.course == other.course
    assert torch.get_num_threads() == threads
    assert torch.random.get_rng_state().equal(state)


def test_what_is_frozen_stays_and_the_rest_learns():
    made = training.train(recipes.LOOK_BACK.varied(steps=2, frozen=True))
    after = dict(made.after.model.named_parameters())
    kept = {name for name, value in made.before.model.named_parameters() if value.equal(after[name])}
    assert {name for name in kept if "_proj" in name} == {
        f"model.decoder.layers.0.self_attn.{one}_proj.{kind}" for one in "qk" for kind in ("weight", "bias")
    }

"""Learning: nobody writes down what attends to what; training finds it.

Small models of the library's own classes are trained here in seconds, on texts made by chance, in which it is known on
which token an answer depends. Before training, attention is spread evenly; after it, heads look at what is relevant.
Such a head is found by where it looks, and then silenced: what it was for is lost, and nothing else.
"""

import pytest

from fixtures.behaviour.interventions import without_positions
from fixtures.learning import drawing, heads, looking, outliers, tagged
from fixtures.learning.heads import best_at, looking_at, silent
from fixtures.learning.language import cosines, gradient_by_place, losses_of_prefixes, written_greedily
from fixtures.learning.preferences import preferences
from fixtures.learning.tasks import PARTS
from fixtures.verdicts.evidence import close, holds, keep, same

pytestmark = [pytest.mark.lesson("Multi-Head Attention: throughout the training process"), pytest.mark.learning]

ORDER = pytest.mark.about(
    "trained/look-back",
    "trained/look-back-sinusoidal",
    "trained/look-back-rotary",
    "trained/look-back-relative",
    "trained/look-back-alibi",
)
RELEVANT = pytest.mark.about(
    "trained/look-back",
    "trained/look-back-sinusoidal",
    "trained/look-back-rotary",
    "trained/look-back-relative",
    "trained/recall",
    "trained/two-needs",
    "trained/twins",
    "trained/reversal",
)
LEARNED = pytest.mark.about(
    "trained/look-back",
    "trained/look-back-sinusoidal",
    "trained/look-back-rotary",
    "trained/look-back-relative",
    "trained/look-back-alibi",
    "trained/recall",
    "trained/two-needs",
    "trained/twins",
    "trained/reversal",
)
LOOKED_AT = 0.3  # of a token's weight on one kind of token, where an even spread gives at most a twenty-fourth
PREFERRED = 1.3  # times the share that distance explains; MiniLM and SmolLM2 reach 1.5 to 5.3, new models at most 1.11
GUESSED = 0.25  # of the answers, at most, are right by chance
EVEN = 0.3  # of a token's weight, at most, lies on any one other where attention is spread evenly


@LEARNED
def test_training_answers_what_was_guessed(before, after, trained):
    """Before training a model guesses; after it, it answers texts that it has not read before."""
    keep("loss over the steps", drawing.losses(trained))
    holds("accuracy before", before.accuracy() <= GUESSED, observed=before.accuracy(), expected=GUESSED)
    reached = trained.recipe.accuracy
    holds("accuracy after", after.accuracy() >= reached, observed=after.accuracy(), expected=reached)


@RELEVANT
@pytest.mark.lesson('These weights are determined based on some learned "attention" scores between words')
def test_the_relevant_token_comes_to_get_the_weight(before, after, trained):
    """Before training the relevant token gets no more weight than others; after it, a head looks at that token."""
    for need, places in after.texts.relevant.items():
        head = best_at(after, need)
        keep(f"{need}: over the steps and in a text", drawing.attention(trained, need, head))
        first, last = (heads.weights_on(model, places)[head] for model in (before, after))
        holds(f"weight on {need} before", first <= EVEN, observed=first, expected=EVEN)
        holds(f"weight on {need} after", last >= trained.recipe.weight, observed=last, expected=trained.recipe.weight)


@RELEVANT
@pytest.mark.lesson('The terms with higher relevance to one another will receive higher "attention" weights')
def test_without_the_heads_that_look_there_the_answer_is_lost(after, trained):
    """Heads that look at the relevant token are silenced, and the model no longer knows the answer."""
    for need in after.texts.relevant:
        found = looking_at(after, need)
        holds(f"heads that look at {need}", len(found) > 0, observed=found, expected="at least one")
        left = after.accuracy(silent(after, found))
        keep(f"silenced: {need}", drawing.silenced(after, found, left))
        holds(f"accuracy without them: {need}", left <= trained.recipe.silenced, observed=left)


@pytest.mark.about("trained/look-back-with-queries-and-keys-frozen")
@pytest.mark.lesson('These weights are determined based on some learned "attention" scores between words')
def test_what_is_learned_is_the_scores(after, trained):
    """Where the weights of queries and keys stay as they were, nothing else learns the task in their place."""
    holds("accuracy", after.accuracy() <= trained.recipe.ceiling, observed=after.accuracy())


# ---- heads


@pytest.mark.about("trained/two-needs")
@pytest.mark.lesson("each head learning to focus on distinct aspects of the text")
def test_each_head_comes_to_look_at_its_own(after, trained):
    """Where an answer takes two tokens, one head looks at the one, another at the other, and neither at both."""
    found = {need: best_at(after, need) for need in after.texts.relevant}
    same("heads that do it", observed=len(set(found.values())), expected=len(found))
    for need, head in found.items():
        own, *others = (heads.weights_on(after, after.texts.relevant[n])[head] for n in sorted(found, key=need.__ne__))
        holds(f"weight of its head on {need}", own >= trained.recipe.weight, observed=own)
        holds("its weight on what is the other's", max(others) <= EVEN, observed=others, expected=EVEN)


@pytest.mark.about("trained/two-needs")
@pytest.mark.lesson("each head learning to focus on distinct aspects of the text")
def test_a_silenced_head_loses_its_part_of_the_answer_alone(after, trained):
    """One of two heads is silenced: the part of the answer that it looked up is lost, the other part stays."""
    for need in PARTS[trained.recipe.task]:
        edits = silent(after, [best_at(after, need)])
        left = {part: after.accuracy(edits, of=of) for part, of in PARTS[trained.recipe.task].items()}
        keep(f"silenced: {need}", drawing.silenced(after, [best_at(after, need)], left))
        lost = left.pop(need)
        holds(f"right in {need} without its head", lost <= trained.recipe.silenced, observed=lost)
        kept = trained.recipe.accuracy
        holds(f"right in the rest without the head of {need}", min(left.values()) >= kept, observed=left)


@pytest.mark.about("trained/two-needs-with-one-head")
def test_one_head_does_not_do_both(after, trained):
    """A model with one head learns one part of the answer and never the other."""
    right = {part: after.accuracy(of=of) for part, of in PARTS[trained.recipe.task].items()}
    worst, best = sorted(right.values())
    holds("right in the one part", best >= trained.recipe.accuracy, observed=right)
    holds("right in the other", worst <= trained.recipe.ceiling, observed=right)


@pytest.mark.about("trained/two-needs")
@pytest.mark.lesson("each head learning to focus on distinct aspects of the text")
def test_heads_come_to_attend_to_different_things(before, after):
    """Before training all heads spread their weight alike; after it, any two heads attend to different things.

    They do where there are two things to look at. Where there is one, they may all come to look at it; in large models
    many rest on the first token, and two of those are alike to many digits.
    """
    first, last = heads.distance(before, 0), heads.distance(after, 0)
    holds("weight that two heads lay elsewhere, before", first <= 0.1, observed=first, expected=0.1)
    holds("weight that two heads lay elsewhere, after", last >= 0.4, observed=last, expected=0.4)


# ---- layers


@pytest.mark.about("trained/recall")
def test_recall_is_the_work_of_two_layers(after, trained):
    """One layer looks at the previous token; the next, at the token that followed the same word before."""
    found = {need: best_at(after, need) for need in ("the previous token", "what followed")}
    same("layers in which they look", observed=[head.attention for head in found.values()], expected=[0, 1])
    for need, head in found.items():
        left = after.accuracy(silent(after, [head]))
        keep(f"silenced: {need}", drawing.silenced(after, [head], left))
        holds(f"accuracy without the head for {need}", left <= trained.recipe.silenced, observed=left)


@pytest.mark.about("trained/recall-in-one-layer")
def test_one_layer_does_not_recall(after, trained):
    """A model of one layer does not learn to say what followed the same word before."""
    holds("accuracy", after.accuracy() <= trained.recipe.ceiling, observed=after.accuracy())


# ---- positions


@ORDER
@pytest.mark.lesson("it necessitates a method for considering the position of words within a sentence")
def test_order_is_learned_from_positions(after, trained, facts):
    """Every scheme of positions lets a model learn order; with its positions taken away it has lost it again."""
    blind = after.accuracy(without_positions(after.trace))
    keep("positions", facts["positions"])
    holds("accuracy", after.accuracy() >= trained.recipe.accuracy, observed=after.accuracy())
    holds("accuracy without positions", blind <= trained.recipe.silenced, observed=blind)


@pytest.mark.about("trained/look-back-without-positions")
@pytest.mark.lesson("it necessitates a method for considering the position of words within a sentence")
def test_without_positions_order_is_not_learned(after, trained, facts):
    """A model of one layer that is trained without positions never learns which word came three places before."""
    same("positions", observed=facts["positions"], expected="none")
    holds("accuracy", after.accuracy() <= trained.recipe.ceiling, observed=after.accuracy())


@pytest.mark.about("trained/two-needs-without-positions")
def test_without_positions_content_is_learned(after, trained):
    """Trained without positions, a model finds the word with the same letter, and does not find the previous word."""
    right = {part: after.accuracy(of=of) for part, of in PARTS[trained.recipe.task].items()}
    by_order, by_content = right["the previous word"], right["the twin"]
    holds("right in what order decides", by_order <= trained.recipe.ceiling, observed=by_order)
    holds("right in what content decides", by_content >= trained.recipe.accuracy, observed=by_content)


# ---- families


@pytest.mark.about("trained/twins")
def test_an_encoder_learns_from_both_sides(after, trained, facts):
    """An encoder learns to find a hidden word's twin, whether it comes earlier or later."""
    same("family", observed=facts["family"], expected="encoder-only")
    for side, where in drawing.sides(after).items():
        right = after.accuracy(where=where)
        holds(f"accuracy where the twin is {side}", right >= trained.recipe.accuracy, observed=right)


@pytest.mark.about("trained/twins-made-causal")
def test_made_causal_it_learns_from_the_left_alone(after, trained, facts):
    """The same class made causal finds a twin that comes earlier, and only guesses where it comes later."""
    same("family", observed=facts["family"], expected="decoder-only")
    right = {side: after.accuracy(where=where) for side, where in drawing.sides(after).items()}
    holds("accuracy where the twin is earlier", right["earlier"] >= trained.recipe.accuracy, observed=right["earlier"])
    holds("accuracy where the twin is later", right["later"] <= trained.recipe.ceiling, observed=right["later"])


@pytest.mark.about("trained/reversal")
@pytest.mark.lesson("the model could focus on different parts of the input article while generating the summary")
def test_cross_attention_learns_which_source_word_to_look_at(after, trained):
    """To write a source backwards, the decoder looks at the source word it is about to write."""
    head = best_at(after, "the source word")
    holds("the head compares target with source", after.trace.attentions[head.attention].cross)
    weight = heads.weights_on(after, after.texts.relevant["the source word"])[head]
    holds("weight on the source word", weight >= trained.recipe.weight, observed=weight)
    right = written_greedily(after)
    holds("written right word after word", right >= trained.recipe.accuracy, observed=right)


# ---- vectors of words


@pytest.mark.about("trained/kinds")
def test_words_that_may_stand_for_each_other_get_like_vectors(before, after):
    """After training, any two words of a kind have vectors closer to each other than any two words of two kinds."""
    keep("cosines before", drawing.means(cosines(before)))
    within, between = cosines(after)
    keep("cosines after", drawing.means((within, between)))
    low, high = float(within.min()), float(between.max())
    holds("lowest cosine within a kind above the highest between", low > high, observed=low, expected=high)


@pytest.mark.about("trained/kinds-in-no-order")
def test_where_any_word_may_follow_any_no_vectors_come_close(after):
    """Trained on texts in which any word may follow any other, words of a kind get no more alike than others."""
    within, between = (float(found.mean()) for found in cosines(after))
    holds("mean cosine within a kind above the mean between", within - between <= 0.3, observed=within - between)


# ---- training is parallel


@pytest.mark.about("trained/look-back", "trained/look-back-rotary", "trained/recall")
@pytest.mark.lesson("their proposal of training highly parallelized networks is equally significant")
def test_one_pass_gives_the_loss_of_every_prefix(before):
    """One pass over a text gives, at each of its places, the loss that a pass over the text up to there gives."""
    at_once, one_by_one = losses_of_prefixes(before)
    close("losses", observed=at_once, expected=one_by_one, tolerance=1e-4)


@pytest.mark.about("trained/look-back", "trained/look-back-rotary", "trained/recall")
@pytest.mark.lesson("enabling parallel training and long-range dependency modeling through self-attention")
def test_a_loss_reaches_every_token_before_it(before):
    """The loss at one place has a gradient at every token up to there, the first one too, and none at later ones."""
    reached = gradient_by_place(before)
    place = len(reached) // 2
    keep("gradient by place", [round(float(size), 6) for size in reached])
    holds(
        "smallest gradient up to the place",
        bool((reached[: place + 1] > 0).all()),
        observed=float(reached[: place + 1].min()),
    )
    same("greatest gradient after it", observed=float(reached[place + 1 :].max()), expected=0.0)


# ---- weights that were trained elsewhere: `pytest --model=MODEL --weights -m learning`


@pytest.mark.weights
@pytest.mark.usefixtures("single_stack")
def test_trained_heads_look_where_random_ones_do_not(checkpoint, new_model):
    """On tokens drawn by chance and told twice, some head gives one kind of token weight that a new model spreads."""
    trained, new = (looking.strongest(model.run(looking.told_twice(model))) for model in (checkpoint, new_model))
    keep("strongest heads", {kind: str(head) for kind, head in trained.items()})
    keep("of a new model", {kind: str(head) for kind, head in new.items()})
    keep("evenness of weights", looking.spread(checkpoint.run(looking.told_twice(checkpoint))))
    gained = {kind: head.weight for kind, head in trained.items() if head.weight > 2 * new[kind].weight}
    best = max(gained.values(), default=0.0)
    holds("weight of the strongest", best >= LOOKED_AT, observed=best, expected=f"at least {LOOKED_AT}")


@pytest.mark.weights
@pytest.mark.usefixtures("single_stack")
@pytest.mark.lesson("distinct aspects of the text, such as verbs, nouns, numbers")
def test_some_heads_prefer_verbs_nouns_or_numbers(checkpoint, new_model, tagged_sentences):
    """Some head gives verbs, some nouns and some numbers more than their distance earns: a preference, never all.

    It is chosen on one half of some marked sentences and measured on the other, against its own profile over distances.
    """
    trained, new = tagged_sentences(checkpoint), tagged_sentences(new_model)
    for mark, kind in tagged.KINDS.items():
        both = preferences(trained, mark)
        for half, found in zip(("first", "second"), both, strict=True):
            keep(f"{kind}, chosen on the {half} half", f"{looking.place_of(checkpoint.trace, found.head)}: {found}")
            keep(f"{kind}: weight on them in the other", round(found.weight, 3))
        keep(f"{kind}, in a new model", " and ".join(str(found) for found in preferences(new, mark)))
        least = round(min(found.again for found in both), 3)
        expected = f"at least {PREFERRED}"
        holds(f"{kind}: times their share, in the other half", least >= PREFERRED, observed=least, expected=expected)


@pytest.mark.weights
@pytest.mark.usefixtures("single_stack")
def test_one_number_of_the_stream_stands_out(checkpoint, new_model, sentence_ids):
    """Training makes outliers: one number of the stream is far larger than the usual ones, mostly at one token.

    Such a number is what 8 bits have to keep apart, and its token is often one that many heads rest on.
    """
    found, new = (outliers.largest(each.run(sentence_ids)) for each in (checkpoint, new_model))
    keep("largest", str(found))
    keep("of a new model", str(new))
    keep("weight on the first token, mean of all heads", looking.weight_on_the_first(checkpoint.run(sentence_ids)))
    holds("times the median", found.times >= 2 * new.times, observed=found.times, expected=f"at least 2 x {new.times}")


@pytest.mark.weights
@pytest.mark.usefixtures("decoder_only", "head")
def test_the_sentence_is_expected(checkpoint, sentence_ids):
    """The next token of the lesson's sentence is expected better than by whoever gives all entries the same chance."""
    found = looking.expected(checkpoint, sentence_ids)
    keep("rank of each next token", found.ranks)
    holds("loss", found.loss <= 0.9 * found.even, observed=found.loss, expected=f"at most 0.9 x {found.even}")


@pytest.mark.weights
@pytest.mark.usefixtures("decoder_only", "head")
def test_what_was_told_is_expected_when_it_is_told_again(checkpoint):
    """Tokens drawn by chance cannot be expected; told again, they are, by heads that look at what followed them."""
    first, again = looking.told_again(checkpoint)
    holds("loss when told again", again <= 0.7 * first, observed=again, expected=f"at most 0.7 x {first}")


@pytest.mark.weights
@pytest.mark.usefixtures("encoder_only")
def test_a_masked_word_is_filled_in(checkpoint, sentence_ids, mask_id):
    """Where one token of the sentence is masked, most are among the hundredth of the vocabulary that is likeliest."""
    ranks = looking.filled_in(checkpoint, sentence_ids, mask_id)
    few = checkpoint.trace.output.shape[-1] // 100
    kept = sum(rank <= few for rank in ranks)
    keep("rank of each masked token", ranks)
    holds("tokens filled in", kept > len(ranks) / 2, observed=kept, expected=f"more than half of {len(ranks)}")

"""Generation: a decoder writes one token after another, each time the one it scores highest.

A decoder-only model goes on with the text it was given; an encoder-decoder writes a target of its own for a source; an
encoder writes nothing. Written greedily, a text is the same every time, whether what was read is kept in a cache or
read again at every step, and whether it is written alone or beside others.
"""

import pytest
import torch

from fixtures.behaviour.cache import keeps_cache
from fixtures.behaviour.generation import NEW, greedy, refusal, scores_in_one_pass, start, write, write_padded
from fixtures.behaviour.interventions import change_token
from fixtures.models.runnable import SEQ
from fixtures.verdicts.evidence import close, differs, same, shape
from fixtures.verdicts.judge import does_not_apply

pytestmark = [
    pytest.mark.lesson("Attention Is All You Need: generating outputs"),
    pytest.mark.usefixtures("head"),
]


def test_a_decoder_only_model_continues_the_prompt(decoder_only):
    """What it returns is the prompt, token by token, and four new tokens after it."""
    written = greedy(decoder_only)
    shape("text", written.ids, batch=1, tokens=SEQ + NEW)
    same("how it begins", observed=written.ids[:, :SEQ].tolist(), expected=decoder_only.ids.tolist())


def test_an_encoder_decoder_writes_a_target_of_its_own(encoder_decoder):
    """What it returns is a start token and four new tokens; the ten of the source are not among them."""
    written = greedy(encoder_decoder)
    shape("target", written.ids, batch=1, tokens=1 + NEW)
    same("first token", observed=int(written.ids[0, 0]), expected=start(encoder_decoder))


@pytest.mark.lesson("The decoder-only category specializes in generating outputs based on given instructions")
def test_what_is_written_depends_on_what_was_read(generator):
    """With another second-to-last word in the prompt, or in the source, the first new token has other scores."""
    other = write(generator, change_token(generator, -2)["ids"])
    differs("scores of the first new token", observed=other.scores[:, 0], reference=greedy(generator).scores[:, 0])


def test_an_encoder_cannot_generate_and_says_so(encoder_only):
    """It has no `generate`: `can_generate()` is false, and the call ends in an error that names the model's class."""
    same("can_generate()", observed=encoder_only.model.can_generate(), expected=False)
    message = f"AttributeError: '{type(encoder_only.model).__name__}' object has no attribute 'generate'"
    same("what the call says", observed=refusal(encoder_only), expected=message)


def test_every_new_token_is_the_one_scored_highest(generator):
    """In one pass over the finished text, the position before a new token gives that token the highest score."""
    written = greedy(generator)
    scores = scores_in_one_pass(generator, written)
    chosen = scores.gather(-1, written.new[..., None])[..., 0]
    close("score of the token written", observed=chosen, expected=scores.amax(dim=-1), tolerance=1e-4)


def test_greedy_decoding_draws_no_lots(generator):
    """The same tokens are written whatever the random seed."""
    torch.manual_seed(1)
    first = write(generator)
    torch.manual_seed(2)
    again = write(generator)
    same("tokens", observed=again.new.tolist(), expected=first.new.tolist())
    close("scores", observed=again.scores, expected=first.scores)


def test_a_step_reads_the_newest_token_alone(generator):
    """With a cache the prompt is read once and then one token a step; without, a step reads the whole text again."""
    if not keeps_cache(generator):
        does_not_apply("The library's code for this model keeps no cache: every step reads the whole text again.")
    first = 1 if generator.has_target else SEQ
    same("tokens read at each step", observed=greedy(generator).read, expected=[first, 1, 1, 1])
    again = greedy(generator, cached=False).read
    same("tokens read at each step without a cache", observed=again, expected=[first, first + 1, first + 2, first + 3])


def test_the_cache_changes_nothing_that_is_written(generator):
    """The same tokens are written, with the same scores, when every step reads the whole text again."""
    if not keeps_cache(generator):
        does_not_apply("The library's code for this model keeps no cache: every step reads the whole text again.")
    cached, again = greedy(generator), greedy(generator, cached=False)
    same("tokens", observed=cached.new.tolist(), expected=again.new.tolist())
    close("scores", observed=cached.scores, expected=again.scores, tolerance=1e-4)


def test_a_text_is_written_alike_beside_others(generator):
    """Two texts of one length, written side by side, get the tokens and the scores they get alone."""
    ids, other = generator.ids, change_token(generator, -1)["ids"]
    both, alone = write(generator, torch.cat([ids, other])), [greedy(generator), write(generator, other)]
    same("tokens", observed=both.new.tolist(), expected=torch.cat([text.new for text in alone]).tolist())
    close("scores", observed=both.scores, expected=torch.cat([text.scores for text in alone]), tolerance=1e-4)


def test_padding_changes_nothing_that_is_written(generator):
    """A shorter text, padded to stand beside a longer one, gets the tokens and the scores it gets alone."""
    padded, alone = write_padded(generator)
    same("tokens", observed=padded.new.tolist(), expected=alone.new.tolist())
    close("scores", observed=padded.scores, expected=alone.scores, tolerance=1e-4)

"""The paper: an encoder-decoder of attention alone translated better than any system before it, for less.

Its two models, base and big, are rebuilt here from the sizes the paper gives, and come out with the parameters it
counts. What training them cost, and what the systems before them cost and achieved, are the paper's own figures: these
claims are marked `figures`, for they reckon with what is printed, and no model runs in them. Attention does in a fixed
number of steps what a recurrent layer does in one step a token.
"""

import pytest

from fixtures.anatomy.attention import weight_of
from fixtures.behaviour.positions import nearest_sinusoid, position_table
from fixtures.behaviour.recurrence import CELL, longest_chain, pass_over, reach, recurrent_pass
from fixtures.models.runnable import SEQ
from fixtures.published import vaswani2017
from fixtures.timings import flops
from fixtures.verdicts.evidence import close, holds, same, shape

pytestmark = [
    pytest.mark.lesson("Attention Is All You Need"),
    pytest.mark.about("vaswani-2017/base", "vaswani-2017/big"),
]


@pytest.fixture
def paper(model):
    """What the paper says of the model."""
    return vaswani2017.OURS[model.id]


def test_the_original_transformer_is_an_encoder_decoder(facts, paper):
    """One stack of six layers reads a source, another of six writes a target."""
    same("family", observed=facts["family"], expected="encoder-decoder")
    same("layers", observed=[facts["encoder_layers"], facts["layers"]], expected=[paper.layers, paper.layers])


def test_its_sizes_are_those_of_table_3(skeleton, paper):
    """Width, feed-forward width and heads: 512, 2048 and 8 in base, 1024, 4096 and 16 in big."""
    for block in [block for stack in skeleton.trace.stacks for block in stack.blocks]:
        sizes = {"d_model": block.input.shape[-1], "d_ff": block.d_ff, "heads": block.self_attention.heads}
        same("sizes", observed=sizes, expected={"d_model": paper.d_model, "d_ff": paper.d_ff, "heads": paper.heads})
        same("width of a head", observed=block.self_attention.d_head, expected=paper.d_head)


def test_its_positions_are_sinusoids_that_are_not_trained(miniature):
    """What joins the embeddings of source and target are the sines and cosines of section 3.5, which learn nothing."""
    run = miniature.trace
    same("sequences with positions", observed=len(run.entering), expected=2)
    for _, vectors in run.entering:
        close("position vectors", observed=vectors, expected=nearest_sinusoid(vectors.reshape(-1, vectors.shape[-1])))
        same("trained", observed=position_table(run, vectors).inputs[1].requires_grad, expected=False)


def test_source_target_and_output_share_one_table(skeleton, paper):
    """One table of about 37,000 rows embeds the source, embeds the target and scores the next token."""
    source, target = skeleton.trace.embeddings
    holds("the target's table is the source's", target.table is source.table)
    holds("the output head is the source's table", weight_of(skeleton.trace.head) is source.table)
    shape("table", source.table, vocab=vaswani2017.VOCABULARY, d_model=paper.d_model)


def test_trained_parameters_are_those_of_table_3(skeleton, paper):
    """63.08 million against the paper's 65, 214.2 million against its 213: within four per cent."""
    trained = sum(parameter.numel() for parameter in skeleton.model.parameters() if parameter.requires_grad)
    close("share of the paper's count", observed=trained / paper.parameters, expected=1.0, tolerance=0.04)


@pytest.mark.lesson("after training for 3.5 days on eight GPUs")
def test_its_training_fits_the_cost_of_table_2(skeleton, paper):
    """The operations of all steps, counted in the model, are between a fifth and a half of what the GPUs could do."""
    a_pass = flops.of_pass(skeleton.run(skeleton.ids, skeleton.ids)).with_weights  # ten tokens on each side
    a_step = 3 * a_pass * vaswani2017.TOKENS_A_STEP / SEQ  # forward once, and backward twice as much
    share = paper.steps * a_step / paper.cost
    holds("share of the cost in table 2", 0.2 < share < 0.5, observed=round(share, 3), expected="0.2 to 0.5")


@pytest.mark.figures
@pytest.mark.lesson("after training for 3.5 days on eight GPUs")
def test_steps_days_and_cost_agree(paper):
    """300,000 steps of 1.0 s are 3.5 days, and those on eight GPUs at 9.5 TFLOP/s 2.3e19 operations."""
    days = paper.steps * paper.seconds_a_step / vaswani2017.DAY
    close("days by steps, as a share of the paper's", observed=days / paper.days, expected=1.0, tolerance=0.08)
    cost = paper.days * vaswani2017.DAY * vaswani2017.GPUS * vaswani2017.SUSTAINED
    close("cost by days, as a share of the paper's", observed=cost / paper.cost, expected=1.0, tolerance=0.01)


@pytest.mark.figures
@pytest.mark.lesson("superior performance compared to previous benchmarks (WMT 2014 translation tasks)")
def test_it_translates_into_german_better_than_any_system_before(paper):
    """English to German, it has more BLEU than every earlier system, ensembles included."""
    best = max(vaswani2017.earlier_bleu("german").values())
    holds("BLEU", paper.bleu["german"] > best, observed=paper.bleu["german"], expected=f"more than {best}")


@pytest.mark.figures
@pytest.mark.lesson("a new single-model state-of-the-art BLEU score of 41.8")
def test_it_translates_into_french_better_than_any_system_before(paper):
    """English to French, it has more BLEU than every earlier system, ensembles included: 41.8 against 41.29."""
    best = max(vaswani2017.earlier_bleu("french").values())
    holds("BLEU", paper.bleu["french"] > best, observed=paper.bleu["french"], expected=f"more than {best}")


@pytest.mark.figures
@pytest.mark.lesson("a small fraction of the training costs of the best models")
def test_it_costs_a_small_fraction_of_what_french_cost_before(model):
    """Less than a quarter of any single system's training, and less than a thirtieth of any ensemble's."""
    for kind in ("single", "ensemble"):
        shares, most = vaswani2017.share_of_cost(model.id, "french", kind), vaswani2017.SMALL_FRACTION["french", kind]
        holds(
            f"share of each {kind}'s cost", max(shares.values()) < most, observed=shares, expected=f"below {most:.3f}"
        )


@pytest.mark.figures
@pytest.mark.lesson("at a fraction of the cost")
def test_it_costs_a_fraction_of_what_german_cost_before(model):
    """Less than half of any single system's training, as the base model does."""
    shares, most = (
        vaswani2017.share_of_cost(model.id, "german", "single"),
        vaswani2017.SMALL_FRACTION["german", "single"],
    )
    holds("share of each system's cost", max(shares.values()) < most, observed=shares, expected=f"below {most}")


@pytest.mark.lesson("their proposal of training highly parallelized networks is equally significant")
def test_more_tokens_take_no_more_steps_in_sequence(miniature):
    """The longest chain of operations is as long for twelve tokens as for six; a recurrent layer's is twice as long."""
    chains = [longest_chain(pass_over(miniature, tokens)) for tokens in (6, 12)]
    same("longest chain over twelve tokens", observed=chains[1], expected=chains[0])
    recurrent = [longest_chain(recurrent_pass(tokens), CELL) for tokens in (6, 12)]
    same("longest chain of a recurrent layer's cells", observed=recurrent, expected=[6, 12])


@pytest.mark.lesson("Conclusion: long-range dependency modeling through self-attention")
def test_any_two_tokens_are_one_attention_apart(miniature):
    """One layer's attention takes every word to every other, in the decoder to every later one."""
    encoder, decoder = (reach(stack.blocks[0].self_attention) for stack in miniature.run(gradients=True).stacks)
    same(
        "which token reaches which, reading",
        observed=encoder.tolist(),
        expected=encoder.new_ones(encoder.shape).tolist(),
    )
    same(
        "which token reaches which, writing",
        observed=decoder.tolist(),
        expected=decoder.new_ones(decoder.shape).tril().tolist(),
    )

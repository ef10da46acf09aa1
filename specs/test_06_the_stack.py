"""The stack: the same block again and again, each adding to one stream of vectors that keeps its width.

A block attends and then works on each position alone in a feed-forward network. Both add to what is there. How many
blocks there are, how wide the stream is and how wide the network makes the size of the model.
"""

import pytest

from fixtures.behaviour.acting import IDLE, gains
from fixtures.behaviour.activation import applies
from fixtures.behaviour.facts import active_parameters, kinds_of_block, norms_of_an_empty_block
from fixtures.behaviour.idle import idle
from fixtures.behaviour.interventions import cut, permute_input, silence
from fixtures.behaviour.norms import ANOTHER
from fixtures.models.runnable import SEQ, TARGET
from fixtures.published.units import within
from fixtures.verdicts.evidence import close, differs, holds, same, shape
from fixtures.verdicts.judge import does_not_apply

pytestmark = pytest.mark.lesson("The Architecture")


@pytest.mark.lesson("Inspecting Architecture: 24 stacked decoder layers")
def test_the_model_stacks_its_published_number_of_layers(skeleton, published):
    """The stream passes through the published number of blocks: 24 for OPT-1.3b."""
    same("layers", observed=skeleton.trace.stack.layers, expected=published.layers)


def test_the_encoder_stacks_its_published_number_of_layers(encoder_decoder, skeleton, published):
    """The source, too, passes through the published number of blocks."""
    same("encoder layers", observed=skeleton.trace.stacks[0].layers, expected=published.encoder_layers)


def test_the_published_number_of_layers_attends(skeleton, published):
    """As many blocks compute attention as published."""
    same("attention layers", observed=len(skeleton.trace.stack.attending), expected=published.attention_layers)


def test_every_block_attends(skeleton):
    """There is no block without attention."""
    same("blocks that attend", observed=len(skeleton.trace.stack.attending), expected=skeleton.trace.stack.layers)


def test_the_layers_are_alike(skeleton):
    """All blocks of a stack are of one class, with parameters of the same shapes."""
    for stack in skeleton.trace.stacks:
        same("kinds of block", observed=len(kinds_of_block(stack)), expected=1)


def test_the_width_is_the_same_all_the_way_up(skeleton, published):
    """Before the first block and after each one the hidden states are [1, 10, d]: layers + 1 times."""
    for stack in skeleton.trace.stacks:
        seq = TARGET if stack is skeleton.trace.stack and skeleton.has_target else SEQ
        same("hidden states", observed=len(stack.streams), expected=stack.layers + 1)
        for stream in stack.streams:
            shape("hidden states", stream, batch=1, seq=seq, d_model=published.d_model)


def test_each_block_changes_the_stream(miniature):
    """The vectors that leave a block are not those that entered it."""
    for stack in miniature.trace.stacks:
        for block in stack.blocks:
            differs("hidden states", observed=block.output, reference=block.input)


def test_each_sublayer_adds_to_the_stream(adding, block, miniature):
    """When its sublayers add nothing, a block returns its input, sent at most through the norms after additions."""
    holds("additions to the stream", block in adding, observed=len(block.sublayers), expected="at least one")
    sublayers = [(each, sublayer) for each in adding for sublayer in each.sublayers]
    again = sum(each.repeats_the_stream(sublayer) for each, sublayer in sublayers)
    same("additions of the stream itself", observed=again, expected=0)
    edits = {op: edit for _, sublayer in sublayers for op, edit in cut(sublayer).items()}
    emptied = [each for stack in miniature.run(edits=edits).stacks for each in stack.blocks]
    blocks = [each for stack in miniature.trace.stacks for each in stack.blocks]
    for each, empty in zip(blocks, emptied, strict=True):
        if each in adding:
            name, expected = miniature.name_of(each.module), norms_of_an_empty_block(each, empty.entered)
            close(f"output of {name}", observed=empty.leaving, expected=expected, tolerance=1e-4)


def test_the_norms_stand_where_published(facts, published):
    """The stream is normalized before a sublayer reads it (pre) or after one has added to it (post), as published."""
    same("norm", observed=facts["norm"], expected=published.norm)


def test_every_norm_applies_its_gain(miniature):
    """The gain of every norm in a block has a say in what the model says."""
    found = gains(miniature)
    if not found:
        does_not_apply("No norm of its blocks has a gain.")
    idle = {name: share for name, share in found.items() if share < IDLE}
    same("gains that do nothing", observed=idle or "none", expected="none")


def test_every_norm_follows_its_formula(norms):
    """A norm divides a vector by its root mean square, a LayerNorm less its mean, and multiplies it by a gain."""
    odd = {name: formula for name, formula in norms.items() if formula == ANOTHER}
    same("norms of another formula", observed=sorted(odd) or "none", expected="none")


def test_the_feed_forward_network_works_on_each_position_alone(block, miniature):
    """With attention silenced, a vector becomes the same wherever it stands and whatever stands beside it."""
    length = block.input.shape[-2]
    order = [*range(length - 1, 1, -1), 1, 1]  # shuffled, and the first left out: a mean over all would change
    silent = miniature.run(edits=silence(block)).stack.attending[0]
    shuffled = miniature.run(edits=silence(block) | permute_input(miniature, block, order)).stack.attending[0]
    differs("input", observed=shuffled.input, reference=silent.input)
    close("output", observed=shuffled.output, expected=silent.output[:, order], tolerance=1e-4)


def test_the_feed_forward_network_has_its_published_inner_width(skeleton, published):
    """The first feed-forward network, as a rule block 0's, widens each vector from d to d_ff and brings it back."""
    same("d_ff", observed=skeleton.trace.stack.d_ff, expected=published.d_ff)


def test_the_feed_forward_network_bends_numbers_as_its_config_says(networks, activations, miniature):
    """Between the matrices of every network stands the activation function that the config names."""
    without = [miniature.name_of(block.module) for block in networks if not applies(block, activations)]
    wanted = " or ".join(sorted(activations))
    same(f"networks without {wanted}", observed=without or "none", expected="none")


def test_the_experts_are_as_many_as_published(experts, published):
    """A router chooses among the published number of experts, and as many as published act on a token."""
    same("experts", observed=experts.experts[0], expected=published.experts)
    same("experts that act", observed=experts.experts[1], expected=published.experts_active)


def test_the_chosen_experts_act_on_a_token(acting):
    """As many experts as are chosen for a token have a say in what becomes of it."""
    found = [len(each) for each in acting.by_token]
    same("experts that act", observed=found, expected=[acting.chosen] * len(found))


def test_the_choice_of_experts_depends_on_the_token(acting):
    """Not all of the ten tokens are sent to the same experts."""
    if acting.chosen == acting.many:
        does_not_apply("Every expert is chosen for every token.")
    choices = {tuple(sorted(each)) for each in acting.by_token}
    holds("choices", len(choices) > 1, observed=sorted(choices), expected="more than one")


def test_an_expert_has_its_published_inner_width(experts, published):
    """Each routed expert widens a vector to the published inner width."""
    same("d_expert", observed=experts.d_expert, expected=published.d_expert)


@pytest.mark.lesson("facebook/opt-1.3b")
def test_the_parameters_are_as_many_as_published(skeleton, published):
    """All tensors at full size, a shared one counted once, hold the published number of parameters."""
    same("parameters", observed=skeleton.parameters, expected=published.parameters)


def test_the_publishers_size_is_the_number_of_parameters(skeleton, published):
    """The parameters at full size are within a tenth of the size that its publisher gives, 110M for BERT."""
    ratio, tenth = within(skeleton.parameters, published.size), f"within 10 % of {published.size}"
    holds("parameters over the size", abs(ratio - 1) <= 0.1, observed=ratio, expected=tenth)


@pytest.mark.lesson("facebook/opt-1.3b")
def test_the_name_tells_the_size(named_size, skeleton):
    """A size in a published model's name, 1.3b, is within a tenth of its parameters, 1,315,758,080."""
    ratio = within(skeleton.parameters, named_size)
    holds("parameters over the size", abs(ratio - 1) <= 0.1, observed=ratio, expected=f"within 10 % of {named_size}")


def test_few_experts_act_at_once(experts, skeleton, published):
    """The parameters that act on one token are within a tenth of the published number."""
    active = active_parameters(skeleton)
    ratio = within(active, published.size_active)
    holds("active parameters over the size", abs(ratio - 1) <= 0.1, observed=active, expected=published.size_active)


def test_every_parameter_acts_on_every_token(transformer, facts):
    """No parameter of a block rests while a token passes, and there is no choice among experts."""
    same("experts to choose from", observed=facts["experts"], expected=0)
    same("parameters without a part in the last token's vector", observed=idle(transformer) or "none", expected="none")

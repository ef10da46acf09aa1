"""Counterexamples of chapter 6."""

import pytest
import torch
from torch import nn

from tests.support.wounds import matching, on_output

pytestmark = pytest.mark.slow

# ---- how many blocks


@pytest.mark.breaks("test_the_model_stacks_its_published_number_of_layers")
@pytest.mark.parametrize("patient", ["facebook/opt-1.3b", "facebook/bart-base"])
def test_a_stack_of_another_number_of_layers(fails, patient):
    """One layer more is published than there is."""
    fails(patient, entry={"layers": {"facebook/opt-1.3b": 25, "facebook/bart-base": 7}[patient]})


@pytest.mark.breaks(
    "test_the_model_stacks_its_published_number_of_layers",
    "test_the_published_number_of_layers_attends",
    "test_the_parameters_are_as_many_as_published",
)
def test_a_stack_without_its_last_block(fails):
    """The last of 24 blocks is gone."""

    def wound(model):
        del model.model.decoder.layers[-1]

    fails("facebook/opt-1.3b", wound_skeleton=wound)


@pytest.mark.breaks(
    "test_the_model_stacks_its_published_number_of_layers", "test_the_published_number_of_layers_attends"
)
def test_a_block_that_is_built_and_never_called(fails):
    """All blocks are there, and their parameters; the stream goes around the last one."""
    fails("openai-community/gpt2", wound_skeleton=lambda model: _walked(model.transformer.h, lambda all_: all_[:-1]))


@pytest.mark.breaks(
    "test_the_model_stacks_its_published_number_of_layers", "test_the_published_number_of_layers_attends"
)
def test_a_block_that_is_called_twice(fails):
    """The stream passes through the last block once more."""
    wound = lambda model: _walked(model.bert.encoder.layer, lambda all_: [*all_, all_[-1]])  # noqa: E731
    fails("google-bert/bert-base-cased", wound_skeleton=wound, why="expected 12, observed 13")


@pytest.mark.breaks("test_the_encoder_stacks_its_published_number_of_layers")
@pytest.mark.parametrize("patient", ["facebook/bart-base", "google-t5/t5-small"])
def test_an_encoder_of_another_number_of_layers(fails, patient):
    """One layer less is published of an encoder than there is."""
    fails(patient, entry={"encoder_layers": 5})


@pytest.mark.breaks("test_the_encoder_stacks_its_published_number_of_layers")
def test_an_encoder_whose_last_block_is_never_called(fails):
    """The source goes around the last block of the encoder."""
    wound = lambda model: _walked(model.model.encoder.layers, lambda all_: all_[:-1])  # noqa: E731
    fails("facebook/bart-base", wound_skeleton=wound)


def _walked(layers, way):
    """Have a list of layers hand out others than it holds, to whoever goes through it."""
    kind = type(layers)
    layers.__class__ = type("Walked", (kind,), {"__iter__": lambda self: iter(way([*kind.__iter__(self)]))})


# ---- which of them attend


@pytest.mark.breaks("test_the_published_number_of_layers_attends")
def test_a_stack_published_as_a_hybrid(fails):
    """Every block attends, and one is published not to."""
    fails("openai-community/gpt2", entry={"attention_layers": 11})


@pytest.mark.breaks("test_every_block_attends", "test_the_published_number_of_layers_attends")
def test_a_running_sum_in_one_block(fails):
    """One block adds up the tokens before each one in place of attention."""
    fails("openai-community/gpt2", wound_skeleton=_running_sum)


@pytest.mark.breaks("test_every_block_attends")
def test_a_running_sum_that_is_published(fails):
    """One block adds up the tokens, as published: a hybrid nobody declared to depart."""
    fails("openai-community/gpt2", wound_skeleton=_running_sum, entry={"attention_layers": 11})


def _running_sum(model):
    model.transformer.h[3].attn.forward = lambda hidden_states, **rest: (hidden_states.cumsum(dim=1), None)


# ---- how alike they are, how wide the stream is


@pytest.mark.breaks("test_the_layers_are_alike")
def test_a_layer_of_another_shape(fails):
    """One feed-forward network is narrower than the others."""

    def wound(model):
        layer = model.model.decoder.layers[5]
        layer.fc1, layer.fc2 = _linear(768, 2048), _linear(2048, 768)

    also = ("test_the_parameters_are_as_many_as_published",)
    fails("facebook/opt-125m", wound_skeleton=wound, also=also, why="kinds of block: expected 1, observed 2")


@pytest.mark.breaks("test_the_layers_are_alike")
@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_a_layer_of_another_class(fails, stack):
    """One layer is of another class than the others of its stack, with parameters of the same shapes."""

    def wound(model):
        layer = getattr(model.model, stack).layers[2]
        layer.__class__ = type("Other", (type(layer),), {})

    fails("facebook/bart-base", wound_skeleton=wound, why="kinds of block: expected 1, observed 2")


@pytest.mark.breaks("test_the_width_is_the_same_all_the_way_up")
def test_a_stream_that_grows_at_its_end(fails):
    """The last block hands on each vector twice over, and the norm behind it reads the first half."""

    def wound(model):
        decoder = model.model.decoder
        _after(decoder.layers[-1], lambda vectors: torch.cat([vectors, vectors], dim=-1))
        decoder.final_layer_norm.register_forward_pre_hook(lambda module, args: (args[0][..., :2048],))

    fails("facebook/opt-1.3b", wound_skeleton=wound, why="d_model 4096 != 2048")


@pytest.mark.breaks("test_the_width_is_the_same_all_the_way_up")
def test_an_encoder_that_drops_a_token(fails):
    """The last block of an encoder hands on nine vectors for ten tokens."""
    wound = lambda model: _after(model.model.encoder.layers[-1], lambda vectors: vectors[:, 1:])  # noqa: E731
    fails("facebook/bart-base", wound_skeleton=wound, why="seq 9 != 10")


# ---- what a block adds


@pytest.mark.breaks("test_each_block_changes_the_stream")
@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_a_layer_that_does_nothing(fails, stack):
    """The last block of a stack hands on what it was given."""

    def wound(model):
        getattr(model.model, stack).layers[-1].forward = lambda hidden_states, *args, **rest: hidden_states

    fails("facebook/bart-base", wound=wound, also=("test_every_parameter_acts_on_every_token",))


@pytest.mark.breaks("test_each_block_changes_the_stream")
def test_a_block_whose_sublayers_say_nothing(fails):
    """Both sublayers of a block end in a projection to zero."""

    def wound(model):
        layer = model.model.decoder.layers[1]
        for end in (layer.self_attn.out_proj, layer.fc2):
            nn.init.zeros_(end.weight), nn.init.zeros_(end.bias)

    also = ("test_every_parameter_acts_on_every_token", "test_every_norm_applies_its_gain")
    fails("facebook/opt-125m", wound=wound, also=also)


@pytest.mark.breaks("test_each_sublayer_adds_to_the_stream")
def test_a_block_without_residuals(fails):
    """Each sublayer of a block takes the place of the stream, and adds nothing to it."""

    def wound(model):
        layer = model.model.decoder.layers[0]

        def replace(hidden_states, **rest):
            attended, _ = layer.self_attn(hidden_states=layer.self_attn_layer_norm(hidden_states), **rest)
            return layer.fc2(layer.activation_fn(layer.fc1(layer.final_layer_norm(attended))))

        layer.forward = replace

    fails("facebook/opt-125m", wound=wound, why="additions to the stream: expected 'at least one', observed 0")


@pytest.mark.breaks("test_each_sublayer_adds_to_the_stream")
@pytest.mark.parametrize("patient", ["facebook/opt-125m", "meta-llama/Llama-3.1-8B"])
def test_a_block_that_halves_the_stream(fails, patient):
    """What a block is given is halved before the sublayers add to it."""

    def wound(model):
        layer = model.get_decoder().layers[0]
        forward = layer.forward
        layer.forward = lambda hidden_states, *args, **rest: forward(hidden_states * 0.5, *args, **rest)

    fails(patient, wound=wound, why="output of ")


@pytest.mark.breaks("test_each_sublayer_adds_to_the_stream")
@pytest.mark.parametrize(
    ("patient", "block"),
    [
        ("facebook/opt-125m", "*.layers.1"),
        ("meta-llama/Llama-3.1-8B", "*.layers.1"),
        ("facebook/bart-base", "*.encoder.layers.1"),
    ],
)
def test_a_later_block_that_lets_a_tenth_of_its_input_by(fails, patient, block):
    """Not the first block: the second hands on a tenth of its input beside what it made of it."""
    wound = lambda model: _returns(model, block, lambda block, made, given: made + 0.1 * given)  # noqa: E731
    fails(patient, wound=wound, why="additions of the stream itself")


def _returns(model, where, change):
    """Change, within their call, what the modules called `where` return, given the module and what it was given."""
    for module in matching(model, where):

        def forward(given, *args, module=module, whole=module.forward, **rest):
            made = whole(given, *args, **rest)
            return (
                (change(module, made[0], given), *made[1:]) if isinstance(made, tuple) else change(module, made, given)
            )

        module.forward = forward


WRONG_NORMS = {
    "gain twice": lambda norm, made, given: made * norm.weight,
    "over the whole text": lambda norm, made, given: norm.weight * given / given.pow(2).mean().sqrt(),
    "by half of it": lambda norm, made, given: norm.weight * given / given.chunk(2, -1)[0].pow(2).mean(-1, True).sqrt(),
}


@pytest.mark.breaks("test_every_norm_follows_its_formula")
@pytest.mark.parametrize(
    ("patient", "norm"),
    [
        ("facebook/opt-125m", "*.layers.1.final_layer_norm"),
        ("meta-llama/Llama-3.1-8B", "*.layers.1.post_attention_layernorm"),
        ("google-bert/bert-base-cased", "*.layer.1.output.LayerNorm"),
        ("google-t5/t5-small", "encoder.final_layer_norm"),
    ],
)
@pytest.mark.parametrize("wrong", WRONG_NORMS)
def test_a_norm_of_another_formula(fails, patient, norm, wrong):
    """One norm applies its gain twice, takes one root for the whole text, or the root of half a vector."""
    wound = lambda model: _returns(model, norm, WRONG_NORMS[wrong])  # noqa: E731
    fails(patient, wound=wound, why="norms of another formula: expected 'none'")


@pytest.mark.breaks("test_the_feed_forward_network_bends_numbers_as_its_config_says")
@pytest.mark.parametrize(
    ("patient", "place", "other"),
    [
        ("facebook/opt-125m", "*.layers.1.activation_fn", nn.GELU()),
        ("meta-llama/Llama-3.1-8B", "*.layers.1.mlp.act_fn", nn.GELU()),
        ("google-bert/bert-base-cased", "*.layer.1.intermediate.intermediate_act_fn", nn.GELU(approximate="tanh")),
        ("google/gemma-2-2b", "*.layers.1.mlp.act_fn", nn.GELU()),
        ("google-t5/t5-small", "encoder.block.1.*.act", nn.SiLU()),
    ],
)
def test_a_network_with_another_activation(fails, patient, place, other):
    """The second network bends its numbers by another function than the config names."""

    def wound(model):
        for module in matching(model, place):
            module.forward = other.forward

    fails(patient, wound=wound, why="networks without")


@pytest.mark.breaks("test_the_norms_stand_where_published")
@pytest.mark.parametrize("patient", ["facebook/opt-125m", "facebook/opt-350m"])
def test_norms_on_the_other_side_of_the_sublayers(fails, patient):
    """Blocks that norm what a sublayer reads norm what it returns, and the other way around."""

    def wound(model):
        for layer in model.model.decoder.layers:
            layer.do_layer_norm_before = not layer.do_layer_norm_before

    fails(patient, wound=wound)


# ---- the feed-forward network


@pytest.mark.breaks("test_the_feed_forward_network_works_on_each_position_alone")
@pytest.mark.parametrize("mixed", ["with the one before", "with the mean", "with all before"])
def test_a_feed_forward_network_that_mixes_positions(fails, mixed):
    """To each position's result something of other positions' is added."""
    others = {
        "with the one before": lambda vectors: vectors.roll(1, dims=1),
        "with the mean": lambda vectors: vectors.mean(dim=1, keepdim=True),
        "with all before": lambda vectors: vectors.cumsum(dim=1),
    }[mixed]
    wound = lambda model: _after(model.transformer.h[0].mlp, lambda vectors: vectors + others(vectors))  # noqa: E731
    fails("openai-community/gpt2", wound=wound)


@pytest.mark.breaks("test_the_feed_forward_network_works_on_each_position_alone")
def test_a_feed_forward_network_of_its_own_for_each_position(fails):
    """What the feed-forward network returns grows with the position's number."""

    def wound(model):
        numbered = lambda vectors: vectors * torch.arange(1.0, vectors.shape[1] + 1)[:, None]  # noqa: E731
        _after(model.model.layers[0].mlp, numbered)

    fails("meta-llama/Llama-3.1-8B", wound=wound)


@pytest.mark.breaks("test_the_feed_forward_network_has_its_published_inner_width")
@pytest.mark.parametrize("patient", ["facebook/opt-1.3b", "google/gemma-2-2b"])
def test_a_feed_forward_network_published_with_another_width(fails, patient):
    """The published inner width is twice the model's, as Gemma's report counts it."""
    fails(patient, entry={"d_ff": {"facebook/opt-1.3b": 16384, "google/gemma-2-2b": 18432}[patient]})


@pytest.mark.breaks("test_the_feed_forward_network_has_its_published_inner_width")
def test_a_narrower_feed_forward_network(fails):
    """The first block's feed-forward network is narrower than published."""

    def wound(model):
        layer = model.model.decoder.layers[0]
        layer.fc1, layer.fc2 = _linear(768, 2048), _linear(2048, 768)

    also = ("test_the_layers_are_alike", "test_the_parameters_are_as_many_as_published")
    fails("facebook/opt-125m", wound_skeleton=wound, also=also, why="d_ff: expected 3072, observed 2048")


# ---- experts


@pytest.mark.breaks("test_the_experts_are_as_many_as_published")
@pytest.mark.parametrize("planted", [{"experts": 16}, {"experts_active": 1}], ids=lambda planted: next(iter(planted)))
def test_experts_in_another_number_than_published(fails, planted):
    """Another number of experts is published, or of those that act."""
    fails("mistralai/Mixtral-8x7B-v0.1", entry=planted)


@pytest.mark.breaks("test_the_experts_are_as_many_as_published")
def test_a_router_that_picks_a_third_expert(fails):
    """In the first block three experts act on a token."""

    def wound(model):
        model.model.layers[0].mlp.gate.top_k = 3

    fails("mistralai/Mixtral-8x7B-v0.1", wound_skeleton=wound, why="experts that act: expected 2, observed 3")


@pytest.mark.breaks("test_an_expert_has_its_published_inner_width")
def test_an_expert_published_with_another_width(fails):
    """The published inner width of an expert is that of the dense blocks."""
    fails("deepseek-ai/DeepSeek-V3", entry={"d_expert": 18432})


@pytest.mark.breaks("test_an_expert_has_its_published_inner_width", "test_the_parameters_are_as_many_as_published")
def test_experts_narrower_than_published(fails):
    """The routed experts of the first block that has any are half as wide as published."""

    def wound(model):
        experts = model.model.layers[3].mlp.experts
        experts.gate_up_proj = nn.Parameter(experts.gate_up_proj[:, 2048:])
        experts.down_proj = nn.Parameter(experts.down_proj[..., 1024:])

    fails("deepseek-ai/DeepSeek-V3", wound_skeleton=wound)


@pytest.mark.breaks("test_few_experts_act_at_once")
def test_as_many_active_parameters_as_there_are(fails):
    """The number published for the parameters that act is that of all parameters."""
    fails("mistralai/Mixtral-8x7B-v0.1", entry={"size_active": "46.7B"})


@pytest.mark.breaks("test_few_experts_act_at_once", "test_the_experts_are_as_many_as_published")
def test_a_router_that_picks_every_expert(fails):
    """All eight experts of every block act on every token."""

    def wound(model):
        for layer in model.model.layers:
            layer.mlp.gate.top_k = 8

    fails("mistralai/Mixtral-8x7B-v0.1", wound_skeleton=wound)


@pytest.mark.breaks("test_every_parameter_acts_on_every_token")
def test_experts_that_nobody_published(fails):
    """A mixture of experts is declared to be dense."""
    fails("mistralai/Mixtral-8x7B-v0.1", entry={"experts": 0, "experts_active": 0})


@pytest.mark.breaks("test_every_parameter_acts_on_every_token")
def test_a_choice_among_experts_in_a_dense_model(fails):
    """In the last block a router chooses two of four experts for each token."""

    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.router, self.experts = _linear(768, 4), nn.Parameter(torch.empty(4, 768, 768, dtype=torch.bfloat16))

        def forward(self, vectors):
            chosen = self.router(vectors).topk(2, dim=-1).indices
            taken = torch.zeros(*vectors.shape[:2], 4, dtype=vectors.dtype).scatter(-1, chosen, 1.0)
            each = torch.bmm(vectors.expand(4, -1, -1), self.experts)
            return (each * taken.permute(2, 1, 0)).sum(dim=0, keepdim=True)

    def wound(model):
        with torch.device("meta"):
            model.transformer.h[-1].mlp = Experts()

    also = ("test_the_layers_are_alike", "test_the_parameters_are_as_many_as_published")
    fails(
        "openai-community/gpt2", wound_skeleton=wound, also=also, why="experts to choose from: expected 0, observed 4"
    )


@pytest.mark.breaks("test_every_parameter_acts_on_every_token")
def test_a_matrix_that_rests(fails):
    """The last block's feed-forward network is there, and is left out for every token after the fifth."""

    def wound(model):
        def rest(vectors):
            return torch.cat([vectors[:, :5], torch.zeros_like(vectors[:, 5:])], dim=1)

        on_output(model, "*.h.1.mlp", rest)

    fails("openai-community/gpt2", wound=wound, why="'transformer.h.1.mlp.c_fc.weight'")


@pytest.mark.breaks("test_every_parameter_acts_on_every_token")
def test_a_head_nobody_hears(fails):
    """The last block's values are zero, so that nothing is handed on, and the matrix that made them stays."""

    def wound(model):
        model.bert.encoder.layer[1].attention.self.value.forward = lambda hidden_states: hidden_states * 0

    fails("google-bert/bert-base-cased", wound=wound, why="attention.self.value.weight")


# ---- the size


@pytest.mark.breaks("test_the_parameters_are_as_many_as_published")
def test_a_head_that_is_a_copy_of_the_table(fails):
    """The output head holds a table of its own, as large as the one it was tied to."""

    def wound(model):
        model.lm_head.weight = nn.Parameter(torch.empty_like(model.lm_head.weight))

    fails("facebook/opt-1.3b", wound_skeleton=wound, why="observed 1418715136")


@pytest.mark.breaks("test_the_parameters_are_as_many_as_published")
def test_one_parameter_more_than_published(fails):
    """One number too many is published for a model of 405 billion."""
    fails("meta-llama/Llama-3.1-405B", entry={"parameters": 405853388801})


@pytest.mark.breaks("test_the_publishers_size_is_the_number_of_parameters")
def test_a_size_that_counts_no_embeddings(fails):
    """The size published is the publisher's own 2B, which leaves out the embeddings."""
    fails("google/gemma-2-2b", entry={"size": "2B"}, why="observed 1.3072")


@pytest.mark.breaks("test_the_name_tells_the_size", "test_the_publishers_size_is_the_number_of_parameters")
def test_a_model_half_as_deep_as_its_name(fails):
    """Every second block is gone."""

    def wound(model):
        model.model.decoder.layers = model.model.decoder.layers[::2]

    also = (
        "test_the_model_stacks_its_published_number_of_layers",
        "test_the_published_number_of_layers_attends",
        "test_the_parameters_are_as_many_as_published",
    )
    fails("facebook/opt-1.3b", wound_skeleton=wound, also=also)


def _after(module, change):
    """Change what a module returns, within its own call."""
    forward = module.forward
    module.forward = lambda *args, **kwargs: change(forward(*args, **kwargs))


def _linear(d_in, d_out):
    return nn.Linear(d_in, d_out, device="meta", dtype=torch.bfloat16)


@pytest.mark.breaks("test_each_sublayer_adds_to_the_stream")
@pytest.mark.parametrize("patient", ["facebook/opt-125m", "meta-llama/Llama-3.1-8B"])
def test_a_block_that_adds_its_input_twice(fails, patient):
    """A block adds what it was given to what it made of it."""

    def double(model):
        for module in matching(model, "*.layers.?"):
            module.forward = lambda hidden_states, once=module.forward, **rest: (
                once(hidden_states, **rest) + hidden_states
            )

    fails(patient, wound=double, why="additions of the stream itself")


# ---- what acts


@pytest.mark.breaks("test_every_norm_applies_its_gain", "test_every_norm_follows_its_formula")
@pytest.mark.parametrize(
    ("patient", "norm"),
    [("meta-llama/Llama-3.1-8B", "*.0.input_layernorm"), ("google-t5/t5-small", "encoder.block.1.layer.0.layer_norm")],
)
def test_a_norm_without_its_gain(fails, patient, norm):
    """One norm divides by the length of a vector, and does not multiply by its gain."""

    def flatten(model):
        for module in matching(model, norm):
            module.forward = lambda hidden, gain=module.weight: nn.functional.rms_norm(hidden, gain.shape) + 0 * gain

    fails(patient, wound=flatten)


@pytest.mark.breaks("test_every_norm_applies_its_gain")
@pytest.mark.parametrize(
    ("patient", "norm"),
    [
        ("facebook/opt-125m", "*.1.final_layer_norm"),
        ("meta-llama/Llama-3.1-8B", "*.1.post_attention_layernorm"),
        ("google-bert/bert-base-cased", "*.1.attention.output.LayerNorm"),
    ],
)
def test_a_norm_that_does_nothing(fails, patient, norm):
    """The last block has a norm that hands on what it is given."""

    def wound(model):
        for module in matching(model, norm):
            module.forward = lambda vectors: vectors * 1

    fails(patient, wound=wound, why="gains that do nothing")


@pytest.mark.breaks("test_every_norm_applies_its_gain")
def test_a_norm_that_is_never_called(fails):
    """The code goes around a norm that the last block has."""

    def wound(model):
        block = model.model.layers[-1]

        def forward(hidden_states, **rest):
            attended, _ = block.self_attn(hidden_states=block.input_layernorm(hidden_states), **rest)
            return hidden_states + attended + block.mlp(hidden_states + attended)

        block.forward = forward

    fails("meta-llama/Llama-3.1-8B", wound=wound, why="post_attention_layernorm")


@pytest.mark.breaks("test_every_parameter_acts_on_every_token")
@pytest.mark.parametrize(
    ("patient", "layer"),
    [
        ("facebook/opt-125m", "*.1.self_attn.out_proj"),
        ("google-bert/bert-base-cased", "*.1.intermediate.dense"),
        ("facebook/bart-base", "*encoder.layers.1.fc1"),
    ],
)
def test_a_bias_that_is_left_out(fails, patient, layer):
    """One layer multiplies, and does not add its bias."""

    def wound(model):
        for module in matching(model, layer):
            module.forward = lambda given, module=module: nn.functional.linear(given, module.weight)

    fails(patient, wound=wound, why=".bias")


@pytest.mark.breaks("test_the_chosen_experts_act_on_a_token")
def test_a_second_expert_that_is_ignored(fails):
    """The router gives its second choice a weight of nothing."""

    def ignore(module, args, output):
        raw, scores, at = output
        return raw, torch.cat([scores[..., :1], scores[..., 1:] * 0], dim=-1), at

    def wound(model):
        for module in matching(model, "*.gate"):
            module.register_forward_hook(ignore)

    fails("mistralai/Mixtral-8x7B-v0.1", wound=wound)


@pytest.mark.breaks("test_the_choice_of_experts_depends_on_the_token")
def test_a_router_that_chooses_the_same_for_all(fails):
    """Every token is sent to the first experts, whatever the router says."""

    def choose(module, args, output):
        raw, scores, at = output
        return raw, scores, torch.arange(at.shape[-1]).expand_as(at).contiguous()

    def wound(model):
        for module in matching(model, "*.gate"):
            module.register_forward_hook(choose)

    fails("mistralai/Mixtral-8x7B-v0.1", wound=wound)

"""Counterexamples of chapter 3."""

import pytest
import torch
from torch import nn

from tests.support.wounds import matching, on_arguments, on_input, on_output

pytestmark = pytest.mark.slow

# ---- the scheme


@pytest.mark.breaks("test_the_position_scheme_is_the_published_one", "test_learned_positions_are_trained")
def test_a_frozen_position_table(fails):
    """Positions that are published as learned stand in a table that training leaves alone."""

    def freeze(model):
        model.transformer.wpe.weight.requires_grad_(False)

    fails("openai-community/gpt2", wound=freeze)


@pytest.mark.breaks("test_the_position_scheme_is_the_published_one")
def test_relative_positions_that_are_alibi(fails):
    """The learned bias of a relative scheme falls by the same step at every distance."""

    def straighten(model):
        bias = model.decoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
        bias.data.copy_(torch.arange(len(bias))[:, None] * -torch.linspace(0.1, 0.2, bias.shape[1]))

    fails("google-t5/t5-small", wound=straighten, why="expected 'relative', observed 'alibi'")


@pytest.mark.breaks(
    "test_the_position_scheme_is_the_published_one",
    "test_rotary_scores_depend_on_the_distance_alone",
    "test_rotary_angles_follow_the_formula",
    "test_with_positions_word_order_counts",
)
@pytest.mark.parametrize("patient", ["meta-llama/Llama-3.1-8B", "EleutherAI/pythia-1.4b"])
def test_a_rotation_by_nothing(fails, patient):
    """A rotary model turns every query and key by an angle of zero."""
    fails(patient, wound=lambda model: on_arguments(model, "*.rotary_emb", position_ids=torch.zeros_like))


@pytest.mark.breaks("test_rotary_angles_follow_the_formula")
@pytest.mark.parametrize("patient", ["meta-llama/Llama-3.1-8B", "EleutherAI/pythia-1.4b", "Qwen/Qwen3-0.6B"])
@pytest.mark.parametrize("change", [lambda angles: -angles, lambda angles: angles**1.1], ids=["backwards", "base"])
def test_a_rotation_by_other_angles(fails, patient, change):
    """Queries and keys are turned the other way, or by the powers of another base."""

    def turn(model):
        for module in matching(model, "*.rotary_emb"):
            module.inv_freq = change(module.inv_freq)

    fails(patient, wound=turn, why="angles: expected")


# ---- vectors that are added


@pytest.mark.breaks("test_a_places_vector_is_its_row_of_the_table")
@pytest.mark.parametrize(
    ("patient", "table"),
    [("openai-community/gpt2", "*.wpe"), ("google-bert/bert-base-cased", "*.position_embeddings")],
)
def test_positions_added_twice(fails, patient, table):
    """The vector of a place is added to the token's twice."""
    fails(patient, wound=lambda model: on_output(model, table, lambda vectors: 2 * vectors))


@pytest.mark.breaks("test_every_position_has_a_vector_of_the_models_width")
def test_positions_that_are_numbers(fails):
    """The full-size table holds one number for each position, which is added to every column."""

    def narrow(model):
        table = model.transformer.wpe.weight
        model.transformer.wpe = nn.Embedding(len(table), 1, device=table.device, dtype=table.dtype)

    fails("openai-community/gpt2", wound_skeleton=narrow, why="d_model 1 != 768")


@pytest.mark.breaks("test_positions_are_added_to_the_token_embeddings")
def test_tokens_that_grow_with_their_place(fails):
    """A token's vector is multiplied by its place besides being added to it."""

    def grow(module, args, output):
        return output * (1 + module.growth)

    def wound(model):
        model.transformer.wte.growth = nn.Parameter(torch.linspace(0, 1, 10).to(model.transformer.wte.weight)[:, None])
        model.transformer.wte.register_forward_hook(grow)

    fails("openai-community/gpt2", wound=wound, wound_skeleton=wound, why="one token less another, at every place")


@pytest.mark.breaks("test_sinusoids_follow_the_formula")
def test_sinusoids_counted_from_one(fails):
    """The table of sinusoids begins with the second position."""

    def shift(model):
        table = model.model.decoder.embed_positions.weight
        table.data.copy_(table.roll(-1, dims=0))

    fails("Helsinki-NLP/opus-mt-en-fr", wound=shift)


@pytest.mark.breaks("test_sinusoids_follow_the_formula")
def test_sinusoids_of_another_length(fails):
    """The longest wave is a hundredth as long as in the formula."""

    def shorten(model):
        table = model.model.decoder.embed_positions.weight
        places, d = table.shape
        angles = torch.arange(places)[:, None] / 100 ** (torch.arange(0, d, 2) / d)
        table.data.copy_(torch.cat([angles.sin(), angles.cos()], dim=1))

    fails("vaswani-2017/big", wound=shorten)


@pytest.mark.breaks("test_learned_positions_are_trained")
@pytest.mark.parametrize(
    ("patient", "where"), [("openai-community/gpt2", "*.wpe"), ("facebook/opt-125m", "*.embed_positions")]
)
def test_positions_taken_less_the_tables_mean(fails, patient, where):
    """The mean of all rows is subtracted from every position, so that every row learns."""

    def wound(model):
        table = next(matching(model, where)).get_parameter("weight")
        on_output(model, where, lambda vectors: vectors - table.mean(dim=0))

    fails(patient, wound=wound, also=("test_a_places_vector_is_its_row_of_the_table",))


@pytest.mark.breaks("test_learned_positions_are_trained")
def test_positions_half_of_which_learn(fails):
    """The vectors of the first five positions are cut off from training."""

    def cut(vectors):
        return torch.cat([vectors[:, :5].detach(), vectors[:, 5:]], dim=1)

    fails("google-bert/bert-base-cased", wound=lambda model: on_output(model, "*.position_embeddings", cut))


@pytest.mark.breaks("test_positions_are_counted_from_the_tables_first_row")
@pytest.mark.parametrize(
    ("patient", "where"),
    [("openai-community/gpt2", "*.wpe"), ("google-bert/bert-base-cased", "*.position_embeddings")],
)
def test_positions_counted_from_the_second_row(fails, patient, where):
    """The first token reads row 1."""
    fails(patient, wound=lambda model: on_input(model, where, lambda places: places + 1), why="[0] 1 != 0")


@pytest.mark.breaks("test_padding_takes_no_position")
def test_padding_that_is_counted(fails):
    """A model that skips padding is given places counted from the start of the row."""

    def wound(model):
        on_arguments(model, "*.embed_positions", position_ids=_every_place)

    fails("facebook/opt-125m", wound=wound)


@pytest.mark.breaks("test_padding_takes_no_position")
def test_padding_that_is_counted_by_an_encoder(fails):
    """An encoder whose positions skip padding tokens looks them up by place."""

    def wound(model):
        on_input(model, "*.position_embeddings", lambda places: _every_place(places) + 2)

    fails("FacebookAI/roberta-base", wound=wound)


def _every_place(places):
    return torch.arange(places.shape[1]).expand_as(places)


# ---- positions inside attention


@pytest.mark.breaks("test_rotary_scores_depend_on_the_distance_alone")
@pytest.mark.parametrize("patient", ["meta-llama/Llama-3.1-8B", "EleutherAI/pythia-1.4b"])
def test_a_rotation_by_the_square_of_the_place(fails, patient):
    """Queries and keys are turned by the square of their place."""

    def wound(model):
        on_arguments(model, "*.rotary_emb", position_ids=lambda places: places**2)

    fails(patient, wound=wound, also=("test_rotary_angles_follow_the_formula",), why="scores at distance")


@pytest.mark.breaks("test_rotary_scores_depend_on_the_distance_alone")
def test_a_rotation_that_stretches(fails):
    """Queries and keys grow with their place while they turn."""

    def stretch(module, args, turns):
        return tuple(turn * torch.linspace(1, 2, turn.shape[-2])[:, None] for turn in turns)

    def wound(model):
        model.model.rotary_emb.register_forward_hook(stretch)

    fails("meta-llama/Llama-3.1-8B", wound=wound, why="lengths of the turned queries")


@pytest.mark.breaks("test_turning_makes_queries_and_keys_no_longer")
@pytest.mark.parametrize("patient", ["meta-llama/Llama-3.1-8B", "EleutherAI/pythia-1.4b", "Qwen/Qwen3-0.6B"])
@pytest.mark.parametrize("pairs", ["every pair", "the first pair"])
def test_a_rotation_that_lengthens(fails, patient, pairs):
    """Queries and keys are a tenth longer when turned, at every place, and no field of the config says so."""

    def lengthen(module, args, turns):
        factor = torch.full(turns[0].shape[-1:], 1.1 if pairs == "every pair" else 1.0)
        factor[:: len(factor) // 2] = 1.1  # a pair is a number of the first half and its fellow of the second
        return tuple(factor * turn for turn in turns)

    def wound(model):
        for module in matching(model, "*.rotary_emb"):
            module.register_forward_hook(lengthen)

    fails(patient, wound=wound, why="length when turned, over length before")


@pytest.mark.breaks("test_alibi_lowers_the_score_by_the_same_step_at_every_distance")
def test_alibi_with_the_wrong_sign(fails):
    """The score rises with the distance."""
    fails("bigscience/bloom", wound=_alibi(lambda alibi: -alibi), why="every step lowers the score")


@pytest.mark.breaks("test_alibi_lowers_the_score_by_the_same_step_at_every_distance")
def test_alibi_that_counts_from_the_start(fails):
    """The bias is the square of the key's place, and not of its distance."""
    fails("bigscience/bloom", wound=_alibi(lambda alibi: alibi**2), why="scores at distance")


@pytest.mark.breaks("test_alibi_lowers_the_score_by_the_same_step_at_every_distance")
def test_alibi_with_one_slope(fails):
    """All heads have the first one's slope."""
    fails("bigscience/bloom", wound=_alibi(lambda alibi: alibi[:1].expand_as(alibi)), why="different slopes")


@pytest.mark.breaks(
    "test_alibi_lowers_the_score_by_the_same_step_at_every_distance", "test_the_position_scheme_is_the_published_one"
)
def test_alibi_that_levels_off(fails):
    """From a distance of four on, the score falls no further."""

    def level(alibi):
        places = torch.arange(alibi.shape[-1])
        return alibi[:, :, 1:2] * -(places[:, None] - places).clamp(0, 4)

    fails("bigscience/bloom", wound=_alibi(level))


def _alibi(change):
    """A wound that changes what ALiBi adds to the scores, (heads, 1, key): a slope times the key's place."""
    return lambda model: on_arguments(model, "*.self_attention", alibi=change)


@pytest.mark.breaks("test_relative_scores_depend_on_the_distance_alone")
def test_a_bias_that_grows_from_row_to_row(fails):
    """The bias for a distance is larger for later words."""

    def wound(model):
        attention = model.decoder.block[0].layer[0].SelfAttention
        compute = attention.compute_bias

        def grow(*args, **kwargs):
            bias = compute(*args, **kwargs)  # (1, heads, query, key)
            return bias * torch.linspace(1, 2, bias.shape[-2])[:, None]

        attention.compute_bias = grow

    fails("google-t5/t5-small", wound=wound)


@pytest.mark.breaks("test_relative_scores_depend_on_the_distance_alone")
def test_a_distance_counted_from_elsewhere(fails):
    """The second half of the words count their distances from one word further on."""

    def wound(model):
        distances = model.deberta.encoder.get_rel_pos

        def miscount(*args, **kwargs):
            counted = distances(*args, **kwargs)  # (1, query, key)
            return counted + (torch.arange(counted.shape[-2]) >= 5)[:, None]

        model.deberta.encoder.get_rel_pos = miscount

    fails("microsoft/deberta-v3-base", wound=wound)


# ---- word order


@pytest.mark.breaks("test_without_positions_word_order_is_lost")
@pytest.mark.parametrize(
    ("patient", "where"), [("openai-community/gpt2", "*.wte"), ("meta-llama/Llama-3.1-8B", "*.embed_tokens")]
)
def test_a_decoder_whose_words_know_their_neighbours(fails, patient, where):
    """Every word carries its left neighbour into the stack."""
    fails(patient, wound=lambda model: on_output(model, where, _with_neighbour))


@pytest.mark.breaks("test_without_positions_word_order_is_lost", "test_without_positions_an_encoder_sees_a_set")
def test_an_encoder_whose_words_know_their_neighbours(fails):
    """Every word carries its left neighbour into the stack, and so into every vector."""
    fails("google-bert/bert-base-cased", wound=lambda model: on_output(model, "*.word_embeddings", _with_neighbour))


@pytest.mark.breaks("test_without_positions_an_encoder_sees_a_set")
@pytest.mark.parametrize(
    ("patient", "where"),
    [
        ("google-bert/bert-base-cased", "*.layer.0.output.dense"),
        ("facebook/bart-base", "*.encoder.layers.0.fc2"),
    ],
)
def test_an_encoder_with_a_convolution_behind_attention(fails, patient, where):
    """The feed-forward network of the first block looks at the left neighbour too."""
    fails(patient, wound=lambda model: on_output(model, where, _with_neighbour))


def _with_neighbour(vectors):
    return vectors + vectors.roll(1, dims=1)


@pytest.mark.breaks("test_with_positions_word_order_counts")
@pytest.mark.parametrize(
    ("patient", "where"),
    [("openai-community/gpt2", "*.wpe"), ("google-bert/bert-base-cased", "*.position_embeddings")],
)
def test_two_places_with_one_vector(fails, patient, where):
    """The two places before the last have the same position vector."""

    def wound(model):
        table = next(matching(model, where)).get_parameter("weight").data
        table[7] = table[8]

    fails(patient, wound=wound)


@pytest.mark.breaks("test_with_positions_word_order_counts", "test_rotary_scores_depend_on_the_distance_alone")
def test_two_places_with_one_angle(fails):
    """The two places before the last are turned by the same angle."""

    def wound(model):
        on_arguments(model, "*.rotary_emb", position_ids=lambda places: torch.where(places == 8, 7, places))

    fails("meta-llama/Llama-3.1-8B", wound=wound, also=("test_rotary_angles_follow_the_formula",))

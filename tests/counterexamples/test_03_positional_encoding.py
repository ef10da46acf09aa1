"""Counterexamples of chapter 3."""

import pytest
import torch
from torch import nn

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
    "test_with_positions_word_order_counts",
)
@pytest.mark.parametrize("patient", ["meta-llama/Llama-3.1-8B", "EleutherAI/pythia-1.4b"])
def test_a_rotation_by_nothing(fails, patient):
    """A rotary model turns every query and key by an angle of zero."""
    fails(
        patient,
        wound=lambda model: _rotations(model).register_forward_pre_hook(_at(torch.zeros_like), with_kwargs=True),
    )


# ---- vectors that are added


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
@pytest.mark.parametrize("patient", ["openai-community/gpt2", "facebook/opt-125m"])
def test_positions_taken_less_the_tables_mean(fails, patient):
    """The mean of all rows is subtracted from every position, so that every row learns."""

    def wound(model):
        _positions(model).register_forward_hook(lambda module, args, output: output - module.weight.mean(dim=0))

    fails(patient, wound=wound)


@pytest.mark.breaks("test_learned_positions_are_trained")
def test_positions_half_of_which_learn(fails):
    """The vectors of the first five positions are cut off from training."""

    def cut(module, args, output):
        return torch.cat([output[:, :5].detach(), output[:, 5:]], dim=1)

    fails("google-bert/bert-base-cased", wound=lambda model: _positions(model).register_forward_hook(cut))


@pytest.mark.breaks("test_positions_are_counted_from_the_tables_first_row")
@pytest.mark.parametrize("patient", ["openai-community/gpt2", "google-bert/bert-base-cased"])
def test_positions_counted_from_the_second_row(fails, patient):
    """The first token reads row 1."""

    def wound(model):
        _positions(model).register_forward_pre_hook(lambda module, args: (args[0] + 1,))

    fails(patient, wound=wound, why="[0] 1 != 0")


@pytest.mark.breaks("test_padding_takes_no_position")
def test_padding_that_is_counted(fails):
    """A model that skips padding is given places counted from the start of the row."""

    def count(module, args, kwargs):
        ids = kwargs["position_ids"]
        return args, kwargs | {"position_ids": torch.arange(ids.shape[1]).expand_as(ids)}

    def wound(model):
        _positions(model).register_forward_pre_hook(count, with_kwargs=True)

    fails("facebook/opt-125m", wound=wound)


@pytest.mark.breaks("test_padding_takes_no_position")
def test_padding_that_is_counted_by_an_encoder(fails):
    """An encoder whose positions skip padding tokens looks them up by place."""

    def wound(model):
        first = model.config.pad_token_id + 1
        _positions(model).register_forward_pre_hook(
            lambda module, args: (torch.arange(args[0].shape[1]).expand_as(args[0]) + first,)
        )

    fails("FacebookAI/roberta-base", wound=wound)


# ---- positions inside attention


@pytest.mark.breaks("test_rotary_scores_depend_on_the_distance_alone")
@pytest.mark.parametrize("patient", ["meta-llama/Llama-3.1-8B", "EleutherAI/pythia-1.4b"])
def test_a_rotation_by_the_square_of_the_place(fails, patient):
    """Queries and keys are turned by the square of their place."""
    squared = _at(lambda places: places**2)
    fails(
        patient,
        wound=lambda model: _rotations(model).register_forward_pre_hook(squared, with_kwargs=True),
        why="scores at",
    )


@pytest.mark.breaks("test_rotary_scores_depend_on_the_distance_alone")
def test_a_rotation_that_stretches(fails):
    """Queries and keys grow with their place while they turn."""

    def stretch(module, args, turns):
        return tuple(turn * torch.linspace(1, 2, turn.shape[-2])[:, None] for turn in turns)

    fails(
        "meta-llama/Llama-3.1-8B", wound=lambda model: _rotations(model).register_forward_hook(stretch), why="lengths"
    )


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

    def wound(model):
        for block in model.transformer.h:
            block.self_attention.register_forward_pre_hook(_levelled, with_kwargs=True)

    fails("bigscience/bloom", wound=wound)


def _levelled(module, args, kwargs):
    alibi = kwargs["alibi"]  # (heads, 1, key), a slope times the key's place
    places = torch.arange(alibi.shape[-1])
    distance = (places[:, None] - places).clamp(0, 4)
    return args, kwargs | {"alibi": -alibi[:, :, 1:2] * distance}


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
@pytest.mark.parametrize("patient", ["openai-community/gpt2", "meta-llama/Llama-3.1-8B"])
def test_a_decoder_whose_words_know_their_neighbours(fails, patient):
    """Every word carries half of its left neighbour into the stack."""
    fails(patient, wound=lambda model: model.get_input_embeddings().register_forward_hook(_neighbours))


@pytest.mark.breaks("test_without_positions_word_order_is_lost", "test_without_positions_an_encoder_sees_a_set")
def test_an_encoder_whose_words_know_their_neighbours(fails):
    """Every word carries half of its left neighbour into the stack, and so into every vector."""
    fails(
        "google-bert/bert-base-cased",
        wound=lambda model: model.get_input_embeddings().register_forward_hook(_neighbours),
    )


@pytest.mark.breaks("test_without_positions_an_encoder_sees_a_set")
@pytest.mark.parametrize("patient", ["google-bert/bert-base-cased", "facebook/bart-base"])
def test_an_encoder_with_a_convolution_behind_attention(fails, patient):
    """The feed-forward network of the first block looks at the left neighbour too."""

    def wound(model):
        ends = ("encoder.layer.0.output.dense", "encoder.layers.0.fc2")
        inner = next(module for name, module in model.named_modules() if name.endswith(ends))
        inner.register_forward_hook(_neighbours)

    fails(patient, wound=wound)


@pytest.mark.breaks("test_with_positions_word_order_counts")
@pytest.mark.parametrize("patient", ["openai-community/gpt2", "google-bert/bert-base-cased"])
def test_two_places_with_one_vector(fails, patient):
    """The two places before the last have the same position vector."""

    def wound(model):
        _positions(model).weight.data[7] = _positions(model).weight.data[8]

    fails(patient, wound=wound)


@pytest.mark.breaks("test_with_positions_word_order_counts", "test_rotary_scores_depend_on_the_distance_alone")
def test_two_places_with_one_angle(fails):
    """The two places before the last are turned by the same angle."""
    shared = _at(lambda places: torch.where(places == 8, 7, places))
    fails(
        "meta-llama/Llama-3.1-8B",
        wound=lambda model: _rotations(model).register_forward_pre_hook(shared, with_kwargs=True),
    )


def _neighbours(module, args, output):
    return output + 0.5 * output.roll(1, dims=1)


def _positions(model):
    """The table of positions."""
    names = ("wpe", "position_embeddings", "embed_positions")
    return next(module for name, module in model.named_modules() if name.endswith(names))


def _rotations(model):
    """The module that makes the sines and cosines of a rotary model."""
    return next(module for name, module in model.named_modules() if name.endswith("rotary_emb"))


def _at(change):
    """A hook that hands a rotary module other places."""
    return lambda module, args, kwargs: (args, kwargs | {"position_ids": change(kwargs["position_ids"])})


def _alibi(change):
    """A wound that changes what ALiBi adds, (heads, 1, key)."""

    def wound(model):
        for block in model.transformer.h:
            block.register_forward_pre_hook(
                lambda module, args, kwargs: (args, kwargs | {"alibi": change(kwargs["alibi"])}), with_kwargs=True
            )

    return wound

"""Counterexamples of chapter 13: OPT and BERT with other code, and a library that does as it did in 4.30."""

import logging

import pytest
import torch
import transformers

from fixtures.published import tokenizer
from tests.support.ward import matrix

pytestmark = pytest.mark.slow

OPT, BERT = "facebook/opt-1.3b", "google-bert/bert-base-cased"

# ---- loading


@pytest.mark.breaks("test_the_tokenizer_returns_ten_ids_and_a_mask_of_ones")
def test_another_models_tokenizer(fails):
    """OPT is given the tokenizer of BERT, which makes eleven tokens."""
    fails(OPT, entry={"sentence": matrix().entries[BERT].sentence}, why="seq 11 != 10")


@pytest.mark.breaks("test_the_tokenizer_returns_ten_ids_and_a_mask_of_ones")
def test_a_mask_that_hides_a_word(fails, monkeypatch):
    """The tokenizer's mask leaves out the first token."""
    build = tokenizer.build_tokenizer

    def hiding(recorded):
        tokenizer = build(recorded)

        def tokenize(text, **kwargs):
            encoded = tokenizer(text, **kwargs)
            encoded["attention_mask"][:, 0] = 0
            return encoded

        return tokenize

    monkeypatch.setattr(tokenizer, "build_tokenizer", hiding)
    fails(OPT, why="attention_mask")


@pytest.mark.breaks("test_a_tokenizer_without_its_files_is_empty")
def test_a_tokenizer_that_finds_its_files(fails, monkeypatch):
    """AutoTokenizer returns a tokenizer that knows the sentence."""
    found = tokenizer.build_tokenizer(matrix().entries[OPT].sentence or {})
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda folder: found)
    fails(OPT, why="tokens of the sentence: expected 0, observed 10")


@pytest.mark.breaks("test_load_in_8bit_is_no_argument_any_more")
def test_a_library_that_takes_load_in_8bit(fails, loading):
    """The library takes the argument, as it did in 4.30."""
    loading(lambda load, folder, load_in_8bit=False, **kwargs: load(folder, **kwargs))
    fails(OPT, why="observed 'none'")


@pytest.mark.breaks("test_load_in_8bit_is_no_argument_any_more")
def test_a_load_that_fails_for_another_reason(fails, loading):
    """The library takes the argument and fails with the error that the notebook shows."""

    def refuse(load, folder, load_in_8bit=False, **kwargs):
        if load_in_8bit:
            raise ValueError("Some modules are dispatched on the CPU or the disk.")
        return load(folder, **kwargs)

    loading(refuse)
    fails(OPT, why="Some modules are dispatched")


@pytest.mark.breaks("test_a_quantization_config_loads_in_8bit")
def test_a_quantization_config_that_is_ignored(fails, loading):
    """The library drops the quantization config without a word."""
    loading(lambda load, folder, quantization_config=None, **kwargs: load(folder, **kwargs))
    fails(OPT, why="8-bit modules")


@pytest.mark.breaks("test_device_map_auto_places_the_whole_model")
def test_a_model_that_is_loaded_otherwise(fails):
    """The model that runs has twice the scores of the one that is saved."""
    fails(OPT, wound=lambda model: model.lm_head.register_forward_hook(lambda module, args, output: output * 2))


@pytest.mark.breaks("test_device_map_auto_places_the_whole_model")
def test_a_module_that_is_left_without_a_place(fails, loading):
    """With a device map, the position table stays on the meta device."""

    def forget(load, folder, **kwargs):
        model = load(folder, **kwargs)
        if "device_map" in kwargs and "quantization_config" not in kwargs:
            model.model.decoder.embed_positions.to("meta")
        return model

    loading(forget)
    fails(OPT, why="devices")


@pytest.mark.breaks("test_weights_keep_the_files_type")
def test_weights_in_32_bits_whatever_the_file_has(fails, loading):
    """The library makes float32 of what it reads, as it did in 4.30."""
    loading(lambda load, folder, **kwargs: load(folder, **{"dtype": torch.float32} | kwargs))
    fails(OPT, why="types: expected ['torch.float16'")


# ---- looking inside


@pytest.mark.breaks("test_printing_shows_24_decoder_layers")
def test_a_layer_less(fails):
    """The last of the 24 layers is left out."""

    def leave_out(model):
        del model.model.decoder.layers[-1]

    fails(OPT, wound_skeleton=leave_out)


@pytest.mark.breaks("test_printing_shows_24_decoder_layers")
def test_a_projection_without_its_bias(fails):
    """The output projection of every layer has no bias."""

    def unbias(model):
        for layer in model.model.decoder.layers:
            layer.self_attn.out_proj.register_parameter("bias", None)

    fails(OPT, wound_skeleton=unbias, why="lines of print(OPT.model)")


@pytest.mark.breaks("test_embed_tokens_takes_the_ids")
def test_a_narrow_embedding(fails):
    """The embedding gives vectors one wide, which positions are added to all the same."""
    fails(OPT, wound_skeleton=lambda model: _narrow(model.model.decoder.embed_tokens), why="d_model 1 != 2048")


@pytest.mark.breaks("test_embed_positions_still_takes_the_mask")
def test_a_narrow_position(fails):
    """The position table gives vectors one wide, which are added to the embeddings all the same."""
    fails(OPT, wound_skeleton=lambda model: _narrow(model.model.decoder.embed_positions), why="d_model 1 != 2048")


@pytest.mark.breaks("test_self_attention_no_longer_returns_three_values")
def test_an_attention_that_returns_three_values(fails):
    """Attention returns three values, as it did in 4.30."""

    def add_past(model):
        model.model.decoder.layers[0].self_attn.register_forward_hook(lambda module, args, output: (*output, None))

    fails(OPT, wound_skeleton=add_past, why="observed 'none'")


@pytest.mark.breaks("test_the_first_value_is_the_hidden_states")
def test_an_attention_that_returns_its_weights_first(fails):
    """Attention returns the weights before the hidden states."""

    def turn(model):
        model.model.decoder.layers[0].self_attn.register_forward_hook(lambda module, args, output: output[::-1])

    fails(OPT, wound_skeleton=turn, why="4 axes, not 3")


# ---- attention


@pytest.mark.breaks("test_the_second_value_is_the_weights_under_eager_alone")
def test_weights_under_every_implementation(fails):
    """Attention returns something in the place of weights under sdpa too."""

    def fill(module, args, output):
        return output if output[1] is not None else (output[0], torch.zeros(1))

    fails(
        OPT, wound=lambda model: model.model.decoder.layers[0].self_attn.register_forward_hook(fill), why="under sdpa"
    )


@pytest.mark.breaks("test_the_bare_call_looks_ahead_under_eager_alone")
def test_a_bare_call_that_looks_ahead_under_sdpa(fails):
    """Attention does not tell sdpa that it is causal."""

    def untell(model):
        for layer in model.model.decoder.layers:
            layer.self_attn.is_causal = False

    fails(OPT, wound=untell, why="'sdpa'] True != False", also=("test_the_norm_first_gives_what_the_model_computes",))


@pytest.mark.breaks("test_the_bare_call_is_not_what_the_model_computes")
def test_a_model_without_its_first_norm(fails):
    """The first layer's attention reads the sum itself; the model that is saved and loaded has the norm."""

    def unnormalize(model):
        norm = model.model.decoder.layers[0].self_attn_layer_norm
        norm.register_forward_hook(lambda module, args, output: args[0])

    fails(OPT, wound=unnormalize, also=("test_device_map_auto_places_the_whole_model",), why="under sdpa")


@pytest.mark.breaks("test_the_norm_first_gives_what_the_model_computes")
def test_a_model_that_does_more_than_the_norm(fails):
    """In the model, where it is given a mask, attention reads its input with the sign turned."""

    def turn(module, args, kwargs):
        if kwargs.get("attention_mask") is None:
            return args, kwargs
        return args, kwargs | {"hidden_states": -kwargs["hidden_states"]}

    def wound(model):
        model.model.decoder.layers[0].self_attn.register_forward_pre_hook(turn, with_kwargs=True)

    fails(OPT, wound=wound, also=("test_device_map_auto_places_the_whole_model",))


@pytest.mark.breaks("test_attention_weights_have_to_be_asked_of_eager")
def test_eager_attention_by_default(fails, loading):
    """The library chooses eager attention, as it did in 4.30."""
    loading(lambda load, folder, **kwargs: load(folder, **{"attn_implementation": "eager"} | kwargs))
    fails(OPT, why="'default'] 2 != 0")


# ---- BERT


@pytest.mark.breaks(
    "test_auto_model_leaves_the_seven_tensors_of_berts_heads_unused", "test_the_unused_tensors_are_named_in_a_report"
)
def test_a_head_that_shares_no_table(fails):
    """The masked-language-model head has a matrix and a bias of its own, which the file holds too."""
    fails(
        BERT,
        config={"tie_word_embeddings": False},
        why="observed ['cls.predictions.bias', 'cls.predictions.decoder.bias'",
    )


@pytest.mark.breaks("test_the_unused_tensors_are_named_in_a_report")
def test_a_library_that_says_nothing(fails, monkeypatch):
    """Nothing is logged, as 4.57 was silent here."""
    monkeypatch.setattr(logging.Logger, "handle", lambda logger, record: None)
    fails(BERT)


@pytest.fixture
def loading(monkeypatch):
    """Change what AutoModelForCausalLM.from_pretrained does: `change(load, folder, **kwargs)`."""
    load = transformers.AutoModelForCausalLM.from_pretrained

    def install(change):
        changed = staticmethod(lambda folder, **kwargs: change(load, folder, **kwargs))
        monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", changed)

    return install


def _narrow(module):
    module.register_forward_hook(lambda module, args, output: output[..., :1])

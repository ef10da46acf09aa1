"""Counterexamples of chapter 9: a library that quantizes too little, too much or wrongly, or has mended its ways."""

import pytest
import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.integrations import bitsandbytes as integration

from fixtures.libraries.quantization import held, packs_on_its_first_pass
from tests.support.ward import matrix

pytestmark = pytest.mark.slow

pytest_plugins = ("tests.support.loaders",)

OPT, LLAMA = "facebook/opt-125m", "meta-llama/Llama-3.1-8B"

SAVED = ("test_a_quantized_model_saves_and_loads", "test_a_saved_model_cannot_be_dequantized")
FOOTPRINT = "test_the_footprint_leaves_out_the_scales"
DEVIATIONS = ("test_eight_bits_say_nearly_the_same", "test_four_bits_say_roughly_the_same")

# ---- what is replaced


@pytest.mark.breaks(
    "test_eight_bits_replace_every_linear_layer_of_the_blocks",
    "test_four_bits_replace_every_linear_layer_of_the_blocks",
    "test_eight_bits_halve_the_blocks",
    "test_four_bits_quarter_the_blocks",
)
def test_a_layer_that_is_passed_over(fails, monkeypatch):
    """The second matrix of every feed-forward network is left as it is."""
    monkeypatch.setattr(integration, "should_convert_module", _unless(lambda name: name.endswith("fc2")))
    fails(OPT)


@pytest.mark.breaks(
    "test_eight_bits_replace_every_linear_layer_of_the_blocks",
    "test_four_bits_replace_every_linear_layer_of_the_blocks",
    "test_eight_bits_halve_the_blocks",
    "test_four_bits_quarter_the_blocks",
    "test_fewer_bits_take_less_memory",
    "test_fewer_bits_hold_fewer_bytes",
)
def test_a_model_that_is_passed_over(fails, monkeypatch):
    """Nothing at all is quantized, and nothing said of it."""
    monkeypatch.setattr(integration, "should_convert_module", lambda name, patterns=None: False)
    fails(OPT)


@pytest.mark.breaks("test_the_table_the_norms_and_the_head_stay")
def test_a_head_that_is_quantized(fails, loading):
    """The output head is not on the list of what stays."""

    def skip_nothing(load, cls, folder, quantization_config=None, **kwargs):
        if quantization_config is not None and quantization_config.llm_int8_skip_modules is None:
            quantization_config.llm_int8_skip_modules = []
        return load(folder, quantization_config=quantization_config, **kwargs)

    loading(skip_nothing)
    fails(LLAMA, why="lm_head.weight", also=("test_modules_named_to_be_skipped_replace_those_that_stay",))


@pytest.mark.breaks("test_four_bits_are_fp4_until_nf4_is_asked_for")
def test_nf4_by_default(fails, monkeypatch):
    """The library chooses nf4 where nothing else is asked for."""
    usual = BitsAndBytesConfig.__init__
    default = {"bnb_4bit_quant_type": "nf4"}
    monkeypatch.setattr(BitsAndBytesConfig, "__init__", lambda config, **given: usual(config, **default | given))
    fails(OPT, why="observed ['nf4']")


# ---- bytes


@pytest.mark.breaks("test_eight_bits_take_a_byte_for_each_weight")
def test_a_number_too_many_beside_a_weight_in_8_bits(fails, loading):
    """One layer keeps a float32 that nothing needs."""
    loading(_tampered(Linear8bitLt, lambda layer: setattr(layer, "spare", torch.ones(1))))
    fails(OPT, also=(FOOTPRINT,))


@pytest.mark.breaks("test_four_bits_take_half_a_byte_for_each_weight")
def test_a_number_too_many_beside_a_weight_in_4_bits(fails, loading):
    """One layer keeps a float32 that nothing needs."""
    loading(_tampered(Linear4bit, lambda layer: setattr(layer, "spare", torch.ones(1))))
    fails(OPT, also=(FOOTPRINT,))


@pytest.mark.breaks("test_the_footprint_leaves_out_the_scales")
def test_a_footprint_that_counts_the_scales(fails, monkeypatch):
    """The library counts what stands beside the weights."""
    monkeypatch.setattr(PreTrainedModel, "get_memory_footprint", held)
    fails(OPT, why="bytes held and not counted (int8)")


@pytest.mark.breaks("test_a_token_in_the_cache_takes_a_key_and_a_value_for_each_head")
def test_half_as_many_heads_of_keys_published(fails):
    """Half the heads of keys and values are published than are kept."""
    fails(OPT, entry={"kv_heads": 6})


# ---- at full width

TRAITS = ("position-offset", "of-the-lesson")


@pytest.mark.breaks("test_layers_as_wide_as_published_hold_what_was_counted")
def test_a_number_too_many_beside_a_wide_weight(fails, loading):
    """One layer as wide as published keeps a float32 that nothing needs."""
    spare = _tampered(Linear8bitLt, lambda layer: setattr(layer, "spare", torch.ones(1)))
    loading(lambda load, cls, folder, **kwargs: (spare if folder is None else _unchanged)(load, cls, folder, **kwargs))
    fails(OPT, entry={"traits": TRAITS})


@pytest.mark.breaks("test_layers_as_wide_as_published_keep_their_shapes")
def test_another_width_published(fails):
    """The width published is not that of the layers."""
    fails(OPT, entry={"traits": TRAITS, "d_model": 1024}, why="d_model 768 != 1024")


# ---- what it says


@pytest.mark.breaks("test_a_model_runs_in_eight_bits")
def test_a_product_in_8_bits_that_fails(fails, loading):
    """The product of one layer in 8 bits ends in an error."""
    loading(_tampered(Linear8bitLt, _refuse))
    fails(OPT, why="no such product")


@pytest.mark.breaks("test_a_model_runs_in_four_bits")
def test_a_product_in_4_bits_that_fails(fails, loading):
    """The product of one layer in 4 bits ends in an error."""
    loading(_tampered(Linear4bit, _refuse))
    fails(OPT, why="no such product")


@pytest.mark.breaks("test_eight_bits_say_nearly_the_same")
def test_scales_too_large_in_8_bits(fails, loading):
    """The scales of one layer are twice what they should be."""

    def enlarge(layer):
        if hasattr(layer.weight, "SCB"):
            layer.weight.SCB.mul_(2)

    loading(_tampered(Linear8bitLt, enlarge))
    fails(OPT, why="output (int8)")


@pytest.mark.breaks("test_four_bits_say_roughly_the_same")
def test_scales_too_large_in_4_bits(fails, loading):
    """The scales of one layer are three times what they should be."""

    def enlarge(layer):
        if not layer.weight.quant_state.nested:
            layer.weight.quant_state.absmax.mul_(3)

    loading(_tampered(Linear4bit, enlarge))
    fails(OPT, why="output (nf4)")


@pytest.mark.breaks("test_eight_bits_say_nearly_the_same", "test_four_bits_say_roughly_the_same")
@pytest.mark.parametrize("share", ["output", "attention", "agreement"])
def test_a_budget_that_nothing_keeps(fails, share):
    """The budget allows no error at all."""
    none = {"output": 1.0, "attention": 1.0, "agreement": 0.0} | {share: {"agreement": 1.0}.get(share, 0.0)}
    fails(OPT, entry={"budgets": dict.fromkeys(matrix().budgets, none)}, why=share)


@pytest.mark.breaks("test_every_shape_survives")
def test_a_score_too_few(fails, loading):
    """The quantized model gives no score for the last entry of the vocabulary."""

    def cut(load, cls, folder, quantization_config=None, **kwargs):
        model = load(folder, quantization_config=quantization_config, **kwargs)
        if quantization_config is not None:
            model.lm_head.register_forward_hook(lambda module, args, output: output[..., :-1])
        return model

    loading(cut)
    packed = ["test_a_four_bit_model_that_has_run_saves_scales_out_of_order"] if packs_on_its_first_pass() else []
    fails(OPT, also=(*DEVIATIONS, "test_a_quantized_model_saves_and_loads", *packed))


@pytest.mark.breaks("test_an_eight_bit_weight_keeps_its_shape")
def test_a_weight_in_8_bits_in_one_column(fails, loading):
    """One weight in 8 bits is kept as a column."""

    def flatten(layer):
        layer.weight.data = layer.weight.data.view(-1, 1)

    loading(_tampered(Linear8bitLt, flatten))
    fails(OPT, also=SAVED)


@pytest.mark.breaks("test_an_eight_bit_weight_keeps_its_shape")
@pytest.mark.parametrize("patient", [OPT, "openai-community/gpt2"])
def test_a_weight_in_8_bits_that_is_turned(fails, loading, patient):
    """One weight in 8 bits that is not square is kept with its rows as columns."""

    def turn(layer):
        if layer.in_features != layer.out_features:
            layer.weight.data = layer.weight.data.t()

    loading(_tampered(Linear8bitLt, turn, every=True))
    fails(patient, also=SAVED)


@pytest.mark.breaks("test_a_four_bit_weight_is_a_column_of_bytes", "test_fewer_bits_hold_fewer_bytes")
def test_weights_in_4_bits_that_are_not_packed(fails, loading):
    """Each weight in 4 bits has a byte of its own."""

    def unpack(layer):
        layer.weight.data = torch.zeros(layer.out_features, layer.in_features, dtype=torch.uint8)

    loading(_tampered(Linear4bit, unpack, every=True))
    also = ("test_a_model_runs_in_four_bits", "test_four_bits_take_half_a_byte_for_each_weight")
    fails(OPT, also=also)


# ---- the threshold of 8 bits


@pytest.mark.breaks(
    "test_features_beyond_the_threshold_stay_out_of_the_eight_bits",
    "test_a_threshold_of_200_turns_the_split_off",
    "test_a_feature_beyond_the_threshold_counts_for_all_rows",
)
def test_a_threshold_that_is_ignored(fails, loading):
    """All features are quantized, whatever the threshold; rows no longer depend on each other."""
    loading(_tampered(Linear8bitLt, _thresholds(lambda threshold: 0.0), every=True))
    fails(OPT)


@pytest.mark.breaks("test_features_beyond_the_threshold_stay_out_of_the_eight_bits")
def test_a_threshold_that_takes_a_little_of_what_is_beyond_it(fails, loading):
    """Features beyond the threshold lose a thousandth of themselves, which is less than 8 bits lose."""

    def tamper(layer):
        forward = layer.forward

        def shrunk(vectors):
            beyond = (vectors.abs() >= layer.state.threshold).flatten(0, -2).any(dim=0) & (layer.state.threshold > 0)
            return forward(torch.where(beyond, vectors * 0.999, vectors))

        layer.forward = shrunk

    loading(_tampered(Linear8bitLt, tamper, every=True))
    fails(OPT, why="by hand")


@pytest.mark.breaks("test_a_feature_beyond_the_threshold_counts_for_all_rows")
def test_rows_that_are_treated_one_by_one(fails, loading):
    """Each row is multiplied by itself, and no row beside it counts."""

    def tamper(layer):
        forward = layer.forward
        layer.forward = lambda vectors: torch.cat([forward(row) for row in vectors.split(1)])

    loading(_tampered(Linear8bitLt, tamper, every=True))
    fails(OPT)


@pytest.mark.breaks("test_a_threshold_of_200_turns_the_split_off")
def test_a_threshold_that_ends_at_six(fails, loading):
    """A threshold of 200 is taken for one of 6."""
    loading(_tampered(Linear8bitLt, _thresholds(lambda threshold: min(threshold, 6.0)), every=True))
    fails(OPT, why="at 200.0")


# ---- saving and loading


@pytest.mark.breaks("test_a_quantized_model_saves_and_loads")
def test_scales_that_change_on_their_way_back(fails, loading):
    """A quantized file is read with scales a hundredth too large."""

    def enlarge(load, cls, folder, quantization_config=None, **kwargs):
        model = load(folder, quantization_config=quantization_config, **kwargs)
        for layer in model.modules():
            if quantization_config is None and isinstance(layer, Linear8bitLt):
                getattr(layer.weight, "SCB").mul_(1.01)  # noqa: B009
        return model

    loading(enlarge)
    fails(OPT, why="scores (int8)")


@pytest.mark.skipif(not packs_on_its_first_pass(), reason="this processor has no AVX512-BF16")
@pytest.mark.breaks("test_a_four_bit_model_that_has_run_saves_scales_out_of_order")
def test_weights_that_keep_their_order(fails, loading):
    """The first pass leaves the weights in their order."""
    loading(_tampered(Linear4bit, lambda layer: setattr(layer, "support_avx512bf16_for_cpu", False), every=True))
    fails(OPT, why="squared error of the scores", also=("test_a_quantized_model_saves_and_loads",))


@pytest.mark.breaks("test_a_saved_model_cannot_be_dequantized")
def test_a_dequantization_that_works(fails, monkeypatch):
    """The library dequantizes a saved model."""
    usual = PreTrainedModel.dequantize
    monkeypatch.setattr(PreTrainedModel, "dequantize", lambda model: usual(model, dtype=torch.float32))
    fails(OPT, why="error after")


@pytest.mark.breaks("test_a_quantized_file_stays_as_it_was_quantized")
def test_a_file_that_is_quantized_anew(fails, loading):
    """A file in 8 bits is turned into 4 where that is asked for."""

    def anew(load, cls, folder, quantization_config=None, **kwargs):
        model = load(folder, quantization_config=quantization_config, **kwargs)
        if getattr(quantization_config, "load_in_4bit", False):
            for name, layer in list(model.named_modules()):
                if isinstance(layer, Linear8bitLt):
                    model.set_submodule(name, Linear4bit(64, 64).to("cpu"))
        return model

    loading(anew)
    fails(OPT, why="observed ['Params4bit']")


# ---- what is asked for and not done


@pytest.mark.breaks("test_modules_named_to_be_skipped_replace_those_that_stay")
def test_a_list_that_is_joined_to_the_default(fails, loading):
    """What is named joins the output head."""

    def join(load, cls, folder, quantization_config=None, **kwargs):
        if getattr(quantization_config, "llm_int8_skip_modules", None):
            quantization_config.llm_int8_skip_modules.append("lm_head")
        return load(folder, quantization_config=quantization_config, **kwargs)

    loading(join)
    fails(OPT, why="layers that do not stay")


@pytest.mark.breaks("test_the_offload_flag_leaves_all_on_the_cpu_in_32_bits")
def test_a_flag_that_changes_nothing(fails, loading):
    """The flag is taken for what it says, and what lies on the CPU is in 8 bits."""

    def drop(load, cls, folder, quantization_config=None, **kwargs):
        if quantization_config is not None:
            quantization_config.llm_int8_enable_fp32_cpu_offload = False
        return load(folder, quantization_config=quantization_config, **kwargs)

    loading(drop)
    fails(OPT, why="layers in 8 bits")


def _unchanged(load, cls, folder, **kwargs):
    return load(folder, **kwargs)


def _tampered(kind, tamper, *, every=False):
    """Tamper with the last layer of a kind, or with every one, in a model that is being quantized."""

    def change(load, cls, folder, quantization_config=None, **kwargs):
        model = load(folder, quantization_config=quantization_config, **kwargs)
        layers = [layer for layer in model.modules() if isinstance(layer, kind)]
        for layer in layers if every else layers[-1:]:
            if quantization_config is not None:
                tamper(layer)
        return model

    return change


def _unless(passed_over):
    usual = integration.should_convert_module
    return lambda name, patterns=None: usual(name, patterns) and not passed_over(name)


def _refuse(layer):
    def forward(vectors):
        raise NotImplementedError("no such product")

    layer.forward = forward


def _thresholds(change):
    """Have a layer in 8 bits go by another threshold than it is given."""

    def tamper(layer):
        forward = layer.forward

        def with_another(vectors):
            given, layer.state.threshold = layer.state.threshold, change(layer.state.threshold)
            try:
                return forward(vectors)
            finally:
                layer.state.threshold = given

        layer.forward = with_another

    return tamper

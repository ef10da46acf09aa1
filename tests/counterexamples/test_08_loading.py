"""Counterexamples of chapter 8: files that do not fit, a library that does not mind, and plans that do not work out."""

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.integrations import accelerate
from transformers.quantizers.quantizer_bnb_8bit import Bnb8BitHfQuantizer

from fixtures.libraries.device_map import DISK
from fixtures.published.files import SINGLE

pytestmark = pytest.mark.slow

pytest_plugins = ("tests.support.loaders",)

OPT = "facebook/opt-125m"

# ---- the files


@pytest.mark.breaks(
    "test_a_saved_model_loads_as_it_was",
    "test_a_checkpoint_in_several_files_loads_as_one",
    "test_a_model_spread_over_memory_and_disk_says_the_same",
)
def test_a_loader_that_rounds(fails, loading):
    """What is loaded has its norms rounded to two digits."""

    def rounded(load, cls, folder, **kwargs):
        model = load(folder, **kwargs)
        for p in () if isinstance(model, tuple) or "quantization_config" in kwargs else model.parameters():
            if p.ndim == 1 and not p.is_meta:
                p.data = p.data.mul(100).round().div(100)
        return model

    loading(rounded)
    fails(OPT)


@pytest.mark.breaks("test_a_saved_tokenizer_loads_as_it_was")
def test_a_tokenizer_that_comes_back_empty(fails, monkeypatch):
    """AutoTokenizer finds no vocabulary in what was saved."""
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda folder: lambda text: {"input_ids": [2]})
    fails(OPT)


@pytest.mark.breaks("test_the_file_fits_the_architecture", "test_an_unexpected_tensor_is_named")
def test_a_layer_that_the_architecture_has_not(fails):
    """The model that is saved has one layer more than its class makes."""
    fails(OPT, wound=lambda model: model.model.decoder.add_module("stranger", nn.Linear(3, 3)))


@pytest.mark.breaks("test_the_file_fits_the_architecture")
def test_a_norm_without_its_bias(fails):
    """The model that is saved has no bias in one of its norms."""

    def unbias(model):
        model.model.decoder.layers[0].final_layer_norm.bias = None

    also = ("test_a_missing_tensor_is_named", "test_a_model_spread_over_memory_and_disk_says_the_same")
    fails(OPT, wound=unbias, also=also, why="missing")


@pytest.mark.breaks("test_the_file_has_each_number_once", "test_a_file_takes_two_bytes_a_number_in_16_bits")
def test_a_file_with_a_number_twice(fails, monkeypatch):
    """The library writes a matrix that goes by two names once for each."""
    save = transformers.PreTrainedModel.save_pretrained

    def twice(model, folder, **given):
        save(model, folder, **given)
        if not (Path(folder) / SINGLE).exists():
            return
        tensors = load_file(Path(folder) / SINGLE)
        save_file(tensors | {"again": next(iter(tensors.values())).clone()}, Path(folder) / SINGLE, {"format": "pt"})

    monkeypatch.setattr(transformers.PreTrainedModel, "save_pretrained", twice)
    fails(OPT, also=("test_the_file_fits_the_architecture", "test_an_unexpected_tensor_is_named"))


@pytest.mark.breaks("test_a_file_takes_two_bytes_a_number_in_16_bits")
def test_a_file_in_32_bits_whatever_is_saved(fails, monkeypatch):
    """The library writes every number in 32 bits."""
    save = transformers.PreTrainedModel.save_pretrained
    monkeypatch.setattr(
        transformers.PreTrainedModel,
        "save_pretrained",
        lambda model, folder, **more: save(model.float(), folder, **more),
    )
    fails(OPT, why="bytes")


@pytest.mark.breaks("test_a_file_takes_two_bytes_a_number_in_16_bits")
def test_more_parameters_published_than_there_are(fails):
    """A tenth more parameters are published than the model has."""
    fails(OPT, entry={"parameters": 137763226}, why="GB at full size")


# ---- files that do not fit


@pytest.mark.breaks("test_a_missing_tensor_is_named", "test_an_unexpected_tensor_is_named")
def test_a_library_that_reports_nothing(fails, loading):
    """The library tells of no missing and no unexpected tensor."""

    def silent(load, cls, folder, **kwargs):
        loaded = load(folder, **kwargs)
        return (loaded[0], {"missing_keys": [], "unexpected_keys": []}) if _asked_for_info(loaded, folder) else loaded

    loading(silent)
    fails(OPT)


def _asked_for_info(loaded, folder):
    return isinstance(loaded, tuple) and folder is not None


@pytest.mark.breaks("test_a_tensor_of_another_shape_is_refused")
def test_a_library_that_minds_no_shape(fails, loading):
    """A tensor of another shape is passed over."""
    loading(lambda load, cls, folder, **kwargs: load(folder, **{"ignore_mismatched_sizes": True} | kwargs))
    fails(OPT, why="observed 'none'")


@pytest.mark.breaks("test_a_file_that_is_cut_off_is_refused", "test_a_missing_file_is_refused")
def test_a_library_that_makes_up_what_it_cannot_read(fails, loading):
    """Where a file cannot be read, new random weights are returned."""

    def make_up(load, cls, folder, **kwargs):
        try:
            return load(folder, **kwargs)
        except Exception as error:
            if "Safetensor" in type(error).__name__ or isinstance(error, OSError):
                return cls(transformers.AutoConfig.from_pretrained(folder))
            raise

    loading(make_up)
    fails(OPT, why="observed 'none'")


@pytest.mark.breaks("test_a_missing_file_is_refused")
def test_a_library_that_fails_for_another_reason(fails, loading):
    """Of a checkpoint in several files none is ever read: the call ends in an error about something else."""

    def broken(load, cls, folder, **kwargs):
        if folder and not (Path(folder) / SINGLE).exists() and len(list(Path(folder).glob("*.safetensors"))) > 1:
            raise TypeError("no folder is welcome")
        return load(folder, **kwargs)

    loading(broken)
    also = ("test_a_checkpoint_in_several_files_loads_as_one", "test_a_file_that_is_cut_off_is_refused")
    fails(OPT, why="no folder is welcome", also=also)


# ---- in which type


@pytest.mark.breaks("test_the_type_is_chosen_by_dtype")
def test_a_type_that_is_not_asked_for(fails, loading):
    """A model asked for in float16 is loaded in bfloat16."""

    def other(load, cls, folder, **kwargs):
        if kwargs.get("dtype") is torch.float16:
            kwargs["dtype"] = torch.bfloat16
        return load(folder, **kwargs)

    loading(other)
    fails(OPT, why="torch.float16")


# ---- where it is put


@pytest.mark.breaks("test_every_parameter_has_one_place")
def test_a_layer_named_twice(fails, planning):
    """A layer is in the map once more, inside the part that it belongs to."""

    def twice(model, places):
        outer = next((place for place in places if "model.decoder.layers.0".startswith(place)), None)
        return places if outer is None else places | {"model.decoder.layers.0.fc1": places[outer]}

    planning(twice)
    fails(OPT)


@pytest.mark.breaks("test_no_block_is_split")
def test_a_block_on_two_devices(fails, planning):
    """The first block's first norm is put on the disk, and the rest of it elsewhere."""

    def split(model, places):
        if "model.decoder.layers.0" not in places:
            return places
        parts = {f"model.decoder.layers.0.{name}": places["model.decoder.layers.0"] for name in PARTS}
        rest = {name: place for name, place in places.items() if name != "model.decoder.layers.0"}
        return rest | parts | {"model.decoder.layers.0.self_attn_layer_norm": DISK}

    planning(split)
    fails(OPT, why="model.decoder.layers.0")


PARTS = ("self_attn", "fc1", "fc2", "final_layer_norm")


@pytest.mark.breaks("test_tied_weights_stay_together")
def test_a_head_away_from_its_table(fails, planning):
    """Where all of it fits on one device, the head is put on the CPU, and the table that it shares is not."""
    planning(lambda model, places: {"model": 0, "lm_head": "cpu"} if places == {"": 0} else places)
    fails(OPT, why="one accelerator")


@pytest.mark.breaks("test_no_device_gets_more_than_it_holds", "test_what_fits_nowhere_goes_to_the_disk")
def test_a_plan_that_counts_nothing(fails, planning):
    """Everything is put on the first accelerator, whatever it holds."""
    planning(lambda model, places: {"": 0 if model.device.type == "meta" else "cpu"})
    fails(OPT, also=("test_a_model_spread_over_memory_and_disk_says_the_same", *OFF_THE_ACCELERATOR))


@pytest.mark.breaks("test_what_fits_nowhere_goes_to_the_disk")
def test_a_model_that_is_kept_off_the_accelerator(fails, planning):
    """Where all of it fits on the accelerator it is put on the CPU."""
    planning(lambda model, places: {"": "cpu"} if places == {"": 0} else places)
    fails(OPT, why="one accelerator")


@pytest.mark.breaks("test_a_model_spread_over_memory_and_disk_says_the_same")
def test_a_limit_that_is_ignored(fails, loading):
    """The memory that was stated is not kept to, and nothing is left on the disk."""

    def ignore(load, cls, folder, max_memory=None, **kwargs):
        return load(folder, **kwargs)

    loading(ignore)
    fails(OPT, why="on the disk")


# ---- in 8 bits

OFF_THE_ACCELERATOR = ("test_eight_bits_refuse_a_module_off_the_accelerator",)


@pytest.mark.breaks("test_eight_bits_refuse_a_module_off_the_accelerator")
def test_a_library_that_refuses_no_module(fails, monkeypatch):
    """A module on the disk is no reason to stop."""
    monkeypatch.setattr(Bnb8BitHfQuantizer, "validate_environment", lambda self, *args, **kwargs: None)
    fails(OPT)


@pytest.mark.breaks("test_the_offload_flag_lets_it_load")
def test_a_flag_that_helps_nothing(fails, loading):
    """The flag is dropped on its way."""

    def drop(load, cls, folder, quantization_config=None, **kwargs):
        if quantization_config is not None:
            quantization_config.llm_int8_enable_fp32_cpu_offload = False
            kwargs["quantization_config"] = quantization_config
        return load(folder, **kwargs)

    loading(drop)
    fails(OPT)


@pytest.fixture
def planning(monkeypatch):
    """Change the device maps that the library infers: `change(model, places)`."""
    usual = accelerate.infer_auto_device_map

    def install(change):
        def changed(model, **given):
            return change(model, dict(usual(model, **given)))

        monkeypatch.setattr(accelerate, "infer_auto_device_map", changed)

    return install

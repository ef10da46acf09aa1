"""Counterexamples of the claims marked gpu, of chapters 8 and 9, with the CPU in the place of the accelerator.

The model is a small OPT that counts as one of published size; where figures of memory are wanted, tensors are counted.
"""

import gc

import pytest
import torch
from bitsandbytes.nn import Linear8bitLt
from transformers import PreTrainedModel

from fixtures.libraries.accelerator import Accelerator

pytestmark = pytest.mark.slow

pytest_plugins = ("tests.support.loaders",)

OPT = "facebook/opt-125m"
SMALL = {
    "config": {"num_hidden_layers": 2, "vocab_size": 512},
    "entry": {"layers": 2, "attention_layers": 2, "vocab_size": 512, "parameters": 16144896},
}


@pytest.fixture(autouse=True)
def device(monkeypatch):
    """Have the claims marked gpu run on the CPU."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "--device=cpu")


@pytest.fixture
def memory(monkeypatch):
    """Have the CPU keep account of its tensors: `memory(allocated=, peak=)` changes bytes as they are counted."""

    def install(allocated=lambda size: size, peak=lambda size: size):
        monkeypatch.setattr(Accelerator, "counts", property(lambda device: True))
        monkeypatch.setattr(Accelerator, "allocated", lambda device: allocated(_live()))
        monkeypatch.setattr(Accelerator, "peak", lambda device: peak(_live()))
        monkeypatch.setattr(Accelerator, "reset", lambda device: None)

    return install


def _live():
    """Bytes of the parameters in bfloat16 that are in memory."""
    found = (p for p in gc.get_objects() if isinstance(p, torch.nn.Parameter) and not p.is_meta)
    return sum({p.data_ptr(): p.nbytes for p in found if p.dtype == torch.bfloat16}.values())


@pytest.fixture
def making(monkeypatch):
    """Change the full-size model once it is made: `change(model)`; smaller ones are left alone."""
    usual = getattr(PreTrainedModel._from_config, "__func__")  # noqa: B009

    def install(change):
        def changed(cls, config, **kwargs):
            model = usual(cls, config, **kwargs)
            if config.hidden_size == 768 and model.device.type != "meta":
                change(model)
            return model

        monkeypatch.setattr(PreTrainedModel, "_from_config", classmethod(changed))

    return install


# ---- memory


@pytest.mark.breaks("test_the_weights_take_the_memory_that_was_counted")
def test_weights_in_32_bits(fails, memory):
    """Twice the bytes are taken that were counted."""
    memory(allocated=lambda size: 2 * size)
    fails(OPT, **SMALL, why="observed 2.0")


@pytest.mark.breaks("test_a_pass_takes_no_more_than_was_set_aside")
def test_a_pass_that_takes_a_gigabyte(fails, memory):
    """A pass of ten tokens takes a gigabyte besides the weights."""
    memory(peak=lambda size: size + 10**9)
    fails(OPT, **SMALL)


@pytest.mark.breaks("test_nothing_is_left_of_the_model_before")
def test_a_model_that_stays(fails, memory):
    """A gigabyte was taken before the model came."""
    memory(allocated=lambda size: size + 10**9, peak=lambda size: size + 10**9)
    fails(OPT, **SMALL)


# ---- what it computes


@pytest.mark.breaks("test_every_shape_is_the_same_on_the_device")
def test_a_score_too_few_on_the_device(fails, making):
    """On the device the model gives no score for the last entry of the vocabulary."""
    making(lambda model: model.lm_head.register_forward_hook(lambda module, args, output: output[..., :-1]))
    fails(OPT, **SMALL, why="scores")


@pytest.mark.breaks("test_implementations_of_attention_agree")
def test_an_implementation_that_scales_otherwise(fails, making):
    """What attention returns is doubled unless it is the written-out one."""

    def double(model):
        def hook(module, args, output):
            return output if module.config._attn_implementation == "eager" else (output[0] * 2, *output[1:])

        model.model.decoder.layers[0].self_attn.register_forward_hook(hook)

    making(double)
    fails(OPT, **SMALL, why="squared error of sdpa")


@pytest.mark.breaks("test_the_device_computes_what_the_cpu_does")
def test_a_device_that_rounds(fails, monkeypatch):
    """In 32 bits the device computes in bfloat16."""
    usual = PreTrainedModel.to

    def to(model, *args, dtype=None, **kwargs):
        moved = usual(model, *args, **kwargs, **({} if dtype is None else {"dtype": dtype}))
        return moved if dtype != torch.float32 else usual(usual(moved, dtype=torch.bfloat16), dtype=torch.float32)

    monkeypatch.setattr(PreTrainedModel, "to", to)
    fails(OPT, **SMALL, why="torch.float32")


@pytest.mark.breaks("test_no_token_sees_a_later_one_on_the_device")
def test_a_last_token_that_all_see(fails, making):
    """On the device the last token's vector is added to all others."""

    def hook(module, args, kwargs):
        vectors = args[0] if args else kwargs["hidden_states"]
        shifted = vectors + vectors[:, -1:] * 0.5
        return ((shifted, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": shifted})

    making(lambda model: model.model.decoder.layers[0].register_forward_pre_hook(hook, with_kwargs=True))
    fails(OPT, **SMALL, also=("test_single_steps_do_what_one_pass_does_on_the_device",))


@pytest.mark.breaks("test_single_steps_do_what_one_pass_does_on_the_device")
def test_a_step_of_its_own(fails, making):
    """A pass over one token alone gives twice the scores."""

    def hook(module, args, output):
        return output * 2 if output.shape[1] == 1 else output

    making(lambda model: model.lm_head.register_forward_hook(hook))
    fails(OPT, **SMALL)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA is here")
@pytest.mark.breaks("test_a_model_spread_over_device_and_cpu_says_the_same")
def test_a_device_that_takes_it_all(fails, loading, monkeypatch):
    """The memory that was stated is not kept to, and nothing is left for the CPU."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "--device=cuda")
    loading(lambda load, cls, folder, max_memory=None, **kwargs: load(folder, **kwargs))
    fails(OPT, **SMALL, also=("test_a_model_spread_over_memory_and_disk_says_the_same",))


# ---- quantized


@pytest.mark.breaks("test_quantized_on_the_device_it_holds_what_was_counted")
def test_a_number_too_many_on_the_device(fails, loading):
    """On the device one layer in 8 bits keeps a float32 that nothing needs."""
    loading(_on_the_device(lambda layer: setattr(layer, "spare", torch.ones(1))))
    fails(OPT, **SMALL)


@pytest.mark.breaks("test_quantized_on_the_device_it_says_nearly_the_same")
def test_scales_too_large_on_the_device(fails, loading):
    """On the device the scales of one layer in 8 bits are eight times what they should be."""
    loading(_on_the_device(lambda layer: layer.weight.SCB.mul_(8)))
    fails(OPT, **SMALL, why="int8")


@pytest.mark.breaks("test_quantized_on_the_device_it_keeps_its_shapes")
def test_a_product_that_fails_on_the_device(fails, loading):
    """On the device the product of one layer in 8 bits ends in an error."""

    def refuse(layer):
        layer.forward = lambda vectors: vectors @ None

    loading(_on_the_device(refuse))
    fails(OPT, **SMALL, also=("test_quantized_on_the_device_it_says_nearly_the_same",))


def _on_the_device(tamper):
    """Tamper with the last layer in 8 bits of a model that is quantized from memory."""

    def change(load, cls, folder, **kwargs):
        model = load(folder, **kwargs)
        layers = [layer for layer in model.modules() if isinstance(layer, Linear8bitLt)] if folder is None else []
        for layer in layers[-1:]:
            tamper(layer)
        return model

    return change

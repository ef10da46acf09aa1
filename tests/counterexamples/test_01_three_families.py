"""Counterexamples of chapter 1."""

import pytest
import torch


@pytest.mark.breaks("test_a_decoder_does_not_look_ahead", "test_the_family_is_the_declared_one")
def test_a_decoder_without_its_mask(fails):
    """A decoder whose mask lets everything through looks ahead."""

    def unmask(model):
        for layer in model.model.decoder.layers:
            layer.self_attn.register_forward_pre_hook(_no_mask, with_kwargs=True)

    fails("facebook/opt-125m", wound=unmask)


def _no_mask(module, args, kwargs):
    return args, kwargs | {"attention_mask": torch.zeros_like(kwargs["attention_mask"])}

"""Building: the library's private constructor, pinned, and what a build leaves as it was."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM, OPTConfig, OPTForCausalLM

from fixtures.models.build import from_config, own_config, seeded

SMALL = OPTConfig(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=32, vocab_size=64, word_embed_proj_dim=16
)


def test_it_builds_what_the_library_builds_in_public():
    """The same numbers as AutoModel.from_config gives, which is what takes over where the private one is gone."""
    with seeded():
        ours = from_config(OPTForCausalLM, own_config(OPTForCausalLM, SMALL), dtype=torch.bfloat16)
    with seeded():
        public = AutoModelForCausalLM.from_config(
            copy.deepcopy(SMALL), dtype=torch.bfloat16, attn_implementation="eager"
        )
    assert type(ours) is type(public)
    assert ours.config._attn_implementation == public.config._attn_implementation == "eager"
    for (name, mine), (same, theirs) in zip(ours.state_dict().items(), public.state_dict().items(), strict=True):
        assert name == same
        assert torch.equal(mine, theirs)
    assert not ours.training


def test_the_config_stays_as_it_was():
    before = SMALL.to_dict()
    from_config(OPTForCausalLM, own_config(OPTForCausalLM, SMALL), dtype=torch.float16)
    assert SMALL.to_dict() == before


@pytest.mark.parametrize("fails", [False, True])
def test_torchs_own_sequence_goes_on(fails):
    """Whoever builds between two random numbers of somebody else's changes neither."""
    torch.manual_seed(7)
    expected = torch.rand(2)
    torch.manual_seed(7)
    first = torch.rand(1)
    try:
        with seeded():
            drawn = torch.rand(1)
            if fails:
                raise ValueError
    except ValueError:
        pass
    assert torch.equal(torch.cat([first, torch.rand(1)]), expected)
    with seeded():
        assert torch.equal(torch.rand(1), drawn)

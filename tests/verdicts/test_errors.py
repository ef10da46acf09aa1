"""Errors told in a sentence: a release that cannot be built or read gives its reason once, and no traceback."""

import json
from pathlib import Path

import pytest

from fixtures.claims.model_under_test import Subject
from fixtures.published.release import at_path
from fixtures.verdicts.errors import LibraryError, SentenceError, library_frame
from tests.support.checkpoints import SMALL
from tests.support.child import pytest_run
from tests.support.ward import examine, matrix

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ODD_EXPERTS = {  # a width of experts that the grouped product of torch does not take
    "model_type": "qwen2_moe",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
    "moe_intermediate_size": 37,
    "shared_expert_intermediate_size": 40,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "vocab_size": 99,
}


@pytest.fixture
def printed(tmp_path):
    """What a run of a release of a config prints, in one line; it ends with exit status 1 and shows no code."""

    def run(config):
        (tmp_path / "config.json").write_text(json.dumps(config))
        done = pytest_run(f"--model={tmp_path}")
        assert done.returncode == 1, done.stdout
        for code in ("fixtures/", "raise ", "def "):
            assert code not in done.stdout.replace("fixtures.timings.clock", "")
        assert f"{tmp_path.name} (directory) parameters " in " ".join(done.stdout.split())
        return " ".join(done.stdout.split())

    return run


def test_a_release_that_the_library_refuses_says_why(printed, tmp_path):
    """One claim fails with the sentence, the others did not run, and the model's size is told."""
    text = printed(ODD_EXPERTS)
    assert f"fails: {tmp_path.name}: transformers' code for qwen2_moe ends in an error: RuntimeError: " in text
    assert "0 depart as declared, 1 fail" in text
    assert "cannot be built or read; the first claim on it says why." in text


def test_a_release_that_this_suite_cannot_read_is_no_failure_of_the_release(printed, tmp_path):
    """Nothing fails, what needs the running model did not run, and the exit status says that there is no verdict."""
    text = printed({"model_type": "cpmant"})
    assert f"{tmp_path.name} cannot be read: Its stream carries 42 vectors for 10 tokens: not one for each" in text
    assert f"This suite cannot read {tmp_path.name}: that is its own limit, and no verdict." in text
    assert "0 depart as declared, 0 fail" in text


def test_a_package_that_is_not_here_is_no_fault_of_the_release(tmp_path, monkeypatch):
    """The library's own sentence names the package, and no claim fails for want of it."""
    from transformers.models.llama import modeling_llama
    from transformers.utils import requires_backends

    def forward(self, *inputs, **options):
        requires_backends(self, "detectron2")

    monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", forward)
    (tmp_path / "config.json").write_text(json.dumps(SMALL | {"model_type": "llama"}))
    found = examine(Subject(at_path(tmp_path), matrix().traits), claims="decoder_only")
    assert {result["verdict"] for result in found.values()} == {"not run"}
    (reason,) = {result["reason"] for result in found.values()}
    assert f"{tmp_path.name} cannot be read: transformers asks for a package that is not here (ImportError: " in reason
    assert "requires the detectron2 library" in reason


def test_an_error_of_the_library_is_told_with_its_place():
    """Where the library raised it, what it said first, and whose config it was."""
    from transformers import AutoConfig

    with pytest.raises(ValueError, match="Unrecognized") as caught:
        AutoConfig.for_model("no such type")
    assert library_frame(caught.value).startswith("models/auto/configuration_auto.py:")
    error = LibraryError("org/name", "opt", caught.value)
    assert isinstance(error, SentenceError)
    assert str(error).startswith("org/name: transformers' code for opt ends in an error: ValueError: Unrecognized")


def test_an_error_of_our_own_is_none_of_the_library():
    """It has no place in the library, and keeps its traceback."""
    with pytest.raises(KeyError) as caught:
        raise KeyError("ours")
    assert library_frame(caught.value) == ""

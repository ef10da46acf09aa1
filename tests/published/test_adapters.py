"""Adapters of bases of several architectures: of sound ones nothing is said; where the base is looked for."""

import json
import os

import pytest

from fixtures.published.adapter import CONFIG, in_directory
from fixtures.published.adapter_base import base_of, not_here
from fixtures.published.adapter_fit import AdapterFit
from fixtures.published.release import at_path
from fixtures.published.token_ids import ids_in
from tests.support.adapters import of_layers, save
from tests.support.checkpoints import SMALL, make, save_tokenizer

BERT = SMALL | {"model_type": "bert"}
GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 99}
T5 = {
    "model_type": "t5",
    "vocab_size": 99,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 40,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
LLAMA = SMALL | {"model_type": "llama"}
MIXTRAL = SMALL | {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
# The base's config; its modules with what they take in and give out; what is saved whole; further settings.
SOUND: dict[str, tuple[dict, dict, dict, dict]] = {
    "llama": (LLAMA, of_layers(2, "mlp.down_proj", 40, 32), {}, {}),
    "llama, a pattern of modules": (LLAMA, of_layers(2, "mlp.up_proj", 32, 40), {}, {"target_modules": r".*\.up_proj"}),
    "llama, all modules": (LLAMA, of_layers(2, "mlp.up_proj", 32, 40), {}, {"target_modules": "all-linear"}),
    "llama that judges": (
        LLAMA | {"pad_token_id": 0},
        of_layers(2, "self_attn.v_proj", 32, 16),
        {"score.weight": (5, 32)},
        {"task_type": "SEQ_CLS", "modules_to_save": ["score"]},
    ),
    "llama as base model": (
        LLAMA,
        of_layers(2, "self_attn.q_proj", 32, 32, front="layers"),
        {},
        {"task_type": "FEATURE_EXTRACTION"},
    ),
    "a language model within another": (
        LLAMA,
        of_layers(2, "self_attn.q_proj", 32, 32, "language_model.layers"),
        {},
        {},
    ),
    "bert": (BERT, of_layers(2, "attention.self.query", 32, 32, "bert.encoder.layer"), {}, {"task_type": None}),
    "bert that judges": (
        BERT,
        of_layers(2, "attention.self.query", 32, 32, "bert.encoder.layer"),
        {"classifier.weight": (3, 32), "classifier.bias": (3,)},
        {"task_type": "SEQ_CLS", "modules_to_save": ["classifier"]},
    ),
    "gpt2, whose matrices lie the other way": (
        GPT2,
        of_layers(2, "attn.c_attn", 32, 96, "transformer.h") | of_layers(2, "mlp.c_proj", 128, 32, "transformer.h"),
        {},
        {"fan_in_fan_out": True},
    ),
    "t5": (
        T5,
        of_layers(2, "layer.0.SelfAttention.q", 32, 32, "encoder.block")
        | of_layers(2, "layer.1.EncDecAttention.v", 32, 32, "decoder.block"),
        {},
        {"task_type": "SEQ_2_SEQ_LM"},
    ),
    "mixtral, whose experts the library joins": (
        MIXTRAL,
        of_layers(4, "w1", 32, 40, "model.layers.0.block_sparse_moe.experts"),
        {},
        {},
    ),
    "ranks by a pattern": (
        LLAMA,
        of_layers(2, "mlp.up_proj", 32, 40),
        {},
        {"rank_pattern": {"layers.0.mlp.up_proj": 2}},
    ),
    "ranks by a pattern that is not read": (
        LLAMA,
        of_layers(2, "mlp.up_proj", 32, 40),
        {},
        {"rank_pattern": {"(a+)+b": 2}},
    ),
    "a table and a head of its own": (
        LLAMA,
        of_layers(2, "mlp.up_proj", 32, 40),
        {"model.embed_tokens.weight": (99, 32), "lm_head.weight": (99, 32)},
        {"modules_to_save": ["embed_tokens", "lm_head"]},
    ),
}


def fit_of(folder):
    """The adapter in a folder, read against its base."""
    adapter = in_directory(folder)
    base = base_of(adapter, folder)
    assert base is not None
    return AdapterFit(adapter, base.config, ids_in(folder))


@pytest.mark.parametrize("name", SOUND)
def test_of_a_sound_adapter_nothing_is_said(tmp_path, name):
    config, widths, whole, more = SOUND[name]
    make(tmp_path / "base", **config)
    folder = save(tmp_path / "adapter", "org/base", widths, whole, **more)
    assert in_directory(folder).faults == ""
    fit = fit_of(folder)
    assert fit.readable
    assert (fit.lost, fit.misshapen, fit.resized) == ("", "", "")
    assert fit.compared >= len(widths) or "experts" in str(widths)


@pytest.mark.parametrize("name", SOUND)
def test_a_base_of_another_width_is_named(tmp_path, name):
    """Of the same adapters on a base that is twice as wide."""
    config, widths, whole, more = SOUND[name]
    wide = {key: 2 * value if key in ("hidden_size", "n_embd", "d_model") else value for key, value in config.items()}
    make(tmp_path / "base", **wide)
    fit = fit_of(save(tmp_path / "adapter", "org/base", widths, whole, **more))
    assert "and the base has" in fit.misshapen


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"peft_type": "ADALORA"}, "ADALORA"),
        ({"use_qalora": True}, "LORA"),
        ({"layer_replication": [[0, 2], [0, 2]]}, "LORA"),
    ],
)
def test_another_method_is_left_alone(tmp_path, more, kind):
    make(tmp_path / "base", **LLAMA)
    fit = fit_of(save(tmp_path / "adapter", "org/base", of_layers(2, "mlp.up_proj", 32, 40), **more))
    assert (fit.adapter.kind, fit.readable) == (kind, False)


# ---- where the base is looked for


@pytest.fixture
def adapter(tmp_path):
    """Save an adapter that names its base so."""
    return lambda base: save(tmp_path / "adapter", base, of_layers(2, "mlp.up_proj", 32, 40))


def test_a_base_by_its_path_or_beside_or_in_the_folder_itself(adapter, tmp_path):
    assert base_of(in_directory(adapter("org/base")), tmp_path / "adapter") is None
    for place, base in (
        ("elsewhere/base", str(tmp_path / "elsewhere/base")),
        ("base", "org/base"),
        ("adapter", "org/one"),
    ):
        make(tmp_path / place, **LLAMA)
        found = base_of(in_directory(adapter(base)), tmp_path / "adapter")
        assert found is not None
        assert found.path == tmp_path / place / "config.json"


def test_a_base_of_the_matrix(adapter, tmp_path):
    folder = adapter("facebook/opt-125m")
    found = base_of(in_directory(folder), folder)
    assert found is not None
    assert found.config.hidden_size == 768
    assert "2 of 2 modules are not in the base" in fit_of(folder).lost


def test_a_base_of_the_cache(adapter, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    kept = tmp_path / "cache/models--org--base"
    make(kept / "snapshots/0123456789012345678901234567890123456789", **LLAMA)
    (kept / "refs").mkdir()
    (kept / "refs/main").write_text("0123456789012345678901234567890123456789")
    found = base_of(in_directory(adapter("org/base")), tmp_path / "adapter")
    assert found is not None
    assert "snapshots" in str(found.path)


@pytest.mark.parametrize("name", ["", "..", "/", "~nobody/base", "a\0b", "x" * 5000, "org/../../etc", "\x1b[2J/base"])
def test_a_base_of_any_name_is_not_found(adapter, tmp_path, name):
    found = in_directory(adapter(name))
    assert base_of(found, tmp_path / "adapter") is None
    assert not_here(found).isprintable()


# ---- what somebody sends


@pytest.mark.parametrize(
    "changed",
    [
        {"target_modules": [1, None, {"a": 1}]},
        {"target_modules": {"a": 1}},
        {"rank_pattern": [1], "r": "four"},
        {"rank_pattern": {"a": "b"}, "r": None},
        {"layers_to_transform": {"a": 1}, "modules_to_save": 5},
        {"layers_to_transform": [True, "x", None], "modules_to_save": [1, None]},
        {"task_type": ["a"], "peft_type": "LORA", "base_model_name_or_path": "base"},
    ],
)
def test_settings_of_other_types_end_in_no_error(tmp_path, changed):
    make(tmp_path / "base", **LLAMA)
    folder = save(tmp_path / "adapter", "org/base", of_layers(2, "mlp.up_proj", 32, 40))
    settings = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(settings | changed))
    fit = fit_of(folder)
    sentences = (fit.adapter.faults, fit.lost, fit.misshapen, fit.resized, at_path(folder).no_model)
    assert all(one.isprintable() for one in sentences)


@pytest.mark.parametrize("kind", ["vocab", "unigram", "added", "none"])
def test_ids_are_counted(tmp_path, kind):
    if kind in ("vocab", "added"):
        save_tokenizer(tmp_path, 120)
    if kind == "added":
        os.rename(tmp_path / "tokenizer.json", tmp_path / "other.json")
        (tmp_path / "added_tokens.json").write_text(json.dumps({"<a>": 120}))
    if kind == "unigram":
        (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": [["a", 0.0], ["b", 0.0]]}}))
    assert ids_in(tmp_path) == {"vocab": 120, "unigram": 2, "added": 121, "none": 0}[kind]

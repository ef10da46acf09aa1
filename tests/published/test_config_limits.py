"""Configs judged before they are built: what cannot be a model's is refused in a sentence, what is published passes."""

import json
import time

import pytest

from fixtures.published.config_limits import ConfigError, judge
from fixtures.published.entries_file import CONFIGS
from fixtures.published.release import ReleaseError, at_path

OPT: dict[str, object] = {
    "model_type": "opt",
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def nested(levels):
    value: object = 1
    for _ in range(levels):
        value = {"a": value}
    return value


HOSTILE: dict[str, tuple[dict[str, object], str]] = {
    "layers": (
        {"num_hidden_layers": 10_000},
        "at most 1000, found 10000.*limit=layers=10000",
    ),
    "layers of a part": (
        {"text_config": {"num_hidden_layers": 10_000}},
        r"text_config\.num_hidden_layers: expected at",
    ),
    "types": ({"type_vocab_size": 30_000_000}, "type_vocab_size: expected at most 100000, found 30000000"),
    "width": ({"ffn_dim": 10**9}, "ffn_dim: expected at most 1000000, found 1000000000"),
    "rows": ({"vocab_size": 10**10}, "vocab_size: expected at most 100000000"),
    "experts": ({"num_local_experts": 10**7}, "num_local_experts: expected at most 100000"),
    "a number that is none": ({"anything": 2**80}, "anything: expected at most 9223372036854775807"),
    "of a list": ({"intermediate_size": [3, 10**9]}, "intermediate_size: expected at most 1000000"),
    "zero": ({"hidden_size": 0}, "hidden_size: expected a number above zero, found 0"),
    "negative": ({"num_hidden_layers": -1}, "num_hidden_layers: expected a number above zero, found -1"),
    "text": ({"hidden_size": "64"}, "hidden_size: expected a whole number, found '64'"),
    "a fraction": ({"num_attention_heads": 2.5}, "num_attention_heads: expected a whole number, found 2.5"),
    "true": ({"vocab_size": True}, "vocab_size: expected a whole number, found True"),
    "architectures": ({"architectures": 5}, "architectures: expected a list of class names, found 5"),
    "architectures of numbers": ({"architectures": [5]}, r"architectures: expected a list of class names, found \[5\]"),
    "dtype": ({"dtype": "os"}, "dtype: expected a type of numbers such as float32, found 'os'"),
    "dtype of another kind": ({"torch_dtype": ["float32"]}, "torch_dtype: expected a type of numbers"),
    "float": ({"rope_theta": {"__float__": [1]}}, r"__float__: expected Infinity, -Infinity or NaN, found \[1\]"),
    "hundreds of levels": ({"a": nested(900)}, "expected JSON of at most 60 levels"),
    "many values": ({"a": list(range(300_000))}, "expected at most 200000 values, found more"),
    "a method": ({"to_dict": 5}, "to_dict: expected a field of a model, found a name that transformers"),
    "a class": ({"__class__": 5}, "__class__: expected a field of a model, found a name that"),
    "attention from the hub": ({"attn_implementation": "org/kernel"}, "expected an implementation of the library's"),
    "control signs": ({"\x1b[2J__": 2**70}, r"\\x1b\[2J__: expected at most"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_can_be_no_models_config_is_refused_in_a_sentence(tmp_path, case):
    fields, words = HOSTILE[case]
    (tmp_path / "config.json").write_text(json.dumps({**OPT, **fields}))
    began = time.monotonic()
    with pytest.raises(ReleaseError, match=rf"config\.json: .*({words})") as caught:
        at_path(tmp_path).config  # noqa: B018 - it is read
    assert str(caught.value).isprintable()
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.json")), ids=lambda path: path.stem)
def test_what_is_published_passes(path):
    judge(json.loads(path.read_text()))


def test_the_defaults_of_the_library_pass():
    """Of the text model types; what a class cannot make without arguments has none."""
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    made = 0
    for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        try:
            default = CONFIG_MAPPING[name]().to_dict()
        except Exception:  # some ask for arguments
            continue
        made += 1
        judge(default)
    assert made > 100


def test_a_limit_can_be_raised():
    fields = OPT | {"num_hidden_layers": 2000}
    with pytest.raises(ConfigError):
        judge(fields)
    judge(fields, {"layers": 2000, "number": 2**63})


def test_what_the_library_refuses_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(OPT | {"dropout": "much", "layerdrop": [], "ffn_dim": "wide"}))
    with pytest.raises(ReleaseError, match="transformers refuses the config") as caught:
        at_path(tmp_path).config  # noqa: B018 - it is read
    assert str(caught.value).isprintable()
    assert "\n" in caught.value.detail

"""The record of model types: it is what is observed, and what a release is held against."""

import json

import pytest
import torch
import transformers
from packaging.version import Version
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from fixtures.behaviour.known_types import about, written
from fixtures.behaviour.uneven import stated_by_layer
from fixtures.claims.model_under_test import Subject
from fixtures.models.known_types import FILE, known, record
from fixtures.models.model_class import model_types
from fixtures.models.switches import matches, switched
from fixtures.published.entries_file import CONFIGS
from fixtures.published.release import at_path
from tests.support.checkpoints import SMALL
from tests.support.ward import examine, matrix

DECODER = {
    "architectures": ["MBartForCausalLM"],
    "is_encoder_decoder": False,
    "is_decoder": True,
    "d_model": 32,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 64,
    "pad_token_id": 1,
    "eos_token_id": 2,
}
CLAIM = "test_the_model_is_what_its_type_is_known_to_be"


def of_config(folder, **fields):
    """A release without an entry, of a small config with these fields."""
    (folder / "config.json").write_text(json.dumps(SMALL | fields))
    return Subject(at_path(folder), matrix().traits)


def test_every_text_model_type_is_recorded():
    if Version(transformers.__version__) != Version(record()["transformers"]):
        pytest.skip(f"The record is of transformers {record()['transformers']}.")
    assert sorted(record()["types"]) == model_types()


def test_the_file_is_as_it_is_made():
    """Nobody has edited it by hand, but for what the comment at its head says."""
    assert FILE.read_text(encoding="utf-8") == written(record()["types"], record()["transformers"])


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["llama", "bert"])
def test_what_is_recorded_is_what_is_observed(model_type):
    assert about(model_type) == record()["types"][model_type]


@pytest.mark.registry
@pytest.mark.parametrize("model_type", sorted(record().get("types", {})))
def test_what_is_recorded_of_every_type_is_what_is_observed(model_type):
    """The same for all of them, by the command that makes the file."""
    if Version(transformers.__version__) != Version(record()["transformers"]):
        pytest.skip(f"The record is of transformers {record()['transformers']}.")
    found, kept = about(model_type), record()["types"][model_type]
    assert found == kept or ("unread" in found and "unread" in kept)


@pytest.mark.slow
@pytest.mark.parametrize("entry", matrix().entries.values(), ids=lambda entry: entry.id)
def test_no_model_of_the_matrix_is_news_without_its_entry(entry):
    """What the type's record says by default and by the config's fields explains all that is seen of it."""
    subject = Subject(at_path(CONFIGS / f"{entry.id}.json"), matrix().traits)
    assert subject.known is not None
    assert subject.news == {}


def test_a_field_switches_what_it_switches():
    """A BERT that is a decoder looks back only, and one that is not does not."""
    config = CONFIG_MAPPING["bert"]()
    before = known(config) or {}
    config.is_decoder = True
    after = known(config) or {}
    assert before["family"] == {"encoder-only"}
    assert "decoder-only" in after["family"]


@pytest.mark.parametrize(
    ("fields", "wanted", "found"),
    [
        ({"sliding_window": 4096}, {"sliding_window": 4}, True),
        ({"sliding_window": None}, {"sliding_window": 4}, False),
        ({"layer_types": ["sliding_attention", "full_attention"]}, {"layer_types": ["sliding_attention"]}, False),
        ({"layer_types": ["full_attention", "conv"]}, {"layer_types": ["conv", "full_attention"]}, True),
        ({"rope_parameters": {"rope_type": "yarn"}}, {"rope_parameters.rope_type": "yarn"}, True),
        ({"mlp_only_layers": [3, 5]}, {"mlp_only_layers": [0]}, True),
        ({"attention_multiplier": 1.0}, {"attention_multiplier": 0.5}, False),
        ({"is_decoder": False}, {"is_decoder": True}, False),
    ],
)
def test_a_config_has_a_field_of_the_same_kind(fields, wanted, found):
    config = CONFIG_MAPPING["llama"]()
    for name, value in fields.items():
        config.__dict__[name] = value
    assert matches(config, wanted) is found


def test_a_config_with_heads_and_no_attention_is_no_other_kind_of_model(tmp_path, monkeypatch):
    """Where nothing more is known than that there are heads, a model without attention fails."""
    subject = of_config(tmp_path, model_type="fnet", num_attention_heads=4)
    monkeypatch.delitem(record()["types"], "fnet")
    found = examine(subject, claims="test_every_transformer_computes_attention")
    assert {result["verdict"] for result in found.values()} == {"fails"}


def test_a_type_that_is_not_recorded_is_held_to_the_lesson_and_its_config(tmp_path, monkeypatch):
    subject = of_config(tmp_path, model_type="llama")
    monkeypatch.setitem(record()["types"], "llama", {"unread": "Nobody has looked."})
    found = examine(subject, claims=f"{CLAIM} or test_every_transformer_computes_attention")
    assert found[CLAIM]["verdict"] == "does not apply"
    assert "Nothing is recorded of the model type llama" in found[CLAIM]["reason"]
    assert found["test_every_transformer_computes_attention"]["verdict"] == "holds"


def test_a_loss_that_moves_no_labels_excuses_no_type_that_moves_them(tmp_path):
    """A Llama that compares each place with its own token is seen to, and fails."""
    subject = of_config(tmp_path, model_type="llama")
    unmoved = torch.nn.functional.cross_entropy
    subject.miniature.model.loss_function = lambda logits, labels, **rest: unmoved(logits[0], labels[0])
    found = examine(subject, claims=f"{CLAIM} or test_a_decoder_scores_the_next_token")
    assert {result["verdict"] for result in found.values()} == {"fails"}
    assert "unmoved-labels" in found[CLAIM]["reason"]


def test_cross_attention_that_rests_beside_a_source_is_not_excused(tmp_path):
    """A decoder alone may wait for a source; one whose attention to it says nothing where there is one may not."""
    subject = of_config(tmp_path, model_type="mbart", **DECODER)
    layer = subject.miniature.model.model.decoder.layers[0]
    layer.encoder_attn.forward = lambda hidden_states, **rest: (torch.zeros_like(hidden_states), None)
    found = examine(subject, claims="test_every_parameter_acts_on_every_token")
    assert {result["verdict"] for result in found.values()} == {"fails"}


@pytest.mark.parametrize(("heads", "stated"), [([8, 4], {"uneven-heads", "uneven-layers"}), ([4, 8], set())])
def test_what_layers_differ_in_is_known_where_the_config_says_what_is_observed(heads, stated, tmp_path):
    """A list of other numbers, or of the same in another order, explains nothing."""
    if "laguna" not in CONFIG_MAPPING:
        pytest.skip("A newer transformers has this model type.")
    layers = {"num_attention_heads_per_layer": [8, 4], "mlp_layer_types": ["dense"] * 2}
    subject = of_config(tmp_path, model_type="laguna", **layers)
    config = switched(subject.release.config, {"num_attention_heads_per_layer": heads})
    assert stated_by_layer(subject.skeleton, config) == stated


def test_what_every_model_of_a_type_has_is_missed_where_it_is_not_there(tmp_path, monkeypatch):
    """A library that ties nothing is seen to; a config that unties its model is no news."""
    tied, untied = (tmp_path / name for name in ("tied", "untied"))
    for folder in (tied, untied):
        folder.mkdir()
    assert of_config(untied, model_type="gemma", tie_word_embeddings=False).missed == {}
    monkeypatch.setattr(transformers.PreTrainedModel, "tie_weights", lambda self, *args, **kwargs: None)
    assert of_config(tied, model_type="gemma").missed == {"parts": {"tied"}}

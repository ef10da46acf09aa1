"""A miniature keeps the structure of the model it stands for."""

import copy
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from fixtures.models.build import from_config, own_config
from fixtures.models.config_fields import parts
from fixtures.models.layer_kinds import kinds, lost_kinds, skeleton
from fixtures.models.model_class import class_name, model_class, model_types
from fixtures.models.model_types import corrections, extra_inputs, needs
from fixtures.models.shrink import completed, shrink

# One or two of each sort: plain, fused, multi-query, latent, sinks, hybrids, experts, wrappers, encoders, pairs of
# stacks, and those with rules of their own for single layers.
SAMPLE = [
    "opt",
    "gpt2",
    "falcon",
    "deepseek_v3",
    "gpt_oss",
    "jamba",
    "qwen3_next",
    "gemma3",
    "llama4",
    "bert",
    "longformer",
    "bart",
    "t5",
    "switch_transformers",
    "mamba",
    "zamba",
    "gpt_neo",
    "gemma3n_text",
    "gemma4_text",
    "neomme",
]
RECORDED = sorted(Path(__file__).parents[2].glob("fixtures/published/configs/*/*.json"))


def default(model_type, **fields):
    return CONFIG_MAPPING[model_type](**fields)


def built(config):
    cls = model_class(config)
    torch.manual_seed(0)
    return from_config(cls, own_config(cls, config))


def full_size(config):
    model = skeleton(model_class(config), config)
    assert model is not None
    return model


def logits(config):
    """Return what the miniature of this config gives for a row of ids."""
    model = built(config)
    vocabulary = min(part.vocab_size for part in parts(config) if getattr(part, "vocab_size", None))
    ids = torch.randint(min(10, vocabulary // 2), min(120, vocabulary), (1, needs(config).get("length", 10)))
    inputs = {"input_ids": ids}
    if config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids[:, :7]
    with torch.no_grad():
        output = model(**{**inputs, **extra_inputs(config)})
    return output.logits if hasattr(output, "logits") else output[0]


def check(model_type):
    """Build and run the miniature of a type's default config, and hold it against the full model."""
    if "cannot" in (recorded := corrections().get(model_type, {})):
        pytest.skip(recorded["cannot"])
    config = default(model_type)
    before = repr(config.to_dict())
    small = shrink(config)
    assert repr(config.to_dict()) == before, "the original was modified"
    assert type(small) is type(config)
    assert torch.isfinite(logits(small)).all()
    assert shrink(small).to_dict() == small.to_dict(), "shrinking again changed it"
    full = skeleton(model_class(config), completed(config))
    if full is not None:
        assert not lost_kinds(full, built(small))


@pytest.mark.slow
@pytest.mark.parametrize("model_type", [model_type for model_type in SAMPLE if model_type in CONFIG_MAPPING])
def test_a_miniature_runs_keeps_every_kind_of_block_and_shrinks_no_further(model_type):
    """A miniature runs, has every kind of block of the full model, and is its own miniature."""
    check(model_type)


@pytest.mark.registry
@pytest.mark.parametrize("model_type", model_types())
def test_every_text_model_type_has_a_miniature(model_type):
    """Every text model type of the library has a miniature, or a sentence why it cannot."""
    check(model_type)


@pytest.mark.slow
@pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_recorded_release_has_a_miniature(path):
    """The miniature of a recorded release runs and has every kind of block of the full model."""
    published = json.loads(path.read_text(encoding="utf-8"))
    if published.get("model_type") not in CONFIG_MAPPING:
        pytest.skip(f"transformers has no model type {published.get('model_type')!r}")
    config = AutoConfig.for_model(**published)
    small = shrink(config)
    assert torch.isfinite(logits(small)).all()
    assert not lost_kinds(full_size(config), built(small))
    assert shrink(small).to_dict() == small.to_dict()


@pytest.mark.parametrize(
    ("heads", "kv_heads", "small"), [(32, 32, (4, 4)), (32, 8, (4, 2)), (32, 1, (4, 1)), (2, 1, (2, 1))]
)
def test_heads_share_keys_and_values_as_published(heads, kv_heads, small):
    """Equal stays equal, grouped stays grouped, multi-query stays one."""
    config = shrink(default("llama", num_attention_heads=heads, num_key_value_heads=kv_heads))
    assert (config.num_attention_heads, config.num_key_value_heads) == small


def test_multi_query_of_falcon_stays():
    """The 71 heads of Falcon-7b become four that share one key and value head."""
    config = shrink(default("falcon", hidden_size=4544, num_attention_heads=71, multi_query=True))
    model = built(config)
    fused = model.transformer.h[0].self_attention.query_key_value
    assert config.multi_query
    assert fused.out_features == (4 + 2) * 16


@pytest.mark.parametrize(
    ("model_type", "fields", "ratio"),
    [
        ("qwen3", {"hidden_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128}, 2),
        ("llama", {"hidden_size": 4096, "num_attention_heads": 32, "head_dim": 128}, 1),
        ("mt5", {"d_model": 512, "num_heads": 6, "d_kv": 64}, 0.75),
    ],
)
def test_heads_together_are_as_wide_against_the_stream_as_published(model_type, fields, ratio):
    """Heads times head width over d_model survives."""
    config = shrink(default(model_type, **fields))
    width = config.d_kv if model_type == "mt5" else config.head_dim
    assert config.num_attention_heads * width / config.hidden_size == ratio


def test_heads_narrower_than_the_stream_do_not_fill_it():
    """Gemma 2's eight heads of 256 do not fill its 2304, nor do those of its miniature."""
    config = shrink(default("gemma2", hidden_size=2304, num_attention_heads=8, num_key_value_heads=4, head_dim=256))
    assert config.num_attention_heads * config.head_dim < config.hidden_size


def test_an_embedding_of_its_own_width_keeps_it():
    """OPT-350m's embeddings stay half the stream's width, ALBERT's stay narrower than it."""
    opt = shrink(default("opt", hidden_size=1024, num_attention_heads=16, word_embed_proj_dim=512))
    assert opt.word_embed_proj_dim * 2 == opt.hidden_size
    albert = shrink(default("albert"))
    assert albert.embedding_size < albert.hidden_size


def test_experts_stay_experts():
    """Experts stay, fewer; a token still goes to some of them, in groups where there are groups."""
    mixtral = shrink(default("mixtral"))
    assert (mixtral.num_local_experts, mixtral.num_experts_per_tok) == (4, 2)
    switch = shrink(default("switch_transformers"))
    assert switch.num_experts == 4
    deepseek = shrink(default("deepseek_v3"))
    assert (deepseek.n_group, deepseek.topk_group) == (2, 1)
    assert deepseek.first_k_dense_replace == 1


def test_latent_attention_stays_latent():
    """Keys and values still go through a rank below the stream's width, and the parts of a head keep their ratio."""
    config = shrink(default("deepseek_v3"))
    assert config.kv_lora_rank < config.hidden_size
    assert config.qk_nope_head_dim == 2 * config.qk_rope_head_dim
    assert config.qk_head_dim == config.qk_nope_head_dim + config.qk_rope_head_dim


def test_a_partial_rotation_stays_partial():
    """GPT-J turns a quarter of a head, and so does its miniature."""
    config = shrink(default("gptj"))
    assert config.rotary_dim * 4 == config.hidden_size // config.num_attention_heads


def test_a_window_is_short_and_none_stays_none():
    """A published window bites on ten tokens; where none is published there is none."""
    assert shrink(default("mistral", sliding_window=4096)).sliding_window == 4
    assert shrink(default("mistral", sliding_window=None)).sliding_window is None


def test_a_window_longer_than_any_text_does_not_begin_to_bite():
    """A window of all positions or more hides nothing, in the miniature neither."""
    config = shrink(default("mistral", sliding_window=262144, max_position_embeddings=131072))
    assert config.sliding_window == config.max_position_embeddings


@pytest.mark.skipif(
    not hasattr(PreTrainedConfig, "per_layer_config"), reason="This transformers has one config for all."
)
def test_windows_of_two_lengths_stay_apart():
    """Where layers differ in the length of their window, they still do."""
    lengths = {0: {"sliding_window": 1024}, 1: {"sliding_window": 256}}
    config = default("mistral", num_hidden_layers=4, sliding_window=256, per_layer_config=lengths)
    small = shrink(config)
    assert sorted(small.per_layer_config[i].sliding_window for i in range(small.num_hidden_layers)) == [4, 8]


@pytest.mark.parametrize("tied", [True, False])
def test_the_tie_stays(tied):
    """Embeddings that are tied stay tied, and others not."""
    assert shrink(default("llama", tie_word_embeddings=tied)).tie_word_embeddings is tied


def test_special_tokens_stay_apart():
    """Special ids fit the small vocabulary, distinct where they were, and none becomes one."""
    config = shrink(default("llama", bos_token_id=128000, eos_token_id=[128001, 128008, 128009], pad_token_id=None))
    ids = [config.bos_token_id, *config.eos_token_id]
    assert len(set(ids)) == 4
    assert max(ids) < config.vocab_size == 128
    assert config.pad_token_id is None
    gpt2 = shrink(default("gpt2"))
    assert gpt2.bos_token_id == gpt2.eos_token_id


def test_rotary_factors_fit_the_small_head():
    """Lists with a factor for each pair of dimensions are cut to the small head."""
    factors = {"short_factor": [1.0] * 48, "long_factor": [2.0] * 48, "original_max_position_embeddings": 4096}
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, **factors}
    config = shrink(default("phi3", rope_parameters=rope, max_position_embeddings=131072))
    assert len(config.rope_parameters["long_factor"]) == 8
    assert torch.isfinite(logits(config)).all()


def test_texts_are_short_and_words_few():
    """Sixty-four positions and 128 words are enough for a sentence."""
    config = shrink(default("llama", max_position_embeddings=131072))
    assert (config.max_position_embeddings, config.vocab_size) == (64, 128)


def test_dropout_is_off():
    """Nothing is dropped in a miniature."""
    config = shrink(default("bert"))
    assert config.hidden_dropout_prob == config.attention_probs_dropout_prob == 0


@pytest.mark.parametrize(
    ("model_type", "layers"),
    [
        ("llama", 2),
        ("gemma2", 2),
        ("qwen3_next", 2),
        ("llama4_text", 2),
        ("jamba", 5),
        ("deepseek_v3", 2),
        ("t5", 2),
        ("modernbert", 3),
        ("gpt_neo", 2),
    ],
)
def test_layers_are_as_few_as_show_every_kind(model_type, layers):
    """A hybrid keeps a layer of each kind and no more; rules by position keep the beginning they need."""
    assert shrink(default(model_type)).num_hidden_layers == layers


def test_kinds_of_layers_keep_their_order():
    """What comes first in the full model comes first in the miniature."""
    assert shrink(default("qwen3_next")).layer_types == ["linear_attention", "full_attention"]


def test_the_kinds_of_a_model_at_hand_are_used():
    """A full model that the caller has is not built again, and gives the same miniature."""
    config = default("gemma2")
    assert shrink(config, kinds_of=full_size(config)).to_dict() == shrink(config).to_dict()


def test_a_lost_kind_is_seen():
    """A miniature of the first layers alone has lost the kind that comes later."""
    config = default("deepseek_v3")
    beginning = copy.deepcopy(config)
    beginning.num_hidden_layers = 2
    full, cut = full_size(config), full_size(beginning)
    assert len(lost_kinds(full, cut)) == 1
    assert len(set(kinds(full)["model.layers"])) == 2


def test_another_width_can_be_asked_for():
    """The width is the caller's choice, and a model that is small already keeps its own."""
    assert shrink(default("llama"), d_model=128).hidden_size == 128
    small = shrink(default("llama", hidden_size=60, num_attention_heads=6, num_key_value_heads=3, intermediate_size=48))
    assert (small.hidden_size, small.num_attention_heads, small.num_key_value_heads) == (60, 6, 3)
    assert torch.isfinite(logits(small)).all()


@pytest.mark.parametrize(
    ("model_type", "fields", "name"),
    [
        ("bart", {"architectures": ["BartModel"]}, "BartModel"),
        ("bert", {"architectures": ["BertModel"]}, "BertModel"),
        ("bert", {"architectures": ["BertForSequenceClassification"]}, "BertModel"),
        ("t5", {"architectures": ["T5EncoderModel"]}, "T5EncoderModel"),
        ("bart", {"architectures": ["BartForCausalLM"]}, "BartForCausalLM"),
        ("bert", {"architectures": ["BertForPreTraining"]}, "BertForMaskedLM"),
        ("bert", {}, "BertForMaskedLM"),
        ("bert", {"is_decoder": True}, "BertLMHeadModel"),
        ("deberta-v2", {}, "DebertaV2ForMaskedLM"),
        ("gpt2", {"architectures": ["GPT2ForSequenceClassification"]}, "GPT2Model"),
        ("t5", {"architectures": ["T5WithLMHeadModel"]}, "T5ForConditionalGeneration"),
        ("clip_text_model", {}, "CLIPTextModel"),
    ],
)
def test_the_class_is_the_one_the_config_stands_for(model_type, fields, name):
    """The published class where it writes or has no head, the model below another task's head, else the nearest."""
    assert class_name(default(model_type, **fields)) == name


def test_a_type_without_text_has_no_class():
    """What reads no text is refused, in a sentence that names it."""
    with pytest.raises(LookupError, match=r"'vit'.*reads no text"):
        model_class(default("vit"))

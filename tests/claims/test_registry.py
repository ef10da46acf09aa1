"""Every text architecture that transformers knows is understood from a directory with its config, without an entry.

The directory is made from a small config. What is observed of the model is held against the config's own fields, under
the names that all of transformers shares, and against what the library's documentation says of the architecture; then
the claims are judged. What cannot be built or read is named, with the reason, in fixtures/models/model_types.yaml.
"""

import pytest
import transformers
from packaging.version import Version
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from fixtures.anatomy.attention import NotUnderstoodError
from fixtures.claims.model_under_test import Subject
from fixtures.models.model_class import class_name, model_types, tables
from fixtures.models.model_types import corrections
from fixtures.models.shrink import shrink
from fixtures.models.switches import switched
from fixtures.published.entry import FACTS
from fixtures.published.release import at_path
from fixtures.verdicts.judge import NotRun
from tests.support.ward import chapters, examine, matrix

pytestmark = pytest.mark.slow

# One of each sort: plain, fused with ALiBi, multi-query, latent with experts, a hybrid, shared blocks, hybrid heads
# side by side, encoders with batch second and with parts for layers, Fourier mixing, a pair of stacks, a recurrence.
SAMPLE = [
    "bloom",
    "falcon",
    "deepseek_v3",
    "qwen3_next",
    "zamba2",
    "jamba",
    "gemma3n_text",
    "xlnet",
    "squeezebert",
    "fnet",
    "t5",
    "mamba",
    "longformer",
    # one whose experts are visited one by one, one that keeps a cache unasked, one whose encoder tells of its experts
    "dbrx",
    "granitemoe",
    "switch_transformers",
]
CHAPTERS = ("0[1-7]", "1[02]")

# From the documentation of each architecture, at its default config.
NO_TRANSFORMERS = "falcon_mamba fnet granitemoehybrid mamba mamba2 mra reformer rwkv xlstm yoso"
# Classes of the table of causal models that attend in both directions unless they are told to be decoders.
BOTH_WAYS = ("bert-generation", "xlnet")
# The config says tied; of LUKE's two heads the class ties the one for entities.
UNTIED = ("luke",)
POSITIONS = {
    "learned": """albert bart bert bert-generation big_bird bigbird_pegasus biogpt blenderbot blenderbot-small camembert
        convbert data2vec-text deberta deberta-v2 distilbert electra encoder-decoder ernie esm flaubert fnet git gpt-sw3
        gpt2 gpt_bigcode gpt_neo ibert layoutlm led longformer luke mbart megatron-bert mobilebert mpnet mra mvp
        nystromformer openai-gpt opt perceiver plbart prophetnet reformer rembert roberta roberta-prelayernorm roc_bert
        squeezebert tapas trocr whisper xlm xlm-roberta xlm-roberta-xl xmod yoso""",
    "sinusoidal": """ctrl fsmt m2m_100 marian musicgen musicgen_melody nllb-moe pegasus pegasus_x seamless_m4t
        seamless_m4t_v2 xglm""",
    "alibi": "bloom mpt",
    "relative": """cpmant funnel inkling_text inkling2_text inkling2_loop_text longt5 mt5 switch_transformers t5 umt5
        xlnet""",
    "none": """falcon_mamba granitemoehybrid jamba kimi_linear mamba mamba2 nemo_speechlm nemotron_h rwkv xlstm zamba
        zamba2""",
}  # the others are rotary
PROJECTIONS = {
    "fused": """bloom codegen dbrx deberta falcon fuyu gpt-sw3 gpt2 gpt_bigcode gpt_neox gpt_neox_japanese modernbert
        modernvbert mpt openai-gpt persimmon phi3 phi4_multimodal""",
    "latent": """axk1 axk2 bailing_hybrid deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 dots3_note dots3_note_text
        glm4_moe_lite glm_moe_dsa hy_v4 kimi_linear longcat_flash minicpm3 sarvam_mla youtu""",
    "none": NO_TRANSFORMERS,
}  # the others are separate


def documented(table, model_type, otherwise):
    return next((kind for kind, types in table.items() if model_type in types.split()), otherwise)


def family(model_type, config):
    """The family by the table of the library that the class stands in."""
    name = class_name(config)
    if model_type in NO_TRANSFORMERS.split():
        return "other"
    if config.is_encoder_decoder and name in tables()["seq2seq"].get(model_type, ()):
        return "encoder-decoder"  # the other classes of this table read sounds, and write with one decoder
    masked = name in tables()["masked"].get(model_type, ())
    return "encoder-only" if masked or model_type in BOTH_WAYS else "decoder-only"


def stated(config, name):
    """A field of the config, None where it has none or where layers differ in it."""
    try:
        return getattr(config, name, None)
    except Exception as error:
        if "per-layer attribute" in str(error):
            return None
        raise


def attends(kind):
    return ("attention" in kind and "linear" not in kind) or "hybrid" in kind


EXPERTS = ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts")
ACTIVE = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "moe_top_k", "top_k_experts")
CHOSEN = {"switch_transformers": 1, "nllb-moe": 2}  # as their papers have it; their configs do not say


def experts_of(model_type, text):
    """How many experts a config has and how many act on a token; none where a switch that it has is off."""
    parts = [text, stated(text, "ffn_config")]
    switches = [stated(text, name) for name in ("is_moe", "enable_moe_block")]
    many, active = (
        next((value for part in parts for name in names if type(value := stated(part, name)) is int), 0)
        for names in (EXPERTS, ACTIVE)
    )
    return (0, 0) if False in switches or not many else (many, active or CHOSEN.get(model_type))


def expected(model_type, config):
    """What the config and the documentation say; facts that neither states are left out."""
    text = config.get_text_config(decoder=True)
    layers = stated(text, "num_hidden_layers")
    kinds = stated(text, "layer_types") or stated(text, "layers_block_type")
    attending = sum(map(attends, kinds)) if kinds else layers
    no_transformer = model_type in NO_TRANSFORMERS.split()
    heads, of_convolutions = stated(text, "num_attention_heads"), stated(text, "head_ratio")
    heads = heads // of_convolutions if heads and of_convolutions else heads
    kv_heads = 1 if stated(text, "multi_query") else stated(text, "num_key_value_heads")
    experts, active = experts_of(model_type, text)
    facts = {
        "layers": layers,
        "d_model": stated(text, "hidden_size"),
        "attention_layers": 0 if no_transformer else attending,
        "heads": None if no_transformer else heads,
        "kv_heads": None if no_transformer else kv_heads or heads,
        "vocab_size": stated(text, "vocab_size"),
        "experts": experts,
        "experts_active": active,
        "tied_embeddings": stated(config, "tie_word_embeddings") if model_type not in UNTIED else False,
    }
    return {name: value for name, value in facts.items() if isinstance(value, int)} | {
        "family": family(model_type, config),
        "positions": documented(POSITIONS, model_type, "rotary"),
        "projections": documented(PROJECTIONS, model_type, "separate"),
    }


def misunderstood(model_type, directory):
    """What is wrong about a type: a sentence for each fact and each claim that should be otherwise."""
    small = shrink(CONFIG_MAPPING[model_type]())
    small.architectures = [class_name(small)]
    small.save_pretrained(directory)
    subject = Subject(at_path(directory), matrix().traits)
    try:
        facts = dict(subject.facts)
    except (NotUnderstoodError, NotRun) as error:
        return [str(error)]
    wanted = expected(model_type, subject.release.config)
    wrong = [
        f"{name}: expected {value}, observed {facts[name]}"
        for name, value in wanted.items()
        if facts[name] != value and name not in _by_name(model_type, "unread")
    ]
    # a config as small as this is its own miniature
    built = subject.miniature.parameters
    wrong += [f"parameters: built {built}, observed {facts['parameters']}"] if facts["parameters"] != built else []
    listed = {
        "departs": set() if "seen_with" in corrections().get(model_type, {}) else set(_by_name(model_type, "departs")),
        "not run": set(_by_name(model_type, "unread")) - facts.keys(),
    }
    for chapter in CHAPTERS:
        found = examine(subject, chapter=chapter)
        for verdict, claims in listed.items():
            claims -= {claim for claim, result in found.items() if result["verdict"] == verdict}
        wrong += [f"{claim}: {result['reason']}" for claim, result in found.items() if result["verdict"] == "fails"]
    return wrong + [
        f"{claim}: said to end as '{verdict}', and does not" for verdict in listed for claim in listed[verdict]
    ]


def _by_name(model_type, key):
    about = corrections().get(model_type, {}).get(key, {})
    return about if isinstance(about, dict) else {}


def check(model_type, directory):
    recorded = corrections().get(model_type, {})
    if "cannot" in recorded:
        try:
            wrong = misunderstood(model_type, directory)
        except Exception:  # whatever its constructor raises
            return
        assert wrong, f"{model_type} can be built: take `cannot` off it in fixtures/models/model_types.yaml"
        return
    wrong = misunderstood(model_type, directory)
    if "unread" in recorded and not _by_name(model_type, "unread"):
        assert wrong, f"{model_type} is understood: take `unread` off it in fixtures/models/model_types.yaml"
    else:
        assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("model_type", [model_type for model_type in SAMPLE if model_type in CONFIG_MAPPING])
def test_a_type_is_understood_without_an_entry(model_type, tmp_path):
    """What is observed is what the config and the documentation say, and no claim fails; or the type is listed."""
    check(model_type, tmp_path)


@pytest.mark.parametrize("model_type", [name for name, about in corrections().items() if "seen_with" in about])
def test_a_departure_that_is_not_the_defaults_is_seen(model_type, tmp_path):
    """With the fields that are named, each claim is contradicted that the type is said to depart from."""
    small = switched(shrink(CONFIG_MAPPING[model_type]()), corrections()[model_type]["seen_with"])
    small.save_pretrained(tmp_path)
    listed = _by_name(model_type, "departs")
    found = examine(Subject(at_path(tmp_path), matrix().traits), claims=" or ".join(listed))
    assert {claim: result["verdict"] for claim, result in found.items()} == dict.fromkeys(listed, "departs")


def test_departures_by_type_name_claims():
    """A claim that a model type is said to depart from, or not to be read for, is one."""
    named = {claim for name in corrections() for key in ("departs", "unread") for claim in _by_name(name, key)}
    assert named
    assert named - set(FACTS) <= set(chapters())


@pytest.mark.registry
@pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.23"), reason="What is listed is listed for transformers 5.23 on."
)
@pytest.mark.parametrize("model_type", model_types())
def test_every_text_model_type_is_understood_without_an_entry(model_type, tmp_path):
    """The same for every type that the library's tables of text models name."""
    check(model_type, tmp_path)

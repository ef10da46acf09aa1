"""Counterexamples of chapter 14, its claims on the folder, the config, the settings and the special tokens."""

import json
import shutil
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fixtures.claims.model_under_test import Subject
from fixtures.claims.real_weights import Loaded
from fixtures.published.files import INDEX, SINGLE
from fixtures.published.release import at_path
from tests.support.checkpoints import SMALL, make, publish, save_tokenizer
from tests.support.ward import examine, matrix

pytestmark = pytest.mark.slow

OPT = "facebook/opt-125m"
LLAMA: dict[str, Any] = SMALL | {"model_type": "llama", "bos_token_id": 1, "eos_token_id": 2}
SETTINGS = "generation_config.json"
BART: dict[str, Any] = {
    "model_type": "bart", "vocab_size": 99, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 40, "decoder_ffn_dim": 40,
    "max_position_embeddings": 64, "decoder_start_token_id": 2,
}  # fmt: skip
T5: dict[str, Any] = {
    "model_type": "t5", "vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 40, "num_layers": 2, "num_heads": 4,
    "decoder_start_token_id": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A folder with a small Llama in shards, and one with OPT's miniature in a single file."""
    folder = tmp_path_factory.mktemp("sound")
    save_tokenizer(make(folder / "llama", shard="20KB", **LLAMA), LLAMA["vocab_size"])
    return {"llama": folder / "llama", "opt": publish(OPT, folder / "opt")}


@pytest.fixture
def copy(sound, tmp_path):
    """Copy one of them, to be damaged."""
    return lambda name="llama": shutil.copytree(sound[name], tmp_path / "copy")


@pytest.fixture
def fails(request):
    """See the claims of the `breaks` mark fail on the files in a folder, and no others of the chapter but `also`."""

    def check(folder, *, also=(), why="", weights=False):
        claims = request.node.get_closest_marker("breaks").args
        subject = Subject(at_path(folder), matrix().traits)
        found = examine(Loaded(subject) if weights else subject, chapter="14")
        failed = {name: result["reason"] for name, result in found.items() if result["verdict"] == "fails"}
        assert set(failed) == {*claims, *also}, failed
        for claim in claims:
            assert why in failed[claim], failed[claim]

    return check


def configure(folder, file="config.json", **fields):
    """Change fields of one of a checkpoint's small files; None takes a field away."""
    written = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    kept = {name: value for name, value in (written | fields).items() if value is not None}
    (folder / file).write_text(json.dumps(kept))


@pytest.mark.parametrize("name", ["llama", "opt"])
@pytest.mark.breaks
def test_of_what_is_sound_no_claim_fails(fails, copy, name):
    """Nothing is broken: the folders that the others are copied from are sound, with a template and a longest text."""
    folder = copy(name)
    places = json.loads((folder / "config.json").read_text())["max_position_embeddings"]
    configure(folder, "tokenizer_config.json", model_max_length=places)
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    fails(folder, weights=True)


@pytest.mark.breaks("test_every_file_is_what_its_name_says")
@pytest.mark.parametrize("name", [SINGLE, "tokenizer.json"])
def test_a_pointer_in_place_of_a_file(fails, copy, name):
    """The folder was cloned without git-lfs."""
    folder = copy("opt")
    (folder / name).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'ab' * 32}\nsize 434132\n")
    why = f"{name}: it is a git-lfs pointer, which stands for the file of 434,132 bytes. Type `git lfs pull`"
    fails(folder, also=["test_the_tokenizer_reads_the_sentence"] if name != SINGLE else (), why=why)


@pytest.mark.breaks("test_every_file_that_the_index_names_is_there")
def test_a_shard_that_did_not_arrive(fails, copy):
    """One of the shards that the index names is not there."""
    folder = copy()
    gone = sorted(folder.glob("model-*.safetensors"))[-1]
    gone.unlink()
    fails(folder, why=gone.name)


@pytest.mark.breaks("test_every_file_that_the_index_names_is_there")
def test_the_index_of_another_split(fails, copy):
    """The index names as many shards of another split, of which none is there."""
    folder = copy()
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"] = {k: v.split("-of-")[0] + "-of-00099.safetensors" for k, v in index["weight_map"].items()}
    (folder / INDEX).write_text(json.dumps(index))
    fails(folder, why="it is the index of another split")


@pytest.mark.breaks("test_every_tensor_is_in_the_shard_that_the_index_names")
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda names: dict(zip(names, [*list(names.values())[1:], names[min(names)]], strict=True)), "another shard"),
        (lambda names: dict(list(names.items())[:-1]), "not in the index: "),
    ],
    ids=["shifted", "incomplete"],
)
def test_an_index_that_is_wrong(fails, copy, change, why):
    """The index has each tensor in the shard of the next one, or leaves one out."""
    folder = copy()
    index = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps(index | {"weight_map": change(index["weight_map"])}))
    fails(folder, why=why)


@pytest.mark.breaks("test_every_tensor_is_in_the_shard_that_the_index_names")
def test_a_tensor_in_two_shards(fails, copy):
    """One tensor was written a second time."""
    folder = copy()
    one, other = sorted(folder.glob("model-*.safetensors"))[:2]
    again = dict(list(load_file(other).items())[:1])
    save_file(load_file(one) | again, one, metadata={"format": "pt"})
    fails(folder, why=f"in several shards: {min(again)}")


@pytest.mark.breaks("test_every_file_of_weights_is_read")
def test_an_adapter_beside_a_whole_model(fails, copy):
    """The settings of an adapter were left in the folder of the model that it was merged into."""
    folder = copy("opt")
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "org/base"})
    )
    fails(folder, why="with PEFT installed")


@pytest.mark.breaks("test_the_class_it_names_is_one_of_its_model_type")
def test_a_class_of_another_type(fails, copy):
    """The config was copied together from those of two models."""
    folder = copy()
    configure(folder, architectures=["MistralForCausalLM"])
    fails(folder, why="as LlamaForCausalLM")


@pytest.mark.breaks("test_the_class_it_names_is_one_of_its_model_type")
def test_a_class_whose_name_is_misspelt(fails, copy):
    """Two letters of the class's name changed places."""
    folder = copy()
    configure(folder, architectures=["LlamaForCasualLM"])
    fails(folder, why="expected 'LlamaForCausalLM', observed 'LlamaForCasualLM'")


@pytest.mark.breaks("test_every_size_in_the_config_is_read")
@pytest.mark.parametrize(
    ("name", "value", "meant"), [("rms_norm_esp", 0.5, "rms_norm_eps"), ("mlp_bais", True, "mlp_bias")]
)
def test_a_field_whose_name_is_misspelt(fails, copy, name, value, meant):
    """A field that is no size is misspelt, and the class takes its default."""
    folder = copy("llama")
    configure(folder, **{name: value, meant: None})
    fails(folder, why=f"{meant} is not in the config")


@pytest.mark.breaks("test_the_longest_text_of_the_tokenizer_has_its_places")
def test_texts_longer_than_the_table(fails, copy):
    """The tokenizer lets through one token more than there are places."""
    folder = copy("opt")
    places = json.loads((folder / "config.json").read_text())["max_position_embeddings"]
    configure(folder, "tokenizer_config.json", model_max_length=places + 1)
    fails(folder, why=f"observed {places + 1}")


@pytest.mark.breaks("test_the_chat_template_can_be_read")
def test_a_template_that_lost_its_end(fails, copy):
    """The template was cut off."""
    folder = copy()
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}")
    fails(folder, why="(line 1 of the template)")


@pytest.mark.breaks("test_every_file_of_weights_is_read", "test_every_tensor_has_its_shape")
def test_a_single_file_of_another_model_beside_the_shards(fails, copy, tmp_path):
    """A single file of a narrower model lies beside the shards, and is what the library reads."""
    folder = copy()
    other = make(tmp_path / "other", **LLAMA | {"hidden_size": 16, "head_dim": 4})
    shutil.copy(other / SINGLE, folder / SINGLE)
    fails(folder, why=f"the library reads {SINGLE} and no shard")


@pytest.mark.breaks("test_every_file_of_weights_is_read")
def test_a_shard_that_the_index_does_not_name(fails, copy):
    """A shard of an earlier, longer split was left behind."""
    folder = copy()
    shutil.copy(sorted(folder.glob("model-*.safetensors"))[0], folder / "model-00077-of-00077.safetensors")
    fails(folder, why="model-00077-of-00077.safetensors")


@pytest.mark.breaks("test_a_class_that_judges_texts_takes_two_at_once")
def test_a_judge_that_does_not_know_what_fills_a_row(fails, tmp_path):
    """A decoder judges by its last token, and nobody said which tokens come after that."""
    folder = make(tmp_path / "judge", cls="LlamaForSequenceClassification", **LLAMA | {"pad_token_id": 0})
    configure(folder, pad_token_id=None)
    fails(folder, why="if no padding token is defined")


@pytest.mark.breaks
@pytest.mark.parametrize(
    ("cls", "fields"),
    [
        ("LlamaForSequenceClassification", LLAMA | {"pad_token_id": 0, "num_labels": 1}),
        ("BertForSequenceClassification", SMALL | {"model_type": "bert", "num_key_value_heads": 4, "num_labels": 5}),
        ("BartForSequenceClassification", BART | {"num_labels": 3}),
        ("T5ForSequenceClassification", T5 | {"num_labels": 3}),
    ],
)
def test_judges_that_are_sound(fails, tmp_path, cls, fields):
    """Nothing is broken: each judges two texts at once."""
    fails(make(tmp_path / "judge", cls=cls, **fields))


@pytest.fixture
def embedder(tmp_path):
    """A BERT with what sentence-transformers puts behind it: a pooling, a matrix, a norm without settings."""
    folder = make(tmp_path / "embedder", cls="BertModel", **SMALL | {"model_type": "bert", "num_key_value_heads": 4})
    save_tokenizer(folder, SMALL["vocab_size"])
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense", "3_Normalize": "Normalize"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    (folder / "modules.json").write_text(json.dumps(modules))
    for name in ("1_Pooling", "2_Dense"):
        (folder / name).mkdir()
    configure(folder, "1_Pooling/config.json", word_embedding_dimension=32, pooling_mode_mean_tokens=True)
    configure(folder, "2_Dense/config.json", in_features=32, out_features=16)
    configure(folder, "sentence_bert_config.json", max_seq_length=512)
    return folder


@pytest.mark.breaks
def test_an_embedder_that_is_sound(fails, embedder):
    """Nothing is broken; a pooling of two kinds puts them side by side."""
    fails(embedder)
    configure(embedder, "1_Pooling/config.json", pooling_mode_cls_token=True)
    configure(embedder, "2_Dense/config.json", in_features=64)
    fails(embedder)


@pytest.mark.breaks("test_what_stands_behind_an_embedder_takes_its_vectors")
@pytest.mark.parametrize(
    ("file", "fields", "why"),
    [
        ("1_Pooling/config.json", {"word_embedding_dimension": 768}, "is 768, and the vectors that come are 32 wide"),
        ("2_Dense/config.json", {"in_features": 64}, "2_Dense/config.json: in_features is 64"),
    ],
)
def test_a_module_of_another_width(fails, embedder, file, fields, why):
    """The settings of a module were taken over from another model."""
    configure(embedder, file, **fields)
    fails(embedder, why=why)


@pytest.mark.breaks("test_what_stands_behind_an_embedder_takes_its_vectors")
def test_a_module_that_was_left_behind(fails, embedder):
    """A folder that modules.json names is not there."""
    shutil.rmtree(embedder / "1_Pooling")
    fails(embedder, why="1_Pooling/config.json is not here")


@pytest.mark.breaks("test_the_longest_text_of_the_tokenizer_has_its_places")
def test_texts_of_an_embedder_that_are_longer_than_the_table(fails, embedder):
    """Its settings for sentence-transformers let through more tokens than there are places."""
    configure(embedder, "sentence_bert_config.json", max_seq_length=2048)
    fails(embedder, why="by max_seq_length: expected 'at most 512', observed 2048")


@pytest.mark.breaks("test_the_config_says_each_thing_once")
def test_labels_that_have_two_numbers(fails, tmp_path):
    """One table of labels was written by another hand than the other."""
    fields = SMALL | {"model_type": "bert", "num_key_value_heads": 4, "num_labels": 3}
    folder = make(tmp_path / "judge", cls="BertForSequenceClassification", **fields)
    configure(folder, label2id={"LABEL_0": 0, "LABEL_1": 2, "LABEL_2": 1})
    fails(folder, why="label 1 is 'LABEL_1' in id2label, and label2id has 2 for it")


@pytest.mark.breaks("test_every_size_in_the_config_is_read", "test_every_tensor_has_its_shape")
def test_a_width_under_a_name_that_the_class_does_not_read(fails, copy):
    """The width stands under d_model, as other classes have it."""
    folder = copy("llama")
    configure(folder, hidden_size=None, d_model=LLAMA["hidden_size"])
    fails(folder, why="hidden_size is not in the config: the default is 4096; d_model (32) is not read by LlamaConfig")


@pytest.mark.breaks("test_the_config_says_each_thing_once")
def test_a_base_that_is_written_twice(fails, copy):
    """The base of the rotation has one value at the top and another below."""
    folder = copy()
    configure(folder, rope_theta=1e6, rope_parameters={"rope_type": "default", "rope_theta": 1e4})
    fails(folder, why="rope_theta is 1000000.0, and rope_parameters says 10000.0")


@pytest.mark.breaks("test_every_window_of_the_config_lets_a_token_see_itself")
def test_a_window_of_no_tokens(fails, tmp_path):
    """The window is written as zero where there is none."""
    folder = make(tmp_path / "mistral", **SMALL | {"model_type": "mistral", "sliding_window": None})
    configure(folder, sliding_window=0)
    why = "sliding_window is 0, and a token would not see itself; write null where there is no window"
    fails(folder, also=("test_it_writes_with_the_settings_it_is_released_with",), why=why)


@pytest.mark.breaks("test_the_generation_config_is_valid")
@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"do_sample": False, "temperature": 0.5}, "temperature"),
        ({"num_beams": 1, "early_stopping": True}, "num_beams"),
        ({"do_smaple": True}, "do_sample is nearly its name"),
    ],
)
def test_settings_that_contradict_one_another(fails, copy, settings, why):
    """One setting is of no use beside another."""
    folder = copy()
    configure(folder, SETTINGS, **settings)
    fails(folder, why=why)


@pytest.mark.breaks("test_it_writes_with_the_settings_it_is_released_with")
@pytest.mark.parametrize("weights", [False, True])
def test_settings_that_generate_refuses(fails, copy, weights):
    """The temperature is zero where tokens are drawn."""
    folder = copy()
    configure(folder, SETTINGS, do_sample=True, temperature=0.0)
    fails(folder, why="temperature", weights=weights)


@pytest.mark.breaks("test_every_special_token_has_a_row")
def test_a_token_beyond_the_table(fails, copy):
    """Padding was added to the tokenizer, and no row to the table."""
    folder = copy()
    configure(folder, SETTINGS, pad_token_id=LLAMA["vocab_size"])
    fails(folder, why="pad_token_id 99 of generation_config.json: the table has rows 0 to 98")


@pytest.mark.breaks("test_special_tokens_are_the_same_everywhere")
def test_an_end_that_generate_does_not_know(fails, copy):
    """The configs name one token as the end, the tokenizer another."""
    folder = copy()
    configure(folder, "tokenizer_config.json", eos_token="<unk>")
    fails(folder, why="eos_token_id is 2 in generation_config.json and 0 in the tokenizer")


@pytest.mark.breaks("test_the_end_of_an_answer_is_an_end_of_text")
def test_an_answer_that_runs_on(fails, copy):
    """The chat template ends an answer with another token than the configs do."""
    folder = copy()
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    configure(folder, "tokenizer_config.json", unk_token="<unk>", eos_token="<5>", bos_token=None)
    for file in ("config.json", SETTINGS):
        configure(folder, file, eos_token_id=vocabulary["<5>"])
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}<unk>{% endfor %}")
    fails(folder, why=f"ends an answer with <unk> (0), and eos_token_id is {vocabulary['<5>']}")


@pytest.mark.breaks("test_no_tensor_is_constant_that_training_would_change")
@pytest.mark.parametrize("name", ["model.layers.0.input_layernorm.weight", "model.layers.1.mlp.up_proj.weight"])
def test_a_tensor_of_zeros(fails, copy, name):
    """A norm, or a matrix, was never written."""
    folder = copy()
    shard = folder / json.loads((folder / INDEX).read_text())["weight_map"][name]
    tensors = load_file(shard)
    tensors[name].zero_()
    save_file(tensors, shard, metadata={"format": "pt"})
    fails(folder, why=f"all zero: {name}", weights=True)


@pytest.mark.breaks("test_every_score_is_a_number_in_the_type_of_the_files")
def test_scores_that_half_precision_does_not_hold(fails, tmp_path):
    """Stored in float16, two matrices make of a token what float16 cannot hold and float32 can."""
    folder = make(tmp_path / "half", dtype=torch.float16, **LLAMA)
    tensors = load_file(folder / SINGLE)
    for name in ("model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.down_proj.weight"):
        tensors[name].uniform_(3e4, 6e4)
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})
    fails(folder, why="not finite in float16", weights=True)

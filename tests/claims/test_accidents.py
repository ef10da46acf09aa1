"""Accidents of those who train, convert and publish: what is said of each, and that of its sound twin no claim fails.

Each kind is a small checkpoint with one thing done to it; one of the claims that fail names the cause.
TABLES=1 in the environment writes docs/releases.md anew, in one process.
"""

import functools
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file

from fixtures.claims.model_under_test import Subject
from fixtures.claims.real_weights import Loaded
from fixtures.published.files import INDEX, SINGLE
from fixtures.published.release import at_path
from tests.support.checkpoints import SMALL, make, save_tokenizer
from tests.support.small import ROOT
from tests.support.tables import WRITE
from tests.support.ward import examine, matrix

pytestmark = pytest.mark.slow

LLAMA: dict[str, Any] = SMALL | {"model_type": "llama", "bos_token_id": 1, "eos_token_id": 2}
BERT: dict[str, Any] = SMALL | {"model_type": "bert"}
T5: dict[str, Any] = {
    "model_type": "t5",
    "vocab_size": 99,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 40,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
DEEPSEEK: dict[str, Any] = {
    "model_type": "deepseek_v3",
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 40,
    "moe_intermediate_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
}
MIXTRAL: dict[str, Any] = SMALL | {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
ONE = torch.ones(1)
WEIGHT = "model.layers.0.mlp.up_proj.weight"
Damage = Callable[[Path], Any]


class Accident(NamedTuple):
    """One kind: the config, what is done to the bad one (and to both), which claim fails, and what it says."""

    config: dict[str, Any]
    damage: Damage
    claim: str
    says: str
    made: Mapping[str, Any] = MappingProxyType({})
    both: Damage = lambda _: None
    weights: bool = False


def tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Damage:
    """Change the tensors of the single file, in place or by handing back others."""

    def damage(folder: Path) -> None:
        found = load_file(folder / SINGLE)
        found = change(found) or found
        whole = {name: tensor.contiguous().clone() for name, tensor in found.items()}
        save_file(whole, folder / SINGLE, metadata={"format": "pt"})

    return damage


def names(change: Callable[[str], str]) -> Damage:
    """Change the names of the tensors."""
    return tensors(lambda found: {change(name): tensor for name, tensor in found.items()})


def without(part: str) -> Damage:
    """Leave out the tensors with this in their names."""
    return tensors(lambda found: {name: tensor for name, tensor in found.items() if part not in name})


def config(drop: tuple[str, ...] = (), file: str = "config.json", **fields: Any) -> Damage:
    """Change fields of a small file."""

    def damage(folder: Path) -> None:
        found = json.loads((folder / file).read_text()) | fields
        (folder / file).write_text(json.dumps({name: value for name, value in found.items() if name not in drop}))

    return damage


def content(data: bytes) -> Damage:
    """Put other bytes in the place of the weights."""
    return lambda folder: (folder / SINGLE).write_bytes(data)


def pooled(folder: Path) -> None:
    """What sentence-transformers puts behind a model."""
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    settings = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling/config.json").write_text(json.dumps(settings))


def lora(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names that PEFT has while an adapter is not merged."""
    new = {}
    for name, tensor in found.items():
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        if "q_proj" in name:
            new[f"{stem}.base_layer.weight"] = tensor
            new[f"{stem}.lora_A.default.weight"] = torch.randn(4, tensor.shape[1])
            new[f"{stem}.lora_B.default.weight"] = torch.zeros(tensor.shape[0], 4)
        else:
            new[f"{stem}.weight"] = tensor
    return new


def fused(found: dict[str, torch.Tensor]) -> None:
    """Queries, keys and values in one matrix, as other classes have them."""
    for layer in range(2):
        place = f"model.layers.{layer}.self_attn"
        parts = [found.pop(f"{place}.{one}_proj.weight") for one in "qkv"]
        found[f"{place}.qkv_proj.weight"] = torch.cat(parts)


def further(found: dict[str, torch.Tensor]) -> None:
    """A layer more, which predicts the token after the next."""
    for name, tensor in list(found.items()):
        if ".layers.2." in name:
            found[name.replace(".layers.2.", ".layers.3.")] = tensor
    found["model.layers.3.eh_proj.weight"] = torch.randn(32, 64)
    found["model.layers.3.shared_head.norm.weight"] = torch.ones(32)


def pretrained(found: dict[str, torch.Tensor]) -> None:
    """What BERT was trained with beside the head that fills in words."""
    found |= {"cls.seq_relationship.weight": torch.randn(2, 32), "cls.seq_relationship.bias": torch.zeros(2)}
    found |= {"bert.pooler.dense.weight": torch.randn(32, 32), "bert.pooler.dense.bias": torch.zeros(32)}


def index(change: Callable[[str], str]) -> Damage:
    """Change the names of the tensors in the index alone."""

    def damage(folder: Path) -> None:
        found = json.loads((folder / INDEX).read_text())
        found["weight_map"] = {change(name): shard for name, shard in found["weight_map"].items()}
        (folder / INDEX).write_text(json.dumps(found))

    return damage


def pruned(found: dict[str, torch.Tensor]) -> None:
    """A mask beside each matrix of the feed-forward networks."""
    for name in [name for name in found if "mlp" in name]:
        found[f"{name}_mask"] = torch.ones_like(found[name])
        found[f"{name}_orig"] = found.pop(name)


def parametrized(found: dict[str, torch.Tensor]) -> None:
    """Lengths and directions of the queries' matrices, as weight_norm() has them."""
    for name in [name for name in found if "q_proj" in name]:
        place = name.replace(".weight", ".parametrizations.weight")
        found[f"{place}.original0"], found[f"{place}.original1"] = found[name][:, :1], found.pop(name)


def own_head(found: dict[str, torch.Tensor]) -> None:
    found["lm_head.weight"] = torch.randn(99, 32)


def fill(name: str, low: float, high: float) -> Damage:
    return tensors(lambda found: found[name].uniform_(low, high) and None)


def nan(found: dict[str, torch.Tensor]) -> None:
    found[WEIGHT][0, 0] = torch.nan


def zero(name: str) -> Damage:
    return tensors(lambda found: found[name].zero_() is None or None)


MISSING, EXTRA, SHAPE = "test_no_tensor_is_missing", "test_no_tensor_is_unexpected", "test_every_tensor_has_its_shape"
WRITES, LAYERS, CUT, TIED = (
    "test_it_writes_with_the_settings_it_is_released_with",
    "test_every_layer_is_in_the_file",
    "test_no_tensor_of_the_file_is_cut_off",
    "test_a_matrix_with_two_names_is_one_in_the_file",
)
ACCIDENTS = {
    "saved as torch.compile() left it": Accident(
        LLAMA, names("_orig_mod.{}".format), MISSING, "every name has '_orig_mod', as torch.compile() puts it there"
    ),
    "saved as DataParallel left it": Accident(LLAMA, names("module.{}".format), EXTRA, "every name has 'module'"),
    "saved within activation checkpointing": Accident(
        LLAMA,
        names(lambda name: name.replace("layers.1.", "layers.1._checkpoint_wrapped_module.")),
        MISSING,
        "9 of 20 names have '_checkpoint_wrapped_module'",
        {"tie_word_embeddings": True},
    ),
    "an adapter that was not merged": Accident(LLAMA, tensors(lora), MISSING, "(lora_A, lora_B) are an adapter's"),
    "the language model of a larger one": Accident(
        LLAMA, names("language_model.{}".format), MISSING, "'language_model' in the files, which the class has not"
    ),
    "names of another library": Accident(
        LLAMA,
        names(lambda name: name.replace("self_attn", "attention")),
        MISSING,
        "'attention' in the files where the class has 'self_attn' (model.layers.0.attention.k_proj.weight); but for",
    ),
    "old names that nobody translates": Accident(
        BERT,
        names(lambda name: name.replace("LayerNorm.weight", "LayerNorm.g").replace("LayerNorm.bias", "LayerNorm.b")),
        MISSING,
        "'g' in the files where the class has 'weight'",
        both=names(lambda name: name),
    ),
    "queries, keys and values in one": Accident(LLAMA, tensors(fused), EXTRA, "is k_proj, q_proj, v_proj joined"),
    "no head, and untied": Accident(
        LLAMA | {"tie_word_embeddings": False}, without("lm_head"), MISSING, "tie_word_embeddings true, where"
    ),
    "a base model named as one that writes": Accident(
        LLAMA, config(architectures=["LlamaForCausalLM"]), MISSING, "LlamaModel in architectures", {"cls": "LlamaModel"}
    ),
    "a model that writes named as a base model": Accident(
        LLAMA | {"tie_word_embeddings": False},
        config(architectures=["LlamaModel"]),
        EXTRA,
        "LlamaForCausalLM in architectures, where config.json says LlamaModel, would fit the files",
    ),
    "a classifier without its head": Accident(
        LLAMA | {"pad_token_id": 0},
        without("score"),
        MISSING,
        "LlamaModel in architectures",
        {"cls": "LlamaForSequenceClassification"},
    ),
    "a classifier whose labels were lost": Accident(
        BERT | {"num_labels": 3},
        config(("id2label", "label2id")),
        SHAPE,
        "num_labels 3 would give every tensor the shape it has in the files",
        {"cls": "BertForSequenceClassification"},
    ),
    "a head width that was lost": Accident(
        LLAMA | {"head_dim": 16}, config(("head_dim",)), SHAPE, "head_dim 16 would give every tensor the shape it has"
    ),
    "another number of key heads": Accident(LLAMA, config(num_key_value_heads=4), SHAPE, "num_key_value_heads 2 would"),
    "another vocabulary": Accident(LLAMA, config(vocab_size=90), SHAPE, "vocab_size 99 would give"),
    "a state in parts, as ZeRO-3 has it": Accident(
        LLAMA,
        tensors(lambda found: {name: t.new_zeros(0) if t.ndim == 2 else t for name, t in found.items()}),
        SHAPE,
        "tensors are empty",
    ),
    "matrices the other way round": Accident(
        LLAMA,
        tensors(lambda found: {name: t.t() if "down_proj" in name else t for name, t in found.items()}),
        SHAPE,
        "2 matrices lie the other way round",
    ),
    "a layer of the middle that is not there": Accident(
        LLAMA | {"num_hidden_layers": 3}, without(".layers.1."), LAYERS, "expected '0-2', observed '0, 2'"
    ),
    "the last layer of those that count": Accident(
        DEEPSEEK,
        without(".layers.2."),
        LAYERS,
        "expected '0-2', observed '0-1'",
        both=lambda folder: (tensors(further)(folder), config(num_nextn_predict_layers=1)(folder)),
    ),
    "layers that the config does not speak of": Accident(
        LLAMA | {"num_hidden_layers": 3}, tensors(further), LAYERS, "expected '0-2', observed '0-3'"
    ),
    "one matrix of one expert": Accident(
        MIXTRAL, without("layers.1.block_sparse_moe.experts.2.w3"), MISSING, "experts.2.w3.weight"
    ),
    "pruning that was not made permanent": Accident(
        LLAMA, tensors(pruned), MISSING, "tensors are torch.nn.utils.prune's"
    ),
    "a parametrization that was not taken off": Accident(
        LLAMA, tensors(parametrized), MISSING, "tensors are torch.nn.utils.parametrize's"
    ),
    "all numbers in a row, as FSDP keeps them": Accident(
        LLAMA,
        tensors(lambda found: {"_flat_param": torch.cat([t.flatten() for t in found.values()])}),
        EXTRA,
        "one tensor is FSDP's, all numbers in a row (_flat_param)",
    ),
    "a model within one that judges": Accident(
        LLAMA,
        tensors(lambda found: {f"pretrained_model.{n}": t for n, t in found.items()} | {"v_head.summary.bias": ONE}),
        EXTRA,
        "one tensor is a value head of TRL's (v_head.summary.bias): save pretrained_model, the model inside",
    ),
    "matrices cast to eight bits": Accident(
        LLAMA,
        tensors(lambda found: {n: t.to(torch.float8_e4m3fn) if "proj" in n else t for n, t in found.items()}),
        "test_the_config_names_the_method_of_packed_weights",
        "No matrix has a scale: they were cast, and not quantized",
    ),
    "more experts than are there": Accident(
        MIXTRAL, config(num_local_experts=8), MISSING, "num_local_experts 4 would give every tensor the shape"
    ),
    "vectors that the config does not speak of": Accident(
        LLAMA | {"attention_bias": True},
        config(("attention_bias",)),
        EXTRA,
        "attention_bias true would fit the files; it is not in config.json, and the default is false",
    ),
    "vectors that the config speaks of and nobody trained": Accident(
        LLAMA, config(attention_bias=True), MISSING, "attention_bias false would fit the files; config.json says true"
    ),
    "numbers rounded to whole ones": Accident(
        LLAMA,
        tensors(lambda found: {name: (100 * t).to(torch.int32) for name, t in found.items()}),
        "test_every_tensor_has_the_type_of_the_config",
        "all 21 tensors in I32",
    ),
    "an index of other names than the shards": Accident(
        LLAMA, index("model.{}".format), CUT, "have no name in common", {"shard": "20KB"}
    ),
    "a function that nobody knows": Accident(
        LLAMA, config(hidden_act="swiglu"), MISSING, "hidden_act is 'swiglu', which the library does not know"
    ),
    "more experts asked for than there are": Accident(
        MIXTRAL, config(num_experts_per_tok=8), WRITES, "num_experts_per_tok is 8, of 4 by num_local_experts"
    ),
    "a token of padding beyond the table": Accident(
        LLAMA, config(pad_token_id=99), MISSING, "pad_token_id is 99, and vocab_size is 99"
    ),
    "a window of less than nothing": Accident(
        SMALL | {"model_type": "mistral"},
        config(sliding_window=-1),
        "test_every_window_of_the_config_lets_a_token_see_itself",
        "sliding_window is -1",
    ),
    "a BERT whose table of words was lost beside the heads of its pre-training": Accident(
        BERT, without("word_embeddings"), MISSING, "word_embeddings", both=tensors(pretrained)
    ),
    "a tokenizer without its vocabulary": Accident(
        LLAMA,
        lambda folder: (folder / "tokenizer.json").unlink(),
        "test_the_tokenizer_reads_the_sentence",
        "tokenizer_config.json is here, and neither tokenizer.json nor another vocabulary",
        both=lambda folder: save_tokenizer(folder, 99),
    ),
    "another type than the config's": Accident(
        LLAMA,
        config(dtype="float32"),
        "test_every_tensor_has_the_type_of_the_config",
        "tensors in bfloat16",
        {"dtype": torch.bfloat16},
    ),
    "a head of its own beside a tied table": Accident(
        LLAMA | {"tie_word_embeddings": True}, tensors(own_head), TIED, "have other numbers, so that the library unties"
    ),
    "a T5 that the config unties, and one that it ties": Accident(
        T5,
        config(tie_word_embeddings=True),
        TIED,
        "lm_head.weight and shared.weight have other numbers",
        both=lambda folder: (tensors(own_head)(folder), config(tie_word_embeddings=False)(folder)),
    ),
    "a page in place of the weights": Accident(LLAMA, content(b"<!DOCTYPE html>" + b" " * 2000), CUT, "a web page"),
    "a pickle in place of the weights": Accident(LLAMA, content(b"PK\x03\x04" + b" " * 2000), CUT, "torch.save()"),
    "weights that ended early": Accident(
        LLAMA, lambda folder: content((folder / SINGLE).read_bytes()[:-4000])(folder), CUT, "cut off: expected 'none'"
    ),
    "shards without their index": Accident(
        LLAMA, lambda folder: (folder / INDEX).unlink(), CUT, f"publish {INDEX} beside them", {"shard": "20KB"}
    ),
    "their makers' own layout alone": Accident(
        LLAMA,
        lambda folder: (folder / SINGLE).rename(folder / "consolidated.safetensors"),
        CUT,
        "consolidated.safetensors alone: weights under their makers' own names",
        both=lambda folder: shutil.copy(folder / SINGLE, folder / "consolidated.00.safetensors"),
    ),
    "a class whose name is misspelt": Accident(
        LLAMA,
        config(architectures=["LlamaForCasualLM"]),
        "test_the_class_it_names_is_one_of_its_model_type",
        "expected 'LlamaForCausalLM', observed 'LlamaForCasualLM'",
    ),
    "a field whose name is misspelt": Accident(
        LLAMA,
        config(("rms_norm_eps",), rms_norm_esp=1e-5),
        "test_every_size_in_the_config_is_read",
        "rms_norm_esp (1e-05), which is nearly its name, is not read",
    ),
    "a class whose capitals are others": Accident(
        LLAMA,
        config(architectures=["LLaMAForCausalLM"]),
        "test_the_class_it_names_is_one_of_its_model_type",
        "expected 'LlamaForCausalLM', observed 'LLaMAForCausalLM'",
    ),
    "a tokenizer's class whose capitals are others": Accident(
        LLAMA,
        config(file="tokenizer_config.json", tokenizer_class="LLaMATokenizer"),
        "test_the_tokenizer_reads_the_sentence",
        "tokenizer_class is LLaMATokenizer, which the library does not have; it has LlamaTokenizer",
        both=lambda folder: save_tokenizer(folder, 99),
    ),
    "a share in percent": Accident(
        LLAMA,
        config(file="generation_config.json", do_sample=True, top_p=90),
        "test_the_generation_config_is_valid",
        "top_p: expected a share of 1, found 90",
    ),
    "a token by its text where its number is meant": Accident(
        LLAMA,
        config(file="generation_config.json", eos_token_id="</s>"),
        "test_the_generation_config_is_valid",
        "eos_token_id: expected the number of a token, found '</s>'",
    ),
    "a setting of how to write whose name is misspelt": Accident(
        LLAMA,
        config(file="generation_config.json", do_smaple=True),
        "test_the_generation_config_is_valid",
        "do_sample is nearly its name",
    ),
    "labels numbered by two hands": Accident(
        LLAMA | {"pad_token_id": 0, "num_labels": 3},
        config(label2id={"LABEL_0": 0, "LABEL_1": 2, "LABEL_2": 1}),
        "test_the_config_says_each_thing_once",
        "label 1 is 'LABEL_1' in id2label, and label2id has 2 for it",
        {"cls": "LlamaForSequenceClassification"},
    ),
    "a judge that does not know what fills a row": Accident(
        LLAMA | {"pad_token_id": 0, "num_labels": 3},
        config(("pad_token_id",)),
        "test_a_class_that_judges_texts_takes_two_at_once",
        "if no padding token is defined",
        {"cls": "LlamaForSequenceClassification"},
    ),
    "an embedder whose pooling is another's": Accident(
        BERT,
        config(file="1_Pooling/config.json", word_embedding_dimension=768),
        "test_what_stands_behind_an_embedder_takes_its_vectors",
        "word_embedding_dimension is 768, and the vectors that come are 32 wide",
        {"cls": "BertModel"},
        both=pooled,
    ),
    "an embedder whose pooling was left behind": Accident(
        BERT,
        lambda folder: shutil.rmtree(folder / "1_Pooling"),
        "test_what_stands_behind_an_embedder_takes_its_vectors",
        "1_Pooling/config.json is not here",
        {"cls": "BertModel"},
        both=pooled,
    ),
    "a number that is none": Accident(
        LLAMA, tensors(nan), "test_every_weight_is_a_number", WEIGHT, weights=True
    ),
    "an expert of zeros": Accident(
        MIXTRAL,
        zero("model.layers.1.block_sparse_moe.experts.2.w3.weight"),
        "test_no_tensor_is_constant_that_training_would_change",
        "all zero: model.layers.1.block_sparse_moe.experts.2.w3.weight",
        weights=True,
    ),
}  # fmt: skip


@functools.cache
def verdicts(folder: Path, *, weights: bool) -> dict[str, str]:
    """The claims of the chapter that fail on a folder, with what they say."""
    subject = Subject(at_path(folder), matrix().traits)
    found = examine(Loaded(subject) if weights else subject, chapter="14")
    return {name: result["reason"] for name, result in found.items() if result["verdict"] == "fails"}


TABLE = ROOT / "docs/releases.md"
HEAD = """# Accidents of releases

Each row is a small, sound checkpoint to which one thing was done that happens to those who train, convert and publish.
Of the sound one no claim of chapter 14 fails; of the other, the claim in the row does, among others, and says why.
`TABLES=1 pytest tests/claims/test_accidents.py` writes this table, and the tests of that file keep it true.

| what was done | the claim | what it says |
|---|---|---|
"""


def row(kind: str, said: str) -> str:
    """What the table has of one kind, without the folder's name and lines of the library's code."""
    words = re.sub(r"^bad: | \([\w/]+\.py:\d+\)", "", said).replace("|", "\\|")
    return f"| {kind} | `{ACCIDENTS[kind].claim.removeprefix('test_')}` | {words} |"


def put(line: str) -> None:
    """Put one row into the table, in the order of the kinds."""
    lines = TABLE.read_text().splitlines() if TABLE.exists() else []
    rows = {one.split(" | ")[0]: one for one in [*lines, line] if one.startswith("| ")}
    TABLE.write_text(HEAD + "".join(f"{rows[f'| {kind}']}\n" for kind in ACCIDENTS if f"| {kind}" in rows))


@pytest.mark.parametrize("kind", ACCIDENTS)
def test_an_accident_is_named_and_its_sound_twin_is_not(kind, tmp_path):
    accident = ACCIDENTS[kind]
    good = make(tmp_path / "good", **accident.made, **accident.config)
    accident.both(good)
    bad = shutil.copytree(good, tmp_path / "bad")
    accident.damage(bad)
    assert verdicts(good, weights=accident.weights) == {}
    failed = verdicts(bad, weights=accident.weights)
    assert accident.claim in failed
    assert accident.says in failed[accident.claim]
    if WRITE:
        put(row(kind, failed[accident.claim]))
    assert row(kind, failed[accident.claim]) in TABLE.read_text().splitlines()


def test_the_table_has_a_row_for_each_kind_and_no_other():
    rows = [line.split(" | ")[0] for line in TABLE.read_text().splitlines() if line.startswith("| ")]
    assert rows[1:] == [f"| {kind}" for kind in ACCIDENTS]
    assert TABLE.read_text().startswith(HEAD)

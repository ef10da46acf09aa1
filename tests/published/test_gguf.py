"""GGUF files of many architectures: of sound ones nothing is said, and damaged ones end in a sentence."""

import random
import re
import struct
import time

import numpy as np
import pytest
from safetensors.torch import load_file

from fixtures.published.gguf import beside, sizes
from fixtures.published.gguf.bits import misnamed
from fixtures.published.gguf.layers import uncounted
from fixtures.published.gguf.model import in_directory
from fixtures.published.gguf.types import kinds, meant_by
from fixtures.published.release import at_path
from tests.support.checkpoints import SMALL, make
from tests.support.ggufs import F16, F32, Q4_K, Q8_0, llama, metadata, write

EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
ALIKE = {name: value for name, value in SMALL.items() if name != "num_key_value_heads"}
ONE_KEY = {name: value for name, value in ALIKE.items() if name != "head_dim"} | {"ffn_hidden_size": 40}
# How llama.cpp calls an architecture, the config of a small one, and what of the metadata it names otherwise.
SOUND = {
    "llama": ("llama", SMALL | {"model_type": "llama"}),
    "llama, wide heads": ("llama", SMALL | {"model_type": "llama", "head_dim": 16}),
    "mistral": ("llama", SMALL | {"model_type": "mistral"}),
    "mixtral": ("llama", SMALL | EXPERTS | {"model_type": "mixtral"}),
    "qwen2": ("qwen2", SMALL | {"model_type": "qwen2"}),
    "qwen3": ("qwen3", SMALL | {"model_type": "qwen3", "head_dim": 16}),
    "gemma": ("gemma", SMALL | {"model_type": "gemma", "head_dim": 16}),
    "gemma2": ("gemma2", SMALL | {"model_type": "gemma2", "head_dim": 16}),
    "gemma3": ("gemma3", SMALL | {"model_type": "gemma3_text", "head_dim": 16}),
    "phi": ("phi2", SMALL | {"model_type": "phi", "num_key_value_heads": 4}),
    "phi3": ("phi3", SMALL | {"model_type": "phi3", "pad_token_id": 0}),
    "gpt2": ("gpt2", {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 99}),
    "gpt_neox": ("gptneox", ALIKE | {"model_type": "gpt_neox"}),
    "stablelm": ("stablelm", SMALL | {"model_type": "stablelm"}),
    "starcoder2": ("starcoder2", SMALL | {"model_type": "starcoder2"}),
    "olmo2": ("olmo2", SMALL | {"model_type": "olmo2", "pad_token_id": 0}),
    "cohere": ("command-r", SMALL | {"model_type": "cohere", "pad_token_id": 0}),
    "bloom": ("bloom", {"model_type": "bloom", "hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 99}),
    "falcon": ("falcon", ONE_KEY | {"model_type": "falcon", "multi_query": True}),
    "bert": ("bert", ALIKE | {"model_type": "bert"}),
}
OF_EXPERTS = {"w1": "gate", "w2": "down", "w3": "up"}


def converted(folder, architecture, config):
    """Write a small model of the library's as GGUF, with the `gguf` package and its own table of names."""
    gguf = pytest.importorskip("gguf", reason="The package gguf writes the files: pip install gguf.")
    make(folder, **config)
    known = at_path(folder).config
    number = next(n for n, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    layers = known.num_hidden_layers
    table = gguf.get_tensor_name_map(number, layers)
    writer = gguf.GGUFWriter(folder / "model.gguf", architecture)
    writer.add_type("model")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_block_count(layers)
    writer.add_embedding_length(known.hidden_size)
    writer.add_head_count(known.num_attention_heads)
    inner = getattr(known, "intermediate_size", None) or getattr(known, "ffn_hidden_size", None)
    writer.add_feed_forward_length(inner or 4 * known.hidden_size)
    writer.add_context_length(getattr(known, "max_position_embeddings", None) or 2048)
    shared = 1 if getattr(known, "multi_query", False) else getattr(known, "num_key_value_heads", None)
    writer.add_head_count_kv(shared or known.num_attention_heads)
    width = getattr(known, "head_dim", None)
    if width and width * known.num_attention_heads != known.hidden_size:
        writer.add_key_length(width)
        writer.add_value_length(width)
    if architecture == "llama":
        writer.add_rope_dimension_count(width or known.hidden_size // known.num_attention_heads)
    if (experts := config.get("num_local_experts")) is not None:
        writer.add_expert_count(experts)
    writer.add_vocab_size(known.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"<{n}>" for n in range(known.vocab_size)])
    joined: dict[str, list] = {}
    for name, tensor in sorted(load_file(folder / "model.safetensors").items()):
        values = (tensor.t() if "c_" in name and tensor.ndim == 2 else tensor).numpy()  # gpt2's lie the other way
        stem, _, end = name.rpartition(".")
        if ".experts." in stem:
            layer, part = stem.split(".")[2], stem.rpartition(".")[2]
            joined.setdefault(f"blk.{layer}.ffn_{OF_EXPERTS[part]}_exps", []).append(values)
            continue
        short = table.get_name(stem) or table.get_name(re.sub(r"^(bert|transformer)\.", "", stem))
        if short is None:
            assert "cls." in name, name
            continue
        writer.add_tensor(f"{short}.{end}", values.astype(np.float16 if values.ndim > 1 else np.float32))
    for name, parts in joined.items():
        writer.add_tensor(f"{name}.weight", np.stack(parts).astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return at_path(folder)


def found_in(folder):
    """The model in the folder, and all that is said of its metadata, tensors, layers and types."""
    (model,) = at_path(folder).ggufs
    if model.torn:
        return model, [model.torn]
    words = [sizes.in_words(model.file, sizes.sizes(model)), uncounted(model), misnamed(model)[1]]
    return model, [one for one in words if one]


@pytest.mark.parametrize("name", SOUND)
def test_of_a_sound_model_nothing_is_said(tmp_path, name):
    release = converted(tmp_path, *SOUND[name])
    model, faults = found_in(tmp_path)
    assert faults == []
    assert len(sizes.sizes(model)) > 4
    held = beside.sizes(model, release.config)
    assert (sizes.in_words("it", held), beside.head(model, release.config)) == ("", "")
    assert len(held) >= 4


@pytest.mark.parametrize("name", SOUND)
def test_another_number_is_found(tmp_path, name):
    """Of the same models with one width, one number of layers and one vocabulary that are not theirs."""
    converted(tmp_path, *SOUND[name])
    for key, other in (("embedding_length", 48), ("block_count", 3), ("vocab_size", 100)):
        (model,) = at_path(tmp_path).ggufs
        vars(model)["fields"] = {**model.fields, f"{model.architecture}.{key}": other}
        words = sizes.in_words("it", sizes.sizes(model)) + uncounted(model)
        assert f"{model.architecture}.{key}: expected" in words


def test_what_the_package_reads_is_read_here(tmp_path):
    gguf = pytest.importorskip("gguf")
    converted(tmp_path, *SOUND["mixtral"])
    (model,) = at_path(tmp_path).ggufs
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    theirs = {one.name: (tuple(one.shape.tolist()[::-1]), int(one.tensor_type)) for one in reader.tensors}
    assert {name: (one.shape, one.kind) for name, one in model.tensors.items()} == theirs
    assert model.number("block_count") == reader.get_field("llama.block_count").contents()
    assert model.tokens == len(reader.get_field("tokenizer.ggml.tokens").contents())


# ---- laws of other architectures, as llama.cpp's converter lays them out


def rebuilt(tmp_path, fields, tensors):
    write(tmp_path / "model.gguf", fields, tensors)
    return found_in(tmp_path)[1]


def test_layers_that_differ_are_held_each_to_its_own(tmp_path):
    """Deci's layers have numbers of their own, and some have neither attention nor a feed-forward network."""
    fields, tensors = llama(architecture="deci", layers=3)
    heads, inner = "deci.attention.head_count", "deci.feed_forward_length"
    fields |= {heads: [4, 0, 4], f"{heads}_kv": [2, 0, 2], inner: [96, 0, 96]}
    tensors = {name: tensor for name, tensor in tensors.items() if "blk.1." not in name}
    assert rebuilt(tmp_path, fields, tensors) == []
    assert "expected 4, as blk.2" in rebuilt(tmp_path, fields | {heads: [4, 0, 8]}, tensors)[0]


@pytest.mark.parametrize(
    "keys",
    [
        {"attention.key_length": 24, "attention.key_length_mla": 16, "attention.kv_lora_rank": 32},
        {"attention.key_length": 32, "attention.key_length_swa": 16},
        {"ssm.state_size": 16, "attention.key_length": 32},
    ],
    ids=["latent", "two-widths", "recurrent"],
)
def test_heads_by_another_law_are_left_out(tmp_path, keys):
    fields, tensors = llama(architecture="other")
    assert rebuilt(tmp_path, fields | {f"other.{key}": value for key, value in keys.items()}, tensors) == []


def test_a_gate_beside_the_queries_is_sound(tmp_path):
    fields, tensors = llama(architecture="other")
    tensors |= {f"blk.{n}.attn_q.weight": ((128, 64), F16) for n in range(2)}
    assert rebuilt(tmp_path, fields, tensors) == []


def test_a_layer_that_predicts_further_may_be_there_or_not(tmp_path):
    """Some converters count it among the blocks, and some leave it out."""
    fields, tensors = llama(architecture="other", layers=3)
    fields["other.nextn_predict_layers"] = 1
    assert rebuilt(tmp_path, fields, tensors) == []
    assert rebuilt(tmp_path, fields, {n: t for n, t in tensors.items() if "blk.2." not in n}) == []
    assert rebuilt(tmp_path, fields | {"other.block_count": 2}, tensors) == []
    assert rebuilt(tmp_path, fields, {n: t for n, t in tensors.items() if "blk.1." not in n}) != []


def test_an_encoder_and_a_decoder_are_counted_apart(tmp_path):
    fields, tensors = llama(architecture="t5", layers=2)
    stacks = {n.replace("blk.", f"{s}.blk."): t for s in ("enc", "dec") for n, t in tensors.items() if "blk." in n}
    stacks = {n: t for n, t in stacks.items() if "dec.blk.1" not in n} | {"token_embd.weight": ((99, 64), F16)}
    assert rebuilt(tmp_path, fields | {"t5.decoder_block_count": 1}, stacks) == []
    assert "of dec.blk, found 0" in rebuilt(tmp_path, fields, stacks)[0]


def test_what_is_no_model_of_text_is_none(tmp_path):
    """An adapter, a projector of images and statistics of importance are GGUF, too."""
    for kind, name in (
        ("adapter", "blk.0.attn_q.weight.lora_a"),
        ("mmproj", "v.blk.0.attn_q.weight"),
        ("imatrix", "x"),
    ):
        write(tmp_path / "model.gguf", {"general.architecture": "llama", "general.type": kind}, {name: ((4, 8), F32)})
        (model,) = at_path(tmp_path).ggufs
        assert not model.is_model


def test_another_order_of_bytes_is_read(tmp_path):
    write(tmp_path / "model.gguf", *llama(), order=">")
    assert found_in(tmp_path)[1] == []


@pytest.mark.skipif(not kinds(), reason="The package gguf lists the types: pip install gguf.")
def test_types_by_their_names():
    """Every type of file that the package lists is of a type of numbers, and a mixture is of its largest part."""
    named = [number for number in range(64) if meant_by(number)[0]]
    assert len(named) > 25
    assert all(meant_by(number)[1] for number in named)
    meant = [kind.name for number in (0, 1, 15, 27, 29) if (kind := meant_by(number)[1])]
    assert meant == ["F32", "F16", "Q4_K", "IQ3_S", "IQ2_S"]
    assert meant_by(999) == ("", None)


@pytest.mark.skipif(not kinds(), reason="The package gguf lists the types: pip install gguf.")
def test_rows_that_are_no_whole_blocks_are_stored_otherwise(tmp_path):
    """Blocks of Q4_K have 256 numbers; a row of 64 takes another type, and one of 256 may not."""
    fields, tensors = llama(kind=Q8_0)
    assert rebuilt(tmp_path, fields | {"general.file_type": 15}, tensors) == []
    fields, tensors = llama(kind=Q8_0, width=256, inner=512)
    assert "Q4_K_M, 4.5 bits" in rebuilt(tmp_path, fields | {"general.file_type": 15}, tensors)[0]
    assert rebuilt(tmp_path, *llama(kind=Q4_K, width=256, inner=512)) == []


def test_parts_are_one_model(tmp_path):
    """The first part has the metadata, and each has its own tensors."""
    fields, tensors = llama()
    half = len(tensors) // 2
    write(tmp_path / "a-00001-of-00002.gguf", fields, dict(list(tensors.items())[:half]))
    write(tmp_path / "a-00002-of-00002.gguf", {"split.no": 1}, dict(list(tensors.items())[half:]))
    assert found_in(tmp_path)[1] == []


# ---- what somebody sends


def test_damage_ends_in_a_sentence_and_soon(tmp_path):
    """Bytes changed, cut off and put in anywhere in the header."""
    whole = write(tmp_path / "whole.gguf", *llama()).read_bytes()
    chance, file = random.Random(0), tmp_path / "model.gguf"
    (tmp_path / "whole.gguf").unlink()
    start = time.monotonic()
    for _ in range(400):
        content = bytearray(whole[: chance.choice([len(whole), chance.randrange(4000)])])
        for _ in range(chance.randrange(4)):
            content[chance.randrange(min(len(content), 4000)) if content else 0 : chance.randrange(4001)] = (
                chance.randbytes(chance.choice([1, 8]))
            )
        file.write_bytes(bytes(content))
        model, faults = found_in(tmp_path)
        assert not model.damage or model.damage.startswith("model.gguf: expected a GGUF file, found none: ")
        assert all(one.isprintable() for one in faults)
    assert time.monotonic() - start < 60


@pytest.mark.parametrize("inner", [0, 4, 8, 9])
def test_a_list_without_end_is_not_followed(tmp_path, inner):
    """The package's own reader would count to the number that the file names."""
    header = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"a" + struct.pack("<IIQ", 9, inner, 2**60)
    (tmp_path / "model.gguf").write_bytes(header + bytes(1000))
    (model,) = in_directory(tmp_path, ["model.gguf"])
    assert "expected a list, found one of 1152921504606846976 items" in model.damage


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "it is of version 1; versions 2 and 3 are read."),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "it speaks of 1152921504606846976 tensors and 0 keys"),
        (b"PK\x03\x04" + bytes(60), "it begins with b'PK"),
    ],
    ids=["version", "tensors", "zip"],
)
def test_what_is_none_is_said_to_be(tmp_path, content, words):
    (tmp_path / "model.gguf").write_bytes(content)
    (model,) = in_directory(tmp_path, ["model.gguf"])
    assert words in model.damage


def test_the_same_key_twice_is_named(tmp_path):
    one = struct.pack("<Q", 1) + b"a" + struct.pack("<II", 4, 1)
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + one + one)
    (model,) = in_directory(tmp_path, ["model.gguf"])
    assert "expected each name once, found a twice" in model.damage


def test_metadata_that_are_no_numbers_are_no_sizes(tmp_path):
    """A text, a list of texts or a fraction in place of a number is not compared, and ends in no error."""
    fields, tensors = llama()
    for value in ("four", ["a"], 0.5, True, []):
        odd = {
            key: value
            for key in metadata("llama", {"layers": 1, "width": 1, "heads": 1, "shared": 1, "inner": 1, "rows": 1}, 0)
            if key.startswith("llama.")
        }
        rebuilt(tmp_path, fields | odd, tensors)

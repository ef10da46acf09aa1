"""Counterexamples of chapter 14, its claims on GGUF files."""

import json

import pytest

from fixtures.claims.model_under_test import Subject
from fixtures.published.gguf.types import kinds
from fixtures.published.release import at_path
from tests.support.checkpoints import SMALL
from tests.support.ggufs import F16, LLAMA, Q4_0, llama, write
from tests.support.ward import examine, matrix

pytestmark = pytest.mark.slow

CONFIG = SMALL | {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": LLAMA["width"],
    "head_dim": LLAMA["width"] // LLAMA["heads"],
    "intermediate_size": LLAMA["inner"],
    "tie_word_embeddings": False,
}
WIDTH, HEADS = "llama.embedding_length", "llama.attention.head_count"
with_types = pytest.mark.skipif(not kinds(), reason="The package gguf lists the types: pip install gguf.")


@pytest.fixture
def fails(request):
    """See the claims of the `breaks` mark fail on the files in a folder, and no others of the chapter."""

    def check(folder, *, why=""):
        claims = request.node.get_closest_marker("breaks").args
        found = examine(Subject(at_path(folder), matrix().traits), chapter="14")
        failed = {name: result["reason"] for name, result in found.items() if result["verdict"] == "fails"}
        assert set(failed) == set(claims), failed
        for claim in claims:
            assert why in failed[claim], failed[claim]
        return found

    return check


@pytest.mark.breaks
def test_of_what_is_sound_no_claim_fails(fails, tmp_path):
    """Nothing is broken: GGUF alone is judged, and what needs a model of the library's is not run, with the reason."""
    write(tmp_path / "model.gguf", *llama())
    found = fails(tmp_path)
    assert found["test_the_sizes_in_a_gguf_file_are_those_of_its_tensors"]["verdict"] == "holds"
    assert found["test_every_layer_is_in_the_gguf_file"]["verdict"] == "holds"
    typed = found["test_every_gguf_file_is_whole"], found["test_a_gguf_file_has_the_bits_that_it_names"]
    assert {result["verdict"] for result in typed} == {"holds" if kinds() else "not run"}
    assert kinds() or all("pip install gguf" in result["reason"] for result in typed)
    assert "llama.cpp reads it" in found["test_every_size_in_the_config_is_read"]["reason"]


@pytest.mark.breaks
def test_of_what_is_sound_beside_its_config_no_claim_fails(fails, tmp_path):
    """Nothing is broken: the config is that of the model."""
    write(tmp_path / "model.gguf", *llama())
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert fails(tmp_path)["test_a_gguf_file_is_of_the_model_in_the_config"]["verdict"] == "holds"


@pytest.mark.breaks("test_every_gguf_file_is_whole")
@pytest.mark.parametrize(
    ("kept", "why"),
    [
        pytest.param(-50_000, "tensors are cut off", marks=with_types),
        (260, "expected a GGUF file, found none: it is cut off within its metadata, after llama."),
        (20, "it has 20 bytes, and the shortest header has 24"),
    ],
    ids=["tensors", "metadata", "start"],
)
def test_a_file_that_ended_early(fails, tmp_path, kept, why):
    """A part of the file did not arrive."""
    file = write(tmp_path / "model.gguf", *llama())
    file.write_bytes(file.read_bytes()[:kept])
    fails(tmp_path, why=why)


@pytest.mark.breaks("test_every_gguf_file_is_whole")
def test_a_part_that_is_not_there(fails, tmp_path):
    """Of a model in three parts, the second did not arrive."""
    for part in (1, 3):
        write(tmp_path / f"model-0000{part}-of-00003.gguf", *llama())
    fails(tmp_path, why="of 3 parts, 2 are not here. Fetch them")


@pytest.mark.breaks("test_the_sizes_in_a_gguf_file_are_those_of_its_tensors")
@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({WIDTH: 32}, f"model.gguf: {WIDTH}: expected 64, as token_embd.weight has [99, 64], found 32"),
        ({HEADS: 8}, f"{HEADS}: expected 4, as blk.0.attn_q.weight and attn_k.weight have 64 and 32 rows, 16 a head"),
        ({f"{HEADS}_kv": 4}, f"{HEADS}_kv: expected 2, as"),
        ({f"{HEADS}_kv": 3}, f"{HEADS}_kv: expected a divisor of 32, as"),
        ({"llama.feed_forward_length": 80}, "llama.feed_forward_length: expected 96, as blk.0.ffn_down.weight has"),
        ({"tokenizer.ggml.tokens": ["a"] * 90}, "tokenizer.ggml.tokens: expected 99, as token_embd.weight has"),
        ({"llama.vocab_size": 100}, "llama.vocab_size: expected 99, as token_embd.weight has"),
    ],
    ids=["width", "heads", "shared-heads", "no-divisor", "inner", "tokens", "vocabulary"],
)
def test_a_size_that_is_another(fails, tmp_path, changed, why):
    """One number of the metadata is that of another model."""
    fields, tensors = llama()
    write(tmp_path / "model.gguf", fields | changed, tensors)
    fails(tmp_path, why=why)


@pytest.mark.breaks("test_the_sizes_in_a_gguf_file_are_those_of_its_tensors")
def test_a_head_of_other_rows_than_the_table(fails, tmp_path):
    """Rows were added to the table and not to the head."""
    fields, tensors = llama()
    write(tmp_path / "model.gguf", fields, tensors | {"output.weight": ((90, LLAMA["width"]), F16)})
    fails(tmp_path, why="rows of output.weight: expected 99, as token_embd.weight has [99, 64], found 90")


@pytest.mark.breaks("test_every_layer_is_in_the_gguf_file")
@pytest.mark.parametrize(
    ("gone", "count", "why"),
    [
        ("blk.1.", 4, "model.gguf: llama.block_count: expected blocks 0-3 of blk, found 0, 2-3"),
        ("blk.3.", 4, "expected blocks 0-3 of blk, found 0-2"),
        ("none", 3, "expected blocks 0-2 of blk, found 0-3"),
    ],
    ids=["middle", "last", "more"],
)
def test_a_block_that_is_not_there(fails, tmp_path, gone, count, why):
    """A block of the middle, or the last, is lost, or one more is there than the metadata count."""
    fields, tensors = llama(layers=4)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(gone)}
    write(tmp_path / "model.gguf", fields | {"llama.block_count": count}, kept)
    fails(tmp_path, why=why)


@with_types
@pytest.mark.breaks("test_a_gguf_file_has_the_bits_that_it_names")
@pytest.mark.parametrize(("kind", "named", "why"), [(F16, 2, "Q4_0, 4.5 bits"), (Q4_0, 1, "F16, 16 bits")])
def test_a_type_that_no_matrix_has(fails, tmp_path, kind, named, why):
    """The file says four bits and has sixteen, or the other way round."""
    fields, tensors = llama(kind=kind)
    write(tmp_path / "model.gguf", fields | {"general.file_type": named}, tensors)
    fails(tmp_path, why=why)


@pytest.mark.breaks("test_a_gguf_file_is_of_the_model_in_the_config")
@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"num_hidden_layers": 3}, "model.gguf: llama.block_count: expected 3, as config.json has it, found 2"),
        ({"hidden_size": 128}, "llama.embedding_length: expected 128"),
        ({"num_attention_heads": 8}, "llama.attention.head_count: expected 8"),
        ({"num_key_value_heads": 4}, "llama.attention.head_count_kv: expected 4"),
        ({"max_position_embeddings": 1024}, "llama.context_length: expected 1024"),
        ({"vocab_size": 90}, "rows of token_embd.weight: expected 90, as vocab_size in config.json has it, found 99"),
    ],
    ids=["layers", "width", "heads", "shared-heads", "places", "vocabulary"],
)
def test_the_config_of_another_model(fails, tmp_path, changed, why):
    """One number of the config beside the file is another."""
    write(tmp_path / "model.gguf", *llama())
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | changed))
    fails(tmp_path, why=why)


@pytest.mark.breaks("test_a_gguf_file_is_of_the_model_in_the_config")
def test_a_head_that_the_config_has_apart(fails, tmp_path):
    """The config unties the head from the table, and the file has none."""
    write(tmp_path / "model.gguf", *llama(head=False))
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    fails(tmp_path, why="output.weight: expected one, as tie_word_embeddings is false in config.json, found none")

"""Two trained models, each from a package of the extra `trained`: what is said of them, and of spoilt copies.

The figures are those of the published models: SmolLM2's, which was in four bits once, are a little worse than its own.
"""

import json
import random
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fixtures.claims.model_under_test import Subject
from fixtures.claims.real_weights import Loaded
from fixtures.learning import tagged
from fixtures.published.release import at_path
from tests.support.child import pytest_run
from tests.support.trained import minilm, packed_smollm2, smollm2
from tests.support.ward import examine, matrix

pytestmark = pytest.mark.slow
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    """all-MiniLM-L6-v2, as it was published."""
    return minilm(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """SmolLM2-135M-Instruct, in float32."""
    return smollm2(tmp_path_factory.mktemp("trained"))


def run(folder, out, *options):
    """What a run on one model printed, and its record."""
    done = pytest_run(f"--model={folder}", f"--report={out}", *options)
    return done, json.loads((out / "report.json").read_text())


def result(record, claim):
    """The result of one claim."""
    (found,) = [r for r in record["results"] if r["claim"].endswith(f"::{claim}")]
    return found


@pytest.mark.parametrize("options", [(), ("--weights",)], ids=["config", "weights"])
def test_an_embedder_is_what_it_was_published_as(embedder, tmp_path, options):
    done, record = run(embedder, tmp_path / "out", *options)
    assert done.returncode == 0, done.stdout
    (model,) = record["models"]
    facts = model["facts"]
    assert (facts["parameters"], facts["layers"], facts["heads"], facts["d_model"]) == (22_713_216, 6, 12, 384)
    assert "it has no output head that scores tokens" in " ".join(done.stdout.split())
    assert ("its own weights, loaded in float32" in done.stdout) == bool(options)


def test_heads_of_an_embedder_have_what_they_look_at(embedder, tmp_path):
    done, record = run(embedder, tmp_path / "out", "--weights", "-m", "learning")
    assert done.returncode == 0, done.stdout
    seen = result(record, "test_trained_heads_look_where_random_ones_do_not")["observed"]["strongest heads"]
    assert re.fullmatch(r"layer 0, head 2: (1\.00|0\.9\d)", seen["the token before"])
    assert float(seen["what followed it when it was told"].rpartition(" ")[2]) < 0.1
    assert result(record, "test_the_sentence_is_expected")["verdict"] == "does not apply"


def test_heads_of_either_prefer_verbs_nouns_and_numbers(embedder, writer, tmp_path):
    """Each in the half of the sentences that it was not chosen on; and the streams of both have their outlier."""
    for name, folder, stands_out in (("embedder", embedder, 30), ("writer", writer, 3000)):
        done, record = run(folder, tmp_path / name, "--weights", "-m", "learning", "-k", "prefer_verbs or stands_out")
        assert done.returncode == 0, done.stdout
        (found,) = [r["observed"] for r in record["results"] if "stands_out" in r["claim"]]
        assert found["times the median"] > stands_out
        (found,) = [r["observed"] for r in record["results"] if "prefer_verbs" in r["claim"]]
        times = [found[f"{kind}: times their share, in the other half"] for kind in ("verbs", "nouns", "numbers")]
        assert min(times) >= 1.45


def test_with_their_tags_shuffled_no_kind_is_preferred(embedder, monkeypatch):
    """What is found of verbs, nouns and numbers rests on which words they are."""
    chance = random.Random(0)
    lines = []
    for line in tagged.SENTENCES:
        words = [word.partition("/") for word in line.split()]
        marks = [mark for *_, mark in words]
        chance.shuffle(marks)
        lines.append(" ".join(f"{word}/{mark}" for (word, *_), mark in zip(words, marks, strict=True)))
    monkeypatch.setattr(tagged, "SENTENCES", lines)
    found = examine(Loaded(Subject(at_path(embedder), matrix().traits)), claims="prefer_verbs")
    assert [result["verdict"] for result in found.values()] == ["fails"]


def test_its_quantized_layers_keep_to_the_claims(embedder, tmp_path):
    done, _ = run(embedder, tmp_path / "out", "--weights", "-m", "quantization")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("spoil", "claim"),
    [
        (lambda tensor: tensor.fill_(torch.nan), "test_every_weight_is_a_number"),
        (lambda tensor: tensor.zero_(), "test_no_tensor_is_constant_that_training_would_change"),
    ],
    ids=["nan", "zero"],
)
def test_a_spoilt_matrix_is_named(embedder, tmp_path, spoil, claim):
    folder, name = shutil.copytree(embedder, tmp_path / "spoilt"), "encoder.layer.3.output.dense.weight"
    tensors = load_file(folder / WEIGHTS)
    spoil(tensors[name])
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    done, record = run(folder, tmp_path / "out", "--weights", "-k", "test_14")
    assert done.returncode == 1
    assert result(record, claim)["verdict"] == "fails"
    assert name in result(record, claim)["reason"]


def test_a_writer_holds_with_its_weights(writer, tmp_path):
    done, record = run(writer, tmp_path / "out", "--weights")
    assert done.returncode == 0, done.stdout
    assert record["models"][0]["facts"]["parameters"] == 134_515_008
    assert 'loaded in float32, on "The quick brown fox' in " ".join(done.stdout.split())


def test_a_writer_expects_and_its_heads_look_back(writer, tmp_path):
    done, record = run(writer, tmp_path / "out", "--weights", "-m", "learning")
    assert done.returncode == 0, done.stdout
    heads = result(record, "test_trained_heads_look_where_random_ones_do_not")["observed"]["strongest heads"]
    assert heads["what followed it when it was told"].startswith("layer 18, head 6: 0.8")
    assert heads["the token before"].startswith("layer 16, head 0: ")
    ranks = result(record, "test_the_sentence_is_expected")["observed"]["rank of each next token"]
    assert ranks[-2:] == [3, 1]


def test_a_writer_is_quantized(writer, tmp_path):
    done, record = run(writer, tmp_path / "out", "--weights", "-m", "quantization", "-k", "fewer_bits_expect")
    assert done.returncode == 0, done.stdout
    losses = result(record, "test_trained_weights_in_fewer_bits_expect_a_text_less_well")["observed"]["loss"]
    assert losses["float32"] < losses["int8"] < min(losses["nf4"], losses["fp4"])


def test_a_file_of_llama_cpp_is_judged_by_its_header(tmp_path):
    """As it was published no claim on it fails; with one byte changed, that of the number of its blocks, one does."""
    folder = tmp_path / "packed"
    folder.mkdir()
    file = Path(shutil.copy(packed_smollm2(), folder))
    done, record = run(folder, tmp_path / "out", "-k", "test_14")
    assert done.returncode == 0, done.stdout
    held = {r["claim"].rpartition("::")[2] for r in record["results"] if r["verdict"] == "holds"}
    assert {name for name in held if "gguf" in name} == {
        "test_every_gguf_file_is_whole",
        "test_the_sizes_in_a_gguf_file_are_those_of_its_tensors",
        "test_every_layer_is_in_the_gguf_file",
        "test_a_gguf_file_has_the_bits_that_it_names",
    }
    with file.open("r+b") as content:
        key = b"llama.block_count"
        content.seek(content.read(100_000).index(key) + len(key) + 4)
        assert content.read(1) == b"\x1e"
        content.seek(-1, 1)
        content.write(b"\x1f")
    done, record = run(folder, tmp_path / "again", "-k", "test_14")
    assert done.returncode == 1
    words = "llama.block_count: expected blocks 0-30 of blk, found 0-29. Convert the model again"
    assert words in result(record, "test_every_layer_is_in_the_gguf_file")["reason"]

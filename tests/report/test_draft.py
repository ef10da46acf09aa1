"""The draft: the entry that a release would have, which the claims hold against it, number for number."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fixtures.claims.model_under_test import Subject
from fixtures.published import entries_file
from fixtures.published.entry import Entry, departures
from fixtures.published.hub import Repository
from fixtures.published.release import Release, at_path, recorded
from fixtures.published.tokenizer import build_tokenizer
from fixtures.report.draft import BESIDE, Draft, entry_id, source, tokenized, written
from tests.support.child import pytest_run
from tests.support.ward import examine, matrix

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "fixtures/published/configs"


def drafted(model: str, **contradictions: str) -> Draft:
    """The draft of a model of the matrix, taken for a release that has no entry."""
    return Draft(Subject(at_path(CONFIGS / f"{model}.json"), matrix().traits), matrix().traits, contradictions)


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint directory with a config and a tokenizer."""
    folder = tmp_path / "fox-125m"
    sentence = matrix().entries["facebook/opt-125m"].sentence
    assert sentence is not None
    build_tokenizer(sentence).save_pretrained(folder)
    shutil.copyfile(CONFIGS / "facebook/opt-125m.json", folder / "config.json")
    return folder


def test_a_draft_is_a_matrix_that_passes(checkpoint, tmp_path):
    """It has what the matrix has of the same model, and the claims hold with it; another number in it fails."""
    draft = tmp_path / "draft.yaml"
    done = pytest_run(f"--model={checkpoint}", "--draft", str(draft))
    assert done.returncode == 0, done.stdout
    assert f"The draft: {draft}" in done.stdout
    (entry,) = entries_file.load(draft, configs=tmp_path / BESIDE).entries.values()
    published = matrix().entries["facebook/opt-125m"]
    assert entry.id == "fox-125m"
    assert {**entry.facts, "size": None} == {**published.facts, "size": None}
    assert published.sentence is not None
    assert entry.sentence == {key: v for key, v in published.sentence.items() if key != "vocabulary"}
    assert set(entry.traits) <= set(published.traits)
    done = pytest_run(f"--matrix={draft}")
    assert done.returncode == 0, done.stdout
    assert "fox-125m (matrix)" in done.stdout
    draft.write_text(draft.read_text().replace("heads: 12", "heads: 24").replace("kv_heads: 24", "kv_heads: 12"))
    done = pytest_run(f"--matrix={draft}", "-k", "test_05")
    assert done.returncode == 1
    assert "heads: expected 24, observed 12" in done.stdout


CAPPED = {
    "model_type": "gemma2",
    "architectures": ["Gemma2ForCausalLM"],
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 99,
}


def test_what_a_property_brings_and_is_not_seen_is_no_departure(tmp_path):
    """Scores too small for their cap hold the claim; drafted beside a model where it shows, only that one departs."""
    small, large = tmp_path / "small", tmp_path / "large"
    for folder, config in ((small, CAPPED), (large, CAPPED | {"hidden_size": 256, "head_dim": 64})):
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
    draft, claim = tmp_path / "draft.yaml", "test_what_is_added_to_the_scores_is_the_same_for_any_text"
    done = pytest_run(f"--model={small}", f"--model={large}", f"--draft={draft}", "-k", "test_03 or test_04")
    assert done.returncode == 0, done.stdout
    matrix = entries_file.load(draft, configs=tmp_path / BESIDE)
    expected = {name: claim in departures(entry, matrix.traits) for name, entry in matrix.entries.items()}
    assert expected == {"small": False, "large": True}
    done = pytest_run(f"--matrix={draft}", "-k", "test_03 or test_04")
    assert done.returncode == 0, done.stdout


def test_what_is_known_of_a_type_is_drafted(tmp_path):
    """A claim that the library's code for a type is known to contradict departs in the drafted entry as well."""
    (tmp_path / "config.json").write_text('{"model_type": "bamba", "attn_layer_indices": [9, 18, 27]}')
    draft = tmp_path / "draft.yaml"
    for options in ([f"--model={tmp_path}", f"--draft={draft}"], [f"--matrix={draft}"]):
        done = pytest_run(*options, "-k", "test_07 or test_05")
        assert done.returncode == 0, done.stdout
        assert "its recurrence gives other scores" in " ".join(done.stdout.split())


def test_claims_that_an_entry_alone_brings_are_drafted_for(tmp_path):
    """Layers that keep no keys, and heads that a config counts otherwise, are known when the entry is first run."""
    keeping = {"model_type": "gemma3n_text", "num_hidden_layers": 8, "num_kv_shared_layers": 3, "hidden_size": 32}
    keeping |= {"intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    keeping |= {"vocab_size": 99, "vocab_size_per_layer_input": 99, "hidden_size_per_layer_input": 8, "laurel_rank": 4}
    convolving = {"model_type": "convbert", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    draft, options = tmp_path / "draft.yaml", []
    for name, config in {"keeping": keeping, "convolving": convolving}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        options.append(f"--model={tmp_path / name}")
    asked = ["-k", "published or token_in_the_cache"]
    done = pytest_run(*options, f"--draft={draft}", *asked, "-m", "")
    assert done.returncode == 0, done.stdout
    done = pytest_run(f"--matrix={draft}", *asked, "-m", "", "-v")
    assert done.returncode == 0, done.stdout
    assert "keep none. (1): keeping" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    "name",
    [
        "facebook/opt-350m",
        "google/gemma-2-2b",
        "mistralai/Mixtral-8x7B-v0.1",
        "google-t5/t5-small",
    ],
)
def test_every_number_of_a_draft_can_be_wrong(name, tmp_path):
    """With any one of its facts changed, some claim fails; with none, none does."""
    own = matrix().entries[name].departs  # what it contradicts beyond its traits was seen when it was drafted
    draft = drafted(name, **own)
    file = tmp_path / "draft.yaml"
    file.write_text(written({draft.id: draft.entry}, draft.traits, matrix().budgets))
    read = entries_file.load(file, claims=entries_file.claim_names(ROOT / "specs"))
    entry = read.entries[draft.id]
    configs = CONFIGS / Path(name).parent

    built = Subject(recorded(entry, configs), read.traits)

    def failing(entry: Entry) -> list[str]:
        subject = Subject(recorded(entry, configs), read.traits)
        vars(subject).update(skeleton=built.skeleton, miniature=built.miniature, facts=built.facts)
        found = examine(subject, claims="not test_08 and not test_09 and not test_12")
        assert found
        return [claim for claim, result in found.items() if result["verdict"] == "fails"]

    assert failing(entry) == []
    changed: dict[str, Any] = {key: value for key, value in draft.entry.items() if type(value) is int}
    assert {"layers", "d_model", "vocab_size", "parameters"} <= changed.keys()
    unnoticed = [key for key, value in changed.items() if not failing(dataclasses.replace(entry, **{key: 2 * value}))]
    assert unnoticed == []


def test_what_fails_is_drafted_as_a_departure_with_what_was_seen():
    """A claim that failed, and not against a published number, departs; one that a trait declares is not repeated."""
    reason = "As observed: weights: expected 1.0, observed 0.5"
    known = "test_attention_receives_the_stream_itself"
    draft = drafted("facebook/opt-125m", test_weights_of_a_row_sum_to_one=reason, **{known: reason})
    assert draft.entry["departs"] == {"test_weights_of_a_row_sum_to_one": reason}
    assert known in {claim for trait in draft.traits.values() for claim in trait.departs}


def test_a_tokenizer_that_is_none_drafts_no_sentence(tmp_path):
    """A file that is no tokenizer, or one that splits in no known way, is said and left out."""
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="not read"):
        tokenized(tmp_path / "tokenizer.json")
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordLevel({"?": 0}, unk_token="?")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="as none of"):
        tokenized(tmp_path / "tokenizer.json")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("my model (new)", "my-model--new"), ("a/b/c", "b/c"), ("...", "release"), ("Llama-3.1", "Llama-3.1")],
)
def test_a_name_becomes_a_key_of_the_matrix(name, expected):
    """Whatever a directory is called, its entry has a name that models.yaml can hold."""
    assert entry_id(Release(name, "directory", Path())) == expected


def test_a_release_on_the_hub_is_named_by_its_exact_commit():
    """The key is the hub's id without the revision that was asked for; the source has the commit that it stood for."""
    repository = Repository("org/name", "main")
    repository.commit = "0123456789" * 4
    release = Release("org/name@main", "hub", None, repository=repository)
    assert entry_id(release) == "org/name"
    assert source(release) == f"https://huggingface.co/org/name/blob/{'0123456789' * 4}/config.json, as observed"
    assert release.revision == repository.commit


def test_what_cannot_be_read_is_said_and_drafts_nothing(tmp_path):
    """A stream of another length than the text cannot be read: that is said, and no file is left."""
    (tmp_path / "config.json").write_text('{"model_type": "cpmant"}')
    done = pytest_run(f"--model={tmp_path}", "-k", "test_05", f"--draft={tmp_path / 'draft.yaml'}")
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED
    assert f"{tmp_path.name}: no entry was drafted: " in done.stdout
    assert "INTERNALERROR" not in done.stdout
    assert not (tmp_path / "draft.yaml").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--draft", "{here}/new.yaml"], "expected a release to draft an entry of"),
        (["--draft={here}/old.yaml", "--model=x/y"], "a draft overwrites nothing"),
        (["--draft", "{here}/none/new.yaml", "--model=x/y"], "expected a file in a directory that is there"),
    ],
)
def test_a_draft_that_cannot_be_written_is_refused_before_anything_runs(words, sentence, tmp_path):
    """The sentence says what was expected; a file that is there stays as it is."""
    (tmp_path / "old.yaml").write_text("kept")
    done = pytest_run(*(word.format(here=tmp_path) for word in words))
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert sentence in done.stderr
    assert (tmp_path / "old.yaml").read_text() == "kept"

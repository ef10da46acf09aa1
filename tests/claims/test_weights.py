"""Claims on real weights: what --weights changes, what it refuses, and what a run without it says."""

import json
import re

import pytest

from fixtures.claims import real_weights
from fixtures.claims.at_work import AtWork
from fixtures.claims.model_under_test import Subject
from fixtures.claims.parametrize import Bench
from fixtures.claims.real_weights import Loaded, Loading
from fixtures.published.files import SINGLE
from fixtures.published.release import Release, at_path
from fixtures.report import progress as progress_module
from fixtures.report.progress import Group, Progress
from tests.support.checkpoints import publish
from tests.support.child import pytest_run
from tests.support.packed import configure, lay_out
from tests.support.ward import examine, healthy, matrix

pytestmark = pytest.mark.slow

OPT, BERT, T5 = "facebook/opt-125m", "google-bert/bert-base-cased", "google-t5/t5-small"
CLAIMS = 17  # of chapter 14, at least: what speaks of shards, templates or 16 bits does not apply
DOES_NOT_APPLY = "does not apply"
NUMBERS = (
    "test_every_weight_is_a_number",
    "test_no_tensor_is_constant_that_training_would_change",
    "test_every_score_is_a_number",
    "test_every_score_is_a_number_in_the_type_of_the_files",
)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder with a small checkpoint, by the model whose miniature is in it."""
    return {model: publish(model, tmp_path_factory.mktemp("published")) for model in (OPT, BERT, T5)}


def loaded(folder):
    """The subject of a folder under --weights."""
    return Loaded(Subject(at_path(folder), matrix().traits))


@pytest.mark.parametrize("family", [OPT, BERT, T5], ids=["decoder-only", "encoder-only", "encoder-decoder"])
def test_every_claim_holds_on_a_sound_checkpoint(published, family):
    found = examine(loaded(published[family]), marks="not (loading or learning or quantization or gpu)")
    assert {name: r["reason"] for name, r in found.items() if r["verdict"] in ("fails", "not run")} == {}
    of_the_files = [r["verdict"] for r in found.values() if "test_14_" in r["claim"]]
    assert set(of_the_files) == {"holds", "does not apply"}
    assert of_the_files.count("holds") >= CLAIMS - (family == BERT) * 2  # which writes nothing
    assert len([r for r in found.values() if r["verdict"] == "holds"]) > 50


def test_a_copy_of_a_tied_matrix_is_no_other(published, tmp_path):
    """A head with the table's own numbers in the file is a copy: the claim on tied matrices holds."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(published[OPT] / SINGLE)
    tensors["lm_head.weight"] = tensors["model.decoder.embed_tokens.weight"].clone()
    (tmp_path / "config.json").write_bytes((published[OPT] / "config.json").read_bytes())
    save_file(tensors, tmp_path / SINGLE, metadata={"format": "pt"})
    found = examine(Subject(at_path(tmp_path), matrix().traits), chapter="14", claims="two_names")
    assert [result["verdict"] for result in found.values()] == ["holds"], found


def test_the_claims_run_on_the_weights_of_the_file(published):
    """The model that a claim is given has the file's numbers, in float32."""
    import torch
    from safetensors.torch import load_file

    subject = loaded(published[OPT])
    weights = dict(subject.miniature.model.named_parameters())
    file = load_file(published[OPT] / SINGLE)
    assert {name for name, tensor in file.items() if not torch.equal(weights[name], tensor.float())} == set()
    assert {p.dtype for p in weights.values()} == {torch.float32}


def test_a_release_that_cannot_be_loaded_harms_no_other(published, tmp_path):
    """The one after it, in the same run, fails no claim; its own first claim says why."""
    config = json.loads((published[OPT] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_attention_heads": 7}))
    (tmp_path / SINGLE).write_bytes((published[OPT] / SINGLE).read_bytes())
    both = [f"--model={folder}" for folder in (tmp_path, published[OPT])]
    done = pytest_run(*both, "--weights", f"--report={tmp_path / 'out'}", "specs/test_14_the_release.py")
    record = json.loads((tmp_path / "out" / "report.json").read_text())
    failed = {r["model"] for r in record["results"] if r["verdict"] == "fails"}
    assert "torn down" not in done.stdout
    assert len(failed) == 1
    assert str(published[OPT].name) not in str(failed)


def test_what_is_loaded_is_let_go_before_the_next(published):
    import gc
    import weakref

    releases = {str(n): at_path(published[model]) for n, model in enumerate((OPT, BERT))}
    bench = Loading(Bench({release.id: release for release in releases.values()}, matrix().traits))
    first, second = (release.id for release in releases.values())
    before = weakref.ref(bench.subject(first).miniature.model)
    bench.subject(second)
    gc.collect()
    assert before() is None


def why_not_run(subject, chapter="14"):
    """The sentences of the claims of a chapter that did not run, none of which failed."""
    found = examine(subject, chapter=chapter)
    assert not [r for r in found.values() if r["verdict"] == "fails"], found
    return {name: r["reason"] for name, r in found.items() if r["verdict"] == "not run"}


def test_without_memory_nothing_is_loaded(published, monkeypatch):
    monkeypatch.setattr(real_weights, "free_memory", lambda: 10**6)
    monkeypatch.setattr(real_weights, "load", lambda *_: pytest.fail("it was loaded"))
    reasons = why_not_run(loaded(published[OPT]))
    assert set(reasons) >= set(NUMBERS)
    assert "GB of memory" in reasons[NUMBERS[0]]
    assert "0.001 GB are free. Nothing was loaded." in reasons[NUMBERS[0]]


def test_without_disk_nothing_is_downloaded(published, monkeypatch):
    monkeypatch.setattr(Release, "away", {SINGLE: 10**9})
    monkeypatch.setattr(real_weights, "_free_disk", lambda: 10**6)
    monkeypatch.setattr(real_weights, "load", lambda *_: pytest.fail("it was loaded"))
    reasons = why_not_run(loaded(published[OPT]))
    assert "needs 1.0 GB of disk for its files; 0.001 GB are free" in reasons[NUMBERS[0]]


def test_without_weights_asked_for_only_the_headers_are_read(published):
    reasons = why_not_run(Subject(at_path(published[OPT]), matrix().traits))
    assert reasons == dict.fromkeys(NUMBERS, "The weights are read with --weights.")


def test_a_bare_config_has_no_files(published):
    reasons = why_not_run(loaded(published[OPT] / "config.json"))
    assert set(NUMBERS) < set(reasons)
    assert all("the config alone is here" in sentence for sentence in reasons.values())


def test_pickled_weights_are_refused(published, tmp_path):
    (tmp_path / "config.json").write_bytes((published[OPT] / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    reasons = why_not_run(loaded(tmp_path))
    assert set(NUMBERS) < set(reasons)
    assert {s for s in reasons.values() if "pytorch_model.bin: pickled, which can run any code" not in s} == set()


def test_packed_numbers_are_not_loaded(published, tmp_path):
    reasons = why_not_run(loaded(lay_out(tmp_path / "fp8", "fp8")))
    assert all("published quantized (fp8)" in reasons[name] for name in NUMBERS)


def test_a_config_that_does_not_say_what_is_packed_is_not_loaded(published, tmp_path):
    """Packed numbers without a word of it, and settings that were left behind: what is so, another claim says."""
    config = json.loads((published[OPT] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "fp8"}}))
    (tmp_path / SINGLE).write_bytes((published[OPT] / SINGLE).read_bytes())
    for folder in (tmp_path, configure(lay_out(tmp_path / "gptq", "gptq"), drop=("quantization_config",))):
        found = examine(loaded(folder), chapter="14")
        failed = [name for name, r in found.items() if r["verdict"] == "fails"]
        assert failed == ["test_the_config_names_the_method_of_packed_weights"]
        assert all("does not say how its weights are packed" in found[name]["reason"] for name in NUMBERS)


def test_a_file_that_cannot_be_read_fails_once(published, tmp_path):
    """One claim says why, in a sentence; the others on the files did not run."""
    (tmp_path / "config.json").write_bytes((published[OPT] / "config.json").read_bytes())
    (tmp_path / SINGLE).write_bytes(b"no tensors here")
    found = examine(loaded(tmp_path), chapter="14")
    failed = {name: r["reason"] for name, r in found.items() if r["verdict"] == "fails"}
    assert set(failed) == {"test_no_tensor_of_the_file_is_cut_off"}
    assert "expected a safetensors file, found none" in failed["test_no_tensor_of_the_file_is_cut_off"]
    assert {found[name]["verdict"] for name in NUMBERS} == {"not run"}


def test_what_is_loaded_is_said_and_how_long_it_may_take(published):
    """One line in the terminal, once the first pass is over; a plain run has none."""
    found = re.compile(
        r"its weights are loaded, [\d.]+ GB of files in [\d.]+ s; its first pass took [\d.]+ s, "
        r"all its claims about [\d.]+ (s|min)"
    )
    chosen = [f"--model={published[OPT]}", "-k", "test_14"]
    printed = pytest_run(*chosen, "--weights").stdout
    assert len(found.findall(printed)) == 1
    assert "its weights are loaded" not in pytest_run(*chosen).stdout


def test_what_is_at_work_is_said_as_long_as_it_takes():
    work = AtWork()
    with work.at("loading"):
        with work.at("its first pass"):
            assert work.now == "its first pass"
        assert work.now == "loading"
    work.say("done")
    assert (work.now, work.written(), work.written()) == ("", ["done"], [])


def test_the_rest_is_told_by_the_first_pass(pytester, monkeypatch):
    """A run on one model says how long it may take from its first pass on, whatever share of its claims is done."""
    progress = Progress(pytester.parseconfigure().pluginmanager.getplugin("terminalreporter"))
    progress.groups = {"one": Group(items=4, done=3, began=1.0)}
    monkeypatch.setattr(progress_module, "AT_WORK", AtWork(until={"one": 130.0}))
    assert progress.left(100.0) == "about 30 s left"
    assert progress.left(125.0) == "about 41 s left"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--weights"], "--weights: expected a checkpoint directory or a hub id in --model, found none"),
        (["--model={empty}"], "expected a checkpoint directory with a config.json, found an empty directory"),
        (
            ["--model={empty}", "--weights"],
            "expected a checkpoint directory with a config.json, found an empty directory",
        ),
    ],
    ids=["no-model", "no-config", "no-config-with-weights"],
)
def test_what_cannot_run_at_all_is_a_usage_error(tmp_path, arguments, sentence):
    """Exit status 4 and a sentence, before anything runs."""
    done = pytest_run(*(word.format(empty=tmp_path) for word in arguments))
    assert done.returncode == 4
    assert sentence in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout


def test_the_matrix_is_not_held_against_files_it_has_not():
    """In a plain run the chapter has no item for it; asked for by its mark it says what is missing."""
    chosen = ["--collect-only", "-q", "-k", "opt-125m and test_no_tensor_is_missing"]
    assert "no tests collected" in pytest_run(*chosen).stdout
    assert "1/" in pytest_run(*chosen, "-m", "weights").stdout
    found = examine(healthy(OPT), chapter="14", claims="test_no_tensor_is_missing")
    assert ["the config alone is here" in r["reason"] for r in found.values()] == [True]

"""The sheet: what a release is, from what was observed, and what a run on one release ends with."""

import shutil
from pathlib import Path

import pytest

from fixtures.claims.model_under_test import Subject
from fixtures.published.release import at_path
from fixtures.report import sheet
from fixtures.verdicts.facts import Facts
from tests.support.child import pytest_run
from tests.support.packed import lay_out
from tests.support.ward import healthy, matrix

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "fixtures/published/configs"

MIXTURE: Facts = {
    "family": "decoder-only",
    "layers": 32,
    "attention_layers": 8,
    "d_model": 4096,
    "d_embedding": 512,
    "heads": 32,
    "kv_heads": 8,
    "d_head": 128,
    "d_ff": 14336,
    "d_expert": 1024,
    "experts": 16,
    "experts_active": 2,
    "positions": "rotary",
    "position_places": "queries and keys of some layers",
    "projections": "fused",
    "norm": "pre",
    "tied_embeddings": False,
    "vocab_size": 32000,
    "window": 4096,
    "parameters": 1000,
    "active_parameters": 600,
    "bytes_float32": 4_000_000_000,
    "bytes_4_bit": 512_340,
    "cache_bytes_per_token": 131072,
}


def test_a_sheet_says_each_fact_in_words():
    """Every fact has its line, in the field's terms, with what it is to be read beside."""
    assert sheet.rows(MIXTURE) == [
        ("family", "decoder-only"),
        ("layers", "32, 8 of which attend"),
        ("d model", "4,096; token embeddings are 512 wide"),
        ("heads", "32 of queries, 8 of keys and values: 4 share one"),
        ("d head", "128"),
        ("d ff", "14,336"),
        ("positions", "rotary, in queries and keys of some layers"),
        ("projections", "fused"),
        ("norm", "pre, before a sublayer"),
        ("experts", "16, each 1,024 wide; 2 act on a token"),
        ("window", "4,096 tokens, in the narrowest layer"),
        ("vocabulary", "32,000; the output head is not tied to the table"),
        ("parameters", "1,000, 600 of which act on a token"),
        ("weights", "4 GB in float32, 512.3 kB in 4-bit"),
        ("cache", "131,072 bytes a token in 16 bits"),
    ]


@pytest.mark.parametrize(
    ("facts", "label", "text"),
    [
        ({"layers": 6, "encoder_layers": 12}, "layers", "12 that read the source, 6 that write the target"),
        ({"layers": 24, "attention_layers": 0}, "layers", "24, none of which attends"),
        ({"heads": 12, "kv_heads": 12}, "heads", "12, each with keys and values of its own"),
        ({"windowed": True}, "window", "some layers see a window only"),
        ({"vocab_size": 10, "tied_embeddings": True}, "vocabulary", "10; the output head is tied to the table"),
        (
            {"cache_bytes_per_token": 8, "cache_bytes_per_source_token": 16},
            "cache",
            "8 bytes a token in 16 bits, and 16 a token of the source",
        ),
    ],
)
def test_a_sheet_tells_kinds_of_models_apart(facts, label, text):
    """What was not observed has no line."""
    assert sheet.rows(facts) == [(label, text)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # 2 (keys and values) x 2 bytes x layers x kv_heads x d_head
        ("google/gemma-2-2b", {"window": 4096, "cache_bytes_per_token": 2 * 2 * 26 * 4 * 256}),
        ("answerdotai/ModernBERT-base", {"window": 128, "cache_bytes_per_token": None}),
        ("facebook/opt-1.3b", {"position_places": "embeddings", "bytes_float32": 4 * 1_315_758_080}),
        ("facebook/opt-1.3b", {"bytes_bfloat16": 2 * 1_315_758_080, "active_parameters": 1_315_758_080}),
        ("google-t5/t5-small", {"position_places": "scores", "cache_bytes_per_source_token": 2 * 2 * 6 * 8 * 64}),
        ("meta-llama/Llama-3.1-8B", {"position_places": "queries and keys"}),
    ],
)
def test_what_is_measured_for_a_sheet_is_what_is_published(name, expected):
    """Windows as in the papers, bytes by arithmetic over published numbers; nothing goes unobserved."""
    measured = dict(sheet.measured(healthy(name)))
    assert {name: measured[name] for name in expected} == expected
    assert "not_observed" not in measured


def test_fewer_bits_take_fewer_bytes():
    """The four sizes of one model fall."""
    found = sheet.measured(healthy("facebook/opt-1.3b"))
    sizes = [found["bytes_float32"], found["bytes_bfloat16"], found["bytes_int8"], found["bytes_4_bit"]]
    assert sizes == sorted(set(sizes), reverse=True)


def test_a_model_without_windows_has_none_on_its_sheet():
    """No window is measured where every layer sees all, whatever the config has a field for."""
    assert not {"window", "windowed"} & set(sheet.measured(healthy("facebook/opt-1.3b")))


def test_what_cannot_be_measured_is_named(monkeypatch):
    """One number less is no end of the run: the sheet says which, and why."""

    def broken(_):
        raise RuntimeError("it does not run")

    monkeypatch.setattr("fixtures.behaviour.facts.active_parameters", broken)
    measured = sheet.measured(healthy("facebook/opt-1.3b"))
    assert measured["not_observed"] == "parameters (RuntimeError: it does not run)"
    assert measured["bytes_float32"]


def run(*options: str) -> str:
    return pytest_run(*options).stdout


def test_a_run_on_one_release_ends_with_its_sheet():
    """The sheet, the claims that hold counted, a departure with its evidence; what does not apply is only counted."""
    printed = run(f"--model={CONFIGS}/google/gemma-2-2b.json", "-k", "test_05 or test_a_window_is")
    for line in (
        "gemma-2-2b (config)",
        "  window       4,096 tokens, in the narrowest layer",
        "departs: Several query heads share one head of keys and values.",
        "      kv_heads: expected 8, observed 4",
    ):
        assert f"\n{line}\n" in printed
    assert "\nholds: " in printed
    assert "does not apply:" not in printed


def test_a_plain_run_says_what_it_left_out():
    """What was not run stands on the sheet, with what it would take."""
    printed = run(f"--model={CONFIGS}/facebook/opt-125m.json")
    assert "\nLeft out: " in printed
    assert "on an accelerator, with -m gpu" in printed


def test_several_releases_have_a_table_and_their_numbers_in_the_record(tmp_path):
    """More than one model ends with the table; the record has the numbers of each release's sheet."""
    from fixtures.report.record import load

    shutil.copyfile(CONFIGS / "facebook/opt-125m.json", tmp_path / "one.json")
    shutil.copyfile(CONFIGS / "facebook/opt-125m.json", tmp_path / "two.json")
    models = [f"--model={tmp_path / name}" for name in ("one.json", "two.json")]
    printed = run(*models, "-k", "test_05 and heads", f"--report={tmp_path / 'out'}")
    assert "holds: " not in printed
    known = load(tmp_path / "out")["models"]
    assert [model["facts"]["bytes_float32"] for model in known] == [4 * 125_239_296] * 2


def test_a_release_is_measured_as_its_entry_is():
    """A bare config gives the sheet that the model of the matrix has."""
    release = Subject(at_path(CONFIGS / "facebook/opt-125m.json"), matrix().traits)
    found = sheet.measured(release)
    assert found.pop("known").startswith("what type opt is")
    assert found == sheet.measured(healthy("facebook/opt-125m"))


def test_a_packed_release_says_how_it_is_packed(tmp_path):
    """Once a claim has looked: the method, the bits that a number takes in truth, and the bytes of the files."""
    subject = Subject(at_path(lay_out(tmp_path / "awq", "awq")), matrix().traits)
    assert "packed" not in dict(sheet.rows(sheet.measured(subject)))
    assert subject.release.packing is not None
    assert dict(sheet.rows(sheet.measured(subject)))["packed"] == (
        "AWQ in 4.62 bits a weight with its scales; matrices: 14 packed, 2 in full (F16); "
        "237.3 kB in the files, 5.78 bits a parameter"
    )

"""A survey says of every release what an ordinary run says of it, and leaves it in tables."""

import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from fixtures.survey import rows, tables
from fixtures.survey.check import title_of_result
from tests.support.checkpoints import SMALL, make
from tests.support.child import pytest_run

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
OPT = ROOT / "fixtures/published/configs/facebook/opt-125m.json"
NAMES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings", "vocab_size")
COMMON = {name: SMALL[name] for name in NAMES}


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine releases of three architectures, one with a tensor too few, and one whose config is damaged."""
    folder = tmp_path_factory.mktemp("releases")
    make(folder / "org/opt-1", model_type="opt", ffn_dim=40, word_embed_proj_dim=32, **COMMON)
    make(folder / "org/llama-1", model_type="llama", intermediate_size=40, num_key_value_heads=2, **COMMON)
    make(folder / "org/bert-1", model_type="bert", intermediate_size=40, **COMMON)
    for kind in ("opt", "llama", "bert"):
        for number in (2, 3):
            shutil.copytree(folder / f"org/{kind}-1", folder / f"org/{kind}-{number}")
            path = folder / f"org/{kind}-{number}/config.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), "_name_or_path": f"/home/me/{kind}{number}"}))
    from safetensors.torch import load_file, save_file

    weights = folder / "org/llama-3/model.safetensors"
    kept = load_file(weights)
    del kept["model.norm.weight"]
    save_file(kept, weights, metadata={"format": "pt"})
    (folder / "org/damaged").mkdir()
    (folder / "org/damaged/config.json").write_text("{")
    paths = sorted(path for path in folder.glob("org/*"))
    (folder / "list").write_text("".join(f"{path}\n" for path in paths))
    return folder


def survey(releases: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return pytest_run(
        f"--models-from={releases / 'list'}", f"--records={out}", f"--settled={out.parent / 'settled'}", *options
    )


def results_in(out: Path) -> dict[tuple[str, str], str]:
    return {
        (Path(row["release"]).name, row["claim"] + (f" ({row['variant']})" if row["variant"] else "")): row["verdict"]
        for row in tables.read(out, "results")
    }


@pytest.fixture(scope="module")
def surveyed(releases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of a survey of all of them."""
    out = tmp_path_factory.mktemp("surveyed") / "out"
    done = survey(releases, out, "--records-as=jsonl")
    assert done.returncode == 1, done.stdout
    assert "10 releases of 3 architectures: 8 hold, 2 have a claim that fails, 0 not run." in done.stdout
    return out


def test_it_says_what_an_ordinary_run_says(releases, surveyed, tmp_path):
    """Claim for claim and release for release, whether a result was settled on the release or taken over."""
    whole = [line for line in (releases / "list").read_text().splitlines() if not line.endswith("damaged")]
    pytest_run(*(f"--model={path}" for path in whole), f"--report={tmp_path}")
    document = json.loads((tmp_path / "report.json").read_text())
    expected = {
        (result["model"].rpartition("/")[2], title_of_result(result)): result["verdict"]
        for result in document["results"]
    }
    found = results_in(surveyed)
    assert {cell: found.get(cell) for cell in expected} == expected
    assert len(expected) > 9 * 100


def test_a_row_says_what_was_taken_over_and_from_where(surveyed):
    by = {Path(row["release"]).name: row for row in tables.read(surveyed, "releases")}
    sources = {name: row["taken_over_from"] and Path(row["taken_over_from"]).name for name, row in by.items()}
    for kind in ("opt", "bert"):
        settled_on = [name for name in sources if name.startswith(kind) and sources[name] is None]
        assert len(settled_on) == 1
        assert {sources[name] for name in sources if name.startswith(kind)} == {None, *settled_on}
    assert {name: by[name]["verdict"] for name in ("llama-3", "damaged", "opt-2")} == {
        "llama-3": "fails",
        "damaged": "fails",
        "opt-2": "holds",
    }
    assert "model.norm.weight" in by["llama-3"]["reason"]
    assert "config.json: expected JSON" in by["damaged"]["reason"]
    assert by["opt-1"]["architecture"] == by["opt-3"]["architecture"] != by["bert-1"]["architecture"]
    assert by["llama-1"]["parameters"] == by["llama-1"]["parameters_in_files"]


def test_all_anew_gives_the_same(releases, surveyed, tmp_path):
    """What was settled by an earlier run is used, and --no-cache does without: the verdicts are the same."""
    again = survey(releases, tmp_path / "again", "--records-as=jsonl", "--no-cache")
    assert again.returncode == 1, again.stdout
    assert results_in(tmp_path / "again") == results_in(surveyed)


def test_shards_are_the_whole_and_workers_change_nothing(releases, surveyed, tmp_path):
    """Two shards into one folder, one of them by two processes: every release once."""
    settled = f"--settled={surveyed.parent / 'settled'}"
    for number, more in ((1, ()), (2, ("-n", "2"))):
        survey(releases, tmp_path / "out", f"--shard={number}/2", "--records-as=jsonl", settled, *more)
    found = list(tables.read(tmp_path / "out", "releases"))
    assert Counter(row["release"] for row in found) == Counter(
        row["release"] for row in tables.read(surveyed, "releases")
    )
    assert {row["shard"] for row in found} == {"1/2", "2/2"}
    assert results_in(tmp_path / "out") == results_in(surveyed)


def test_since_checks_what_is_new_or_changed_and_says_what_became_worse(releases, surveyed, tmp_path):
    """A tensor is lost overnight: the release is checked again, the others are kept as they are."""
    night = tmp_path / "night"
    shutil.copytree(releases, night, copy_function=shutil.copy2)
    (night / "list").write_text("".join(f"{path}\n" for path in sorted(night.glob("org/*"))))
    first = survey(night, tmp_path / "first", "--records-as=jsonl")
    assert first.returncode == 1
    shutil.copy(night / "org/llama-3/model.safetensors", night / "org/llama-2/model.safetensors")
    second = survey(night, tmp_path / "second", "--records-as=jsonl", f"--since={tmp_path / 'first'}")
    assert second.returncode == 1, second.stdout
    assert "9 releases are as they were; 1 became worse." in second.stdout
    assert f"worse: {night}/org/llama-2: " in " ".join(second.stdout.split())
    found = {Path(row["release"]).name: row["verdict"] for row in tables.read(tmp_path / "second", "releases")}
    assert len(found) == 10
    assert found["llama-2"] == "fails"


def test_a_survey_that_was_killed_goes_on(releases, tmp_path):
    """Rows of a release that was cut off are left out, and it is checked again; what is done is not."""
    out = tmp_path / "out"
    survey(releases, out, "--records-as=jsonl")
    for table in ("releases", "results"):
        final, growing = out / table / "shard-0001-of-0001.jsonl", out / table / ".shard-0001-of-0001.jsonl"
        lines = final.read_text().splitlines(keepends=True)
        final.unlink()
        growing.write_text("".join(lines[: 4 if table == "releases" else 700]) + lines[-1][:50])
    done = survey(releases, out, "--records-as=jsonl", "--resume")
    assert "4 are done already" in done.stdout, done.stdout
    found = [row["release"] for row in tables.read(out, "releases")]
    assert len(found) == len(set(found)) == 10
    cells = Counter((row["release"], row["claim"], row["variant"]) for row in tables.read(out, "results"))
    assert set(cells.values()) == {1}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--records=out"], "expected releases to check"),
        (["--records=out", "--model=x", "--report=y"], "a survey makes no use of --report"),
        (["--since=out"], "expected a survey"),
        (["--shard=3/2", "--model=x"], "expected K/N"),
        (["--records=out", f"--model={OPT}", "--since=nowhere"], "expected the record of a survey"),
    ],
)
def test_what_is_no_survey_is_refused_in_a_sentence(options, words, tmp_path):
    done = pytest_run(*(option.replace("=out", f"={tmp_path / 'out'}") for option in options))
    assert done.returncode == 4, done.stdout
    assert words in " ".join((done.stdout + done.stderr).split())


def test_parquet_has_the_columns_and_their_types(releases, surveyed, tmp_path):
    """The tables as engines read them; each column of the type that rows.py declares."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an extra: transformers-spec[records]")
    settled = f"--settled={surveyed.parent / 'settled'}"
    survey(releases, tmp_path / "out", "--records-as=parquet", settled)
    schema = parquet.read_schema(tmp_path / "out/releases/shard-0001-of-0001.parquet")
    assert schema.names == list(rows.RELEASES)
    assert str(schema.field("checked").type) == "timestamp[ms, tz=UTC]"
    assert str(schema.field("parameters").type) == "int64"
    assert results_in(tmp_path / "out") == results_in(surveyed)

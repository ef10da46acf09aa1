"""Timing, run as a user runs it, on a release small enough to be timed in a moment."""

import contextlib
import io
import json

import pytest

from fixtures.claims.parametrize import ROOT
from fixtures.timings import plugin, stopwatch
from fixtures.timings.power_law import fit
from fixtures.timings.roofline import Ceilings, Rate
from fixtures.timings.setups import Setup
from fixtures.timings.stopwatch import Timing, believable, suitable

pytestmark = pytest.mark.slow

torch = pytest.importorskip("torch")
WIDTH, D_FF = 32, 64
TINY = {
    "model_type": "opt",
    "architectures": ["OPTForCausalLM"],
    "hidden_size": WIDTH,
    "word_embed_proj_dim": WIDTH,
    "ffn_dim": D_FF,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 1024,
    "vocab_size": 96,
}
SIZES = {"length": (32, 64, 128), "steps": (2, 4, 8), "batch": (1, 2)}


class Fast(Ceilings):
    """Ceilings of a device that nothing here comes near."""

    def _product(self, dtype):
        return Rate(1e18, 0.0)

    def _copy(self):
        return Rate(1e18, 0.0)


class Slow(Ceilings):
    """Ceilings of a device that everything here is faster than."""

    def _product(self, dtype):
        return Rate(1.0, 0.0)

    def _copy(self):
        return Rate(1.0, 0.0)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run chapter 12 on the tiny release with more options: exit status, what was printed, the run's directory."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps(TINY))
    monkeypatch.setattr(plugin, "SIZES", SIZES)
    fast = Fast("cpu", lambda: 0.0)
    monkeypatch.setattr(stopwatch, "ceilings", lambda device: fast)
    monkeypatch.setattr("fixtures.timings.roofline.ceilings", lambda device: fast)
    monkeypatch.setattr(stopwatch, "MOST", 4)
    monkeypatch.setattr(stopwatch, "EVICTED", 2**20)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # the run under test is no worker

    def run(*options):
        chapter = next((ROOT / "specs").glob("test_12_*.py"))
        own = [f"--rootdir={ROOT}", f"-c={ROOT / 'pytest.ini'}", "-p", "no:cacheprovider", "-p", "no:xdist"]
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            status = pytest.main(
                [str(chapter), *own, f"--model={config}", f"--report={tmp_path / 'report'}", "--capture=no", *options]
            )
        return status, output.getvalue(), tmp_path

    return run


def results(directory, claim):
    report = json.loads((directory / "report" / "report.json").read_text())
    return [result for result in report["results"] if result["claim"].endswith(f"::{claim}")]


def test_timing_is_off_until_it_is_asked_for(run):
    status, printed, directory = run("-k", "timed or grow")
    assert status == 0, printed
    assert "= timings =" not in printed
    (result,) = results(directory, "test_one_block_is_timed")
    assert result["observed"]["block over 10 tokens: numbers"] == "0 not finite"


def test_benchmark_only_times_and_nothing_else_runs(run, tmp_path):
    """One switch, as pytest-benchmark has it: what was timed is printed, in the record, and in the saved file."""
    saved = tmp_path / "saved.json"
    status, printed, directory = run("--benchmark-only", "--setup=sdpa-float32", f"--benchmark-json={saved}")
    assert status == 0, printed
    assert "= timings =" in printed
    assert not results(directory, "test_a_step_with_a_cache_costs_what_one_token_costs")
    (result,) = results(directory, "test_one_block_is_timed")
    figures = result["observed"]["block over 128 tokens: numbers"]
    assert figures["seconds"] > 0
    assert figures["tokens_per_second"] == pytest.approx(128 / figures["seconds"])
    assert figures["flop_per_byte"] == pytest.approx(figures["flop"] / figures["bytes"])
    assert 0 < figures["share_of_roofline"] < 1
    document = json.loads(saved.read_text())
    by_name = {b["name"].partition("[")[0]: b for b in document["benchmarks"]}
    assert by_name["test_one_block_is_timed"]["extra_info"]["flop"] == figures["flop"]
    assert by_name["test_one_block_is_timed"]["group"] == "block over 128 tokens"
    assert by_name["test_one_block_is_timed"]["options"]["timer"] == "synchronized"
    info = document["machine_info"]
    assert info["device"] == "cpu"
    assert info["threads"] == torch.get_num_threads()
    assert set(info["libraries"]) >= {"torch", "transformers"}
    assert not set(plugin.FLEETING) & set(info["cpu"])
    grown = by_name["test_scores_grow_with_the_square_of_the_length"]["extra_info"]["scores by length"]
    assert set(grown["points"]) == {"32", "64", "128"}
    assert "scores by length: time grows with the power" in printed


def test_the_work_of_a_block_is_two_operations_a_weight_and_token(run, tmp_path):
    """By hand: 4 d² + 2 d d_ff weights for each of 128 tokens, and causal pairs of tokens, as sdpa multiplies them."""
    _, _, directory = run("--benchmark-only", "--setup=sdpa-float32", "-k", "block_is_timed")
    (result,) = results(directory, "test_one_block_is_timed")
    figures = result["observed"]["block over 128 tokens: numbers"]
    d, d_ff, n = WIDTH, D_FF, 128
    weights, pairs = 4 * d * d + 2 * d * d_ff, n * (n + 1) // 2
    assert figures["flop"] == 2 * n * weights + 4 * d * pairs
    biases_and_norms = 4 * d + (d_ff + d) + 2 * 2 * d
    assert figures["bytes"] == 4 * (weights + biases_and_norms + 2 * n * d)


def test_a_share_above_one_fails(run, monkeypatch):
    """Ceilings that are beaten by more than they are uncertain mean that something was miscounted."""
    slow = Slow("cpu", lambda: 0.0)
    monkeypatch.setattr(stopwatch, "ceilings", lambda device: slow)
    status, printed, directory = run("--benchmark-only", "--setup=eager-float32", "-k", "block_is_timed")
    assert status == 1, printed
    (result,) = results(directory, "test_one_block_is_timed")
    assert result["reason"].startswith("block over 128 tokens: share of the roofline: expected '1, and 0.05")


def test_numbers_that_are_lost_are_not_believed():
    with pytest.raises(AssertionError, match="block: numbers: expected 'finite', observed '1 not finite'"):
        believable(Timing("block", torch.tensor([1.0, torch.nan])))


def test_a_model_that_does_not_fit_is_not_run(run, monkeypatch):
    monkeypatch.setattr("fixtures.libraries.accelerator.Accelerator.free", lambda self: 1000)
    status, _, directory = run("--benchmark-only", "--setup=eager-float32", "-k", "block_is_timed")
    (result,) = results(directory, "test_one_block_is_timed")
    assert status != 0
    assert result["verdict"] == "not run"
    assert "in float32 takes 0.0 GB, and 0.0 GB are free." in result["reason"]


def test_an_attention_that_is_not_installed_is_not_run(run):
    _, _, directory = run("--benchmark-only", "--setup=flash_attention_2-bfloat16", "-k", "block_is_timed")
    (result,) = results(directory, "test_one_block_is_timed")
    assert result["verdict"] == "not run"
    assert "FlashAttention2" in result["reason"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--setup=sdpa"],
            "expected ATTENTION-DTYPE or ATTENTION-DTYPE-QUANTIZATION, such as sdpa-bfloat16-int8, found 'sdpa'",
        ),
        (["--setup=sdpa-float8"], "dtypes are float32, bfloat16, float16"),
        (["--time=no/such"], "--time no/such: no such model in this run; there are:"),
    ],
)
def test_what_cannot_be_timed_is_said_before_anything_runs(run, options, message):
    status, printed, _ = run("--benchmark-only", *options)
    assert status == pytest.ExitCode.USAGE_ERROR
    assert message in printed
    assert "Traceback" not in printed


def test_setups_are_read_as_they_are_written():
    for text in ("sdpa-float32", "flash_attention_2-bfloat16", "sdpa-bfloat16-int8", "eager-float16-nf4"):
        assert str(Setup.of(text)) == text
    assert Setup.of("sdpa-bfloat16-nf4").block_weight == 0.5
    assert Setup.of("sdpa-bfloat16-int8").multiplies_in == "int8"


@pytest.mark.parametrize(("seconds", "rounds"), [(1e-6, stopwatch.MOST), (0.045, 4), (0.2, 2), (7.0, 2)])
def test_rounds_suit_the_length(seconds, rounds):
    assert suitable(seconds) == rounds


def test_unlike_machines_are_told_apart_in_words():
    """Threads, device, versions and CPU flags that differ are named; what is the same, and what flickers, is not."""
    saved = {
        "device": "cpu",
        "threads": 8,
        "cpu": {"brand_raw": "A", "flags": ["avx2", "fpu"]},
        "libraries": {"torch": "2.12.0"},
    }
    now = {
        "device": "cpu",
        "threads": 2,
        "cpu": {"brand_raw": "A", "flags": ["avx2", "avx512f"]},
        "libraries": {"torch": "2.13.0"},
    }
    assert plugin.differences(now, saved) == [
        "threads 2, saved 8",
        "CPU flag avx512f yes, saved None",
        "torch 2.13.0, saved 2.12.0",
    ]
    assert plugin.differences(now, now) == []


def test_a_comparison_of_unlike_things_says_so(run, tmp_path, monkeypatch):
    """Against a file that was saved with other threads, --benchmark-compare says so in one sentence."""
    monkeypatch.chdir(tmp_path)
    storage = "--benchmark-storage=file://./saved"
    only = ["--benchmark-only", "--setup=eager-float32", "-k", "block_is_timed", storage]
    status, printed, _ = run(*only, "--benchmark-save=first")
    assert status == 0, printed
    (file,) = (tmp_path / "saved").rglob("*.json")
    document = json.loads(file.read_text())
    document["machine_info"]["threads"] = 99
    file.write_text(json.dumps(document))
    unlike = f"The saved timings are not like these: threads {torch.get_num_threads()}, saved 99."
    with pytest.warns(match="machine_info is different"):  # which pytest-benchmark says, and prints both in full
        status, printed, _ = run(*only, "--benchmark-compare")
    assert status == 0, printed
    assert unlike in printed


def operations_of(name):
    from fixtures.claims.model_under_test import Subject
    from fixtures.published.release import recorded
    from fixtures.timings.operations import Operations
    from tests.support.ward import matrix

    model = Subject(recorded(matrix().entries[name]), matrix().traits)
    return Operations(model.miniature, model.miniature, family=model.family, attention="eager")


@pytest.mark.parametrize("longer_goes_another_way", [False, True])
def test_the_parts_of_attention_are_found_again_in_a_longer_text(monkeypatch, longer_goes_another_way):
    """They give the same as where they are read in that text alone, and their work grows as it should."""
    operations, alone = operations_of("facebook/opt-125m"), operations_of("facebook/opt-125m")
    attention = type(operations.model.get_decoder().layers[0].self_attn)
    usual = attention.forward

    def forward(self, hidden_states, *args, **kwargs):
        longer = longer_goes_another_way and hidden_states.shape[1] > 8
        return usual(self, hidden_states * 1 if longer else hidden_states, *args, **kwargs)

    monkeypatch.setattr(attention, "forward", forward)
    for part, growth in (("scores", 4), ("projections", 2)):
        short, long, expected = (getattr(o, part)(n) for o, n in ((operations, 8), (operations, 16), (alone, 16)))
        assert operations.flop(long) == growth * operations.flop(short) > 0
        assert torch.equal(long.act(), expected.act())


def test_a_step_counts_its_calls():
    """What a growth of steps is fitted to: calls of the first block, one for a pass, one for each step."""
    operations = operations_of("facebook/opt-125m")
    assert [operations.calls(operations.prefill(n)) for n in (4, 8)] == [1, 1]
    assert [operations.calls(operations.steps(n)) for n in (4, 8)] == [4, 8]
    assert fit({n: float(operations.cells(operations.recurrent(n))) for n in (4, 8)}).exponent == pytest.approx(1)

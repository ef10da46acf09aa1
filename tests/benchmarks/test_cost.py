"""What a run of the specification costs beside its floor: `pytest tests/benchmarks --benchmark-enable`.

Each cost is measured beside its floor in one run, both in processes of their own, and told as a ratio; no time decides
whether a test passes.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from fixtures.claims.parametrize import ROOT, read_matrix
from fixtures.models.skeleton import build_skeleton
from fixtures.published.release import recorded

LARGEST = "meta-llama/Llama-3.1-405B"
SMALL = "facebook/opt-125m"
RUNS = {
    "the whole matrix": ([], []),
    "one model": (["-k", SMALL], [SMALL]),
    "the largest model": (["-k", LARGEST], [LARGEST]),
    "a release without an entry": ([f"--model={ROOT / 'fixtures/published/configs' / SMALL}.json"], [SMALL]),
}

pytestmark = pytest.mark.benchmark(group="cost", min_rounds=1)


@pytest.mark.parametrize("what", RUNS)
def test_a_run_beside_its_floor(benchmark, what):
    """The specification on some models, and their bare imports, builds and first runs."""
    if benchmark.disabled:
        pytest.skip("The cost of whole runs is measured with --benchmark-enable.")
    selection, models = RUNS[what]
    floor, least = _spent([sys.executable, "-m", "tests.benchmarks.floor", *models])
    spent = []

    def specification():
        spent.append(_spent([sys.executable, "-m", "pytest", "specs", "-q", "-p", "no:cacheprovider", *selection]))

    benchmark.pedantic(specification, rounds=1)
    seconds, most = spent[-1]
    benchmark.extra_info |= {
        "floor_cpu_seconds": round(floor, 2),
        "cpu_seconds": round(seconds, 2),
        "ratio": round(seconds / floor, 2),
        "floor_MiB": least,
        "MiB": most,
    }
    print(
        f"\n{what}: {seconds:.1f} s of CPU, {seconds / floor:.2f} times the floor's {floor:.1f}; {most} and {least} MiB"
    )


NUMBERS = (1, 4, 16)


def test_further_releases_in_one_run(benchmark, tmp_path):
    """What each further release costs in a run that checks several: time in proportion, and no memory that stays."""
    if benchmark.disabled:
        pytest.skip("The cost of whole runs is measured with --benchmark-enable.")
    names = [tmp_path / f"{number:02}.json" for number in range(max(NUMBERS))]
    for name in names:
        name.write_bytes((ROOT / "fixtures/published/configs" / f"{SMALL}.json").read_bytes())
    spent = {}

    def specification():
        for number in NUMBERS:
            releases = [f"--model={name}" for name in names[:number]]
            spent[number] = _spent([sys.executable, "-m", "pytest", "specs", "-q", "-p", "no:cacheprovider", *releases])

    benchmark.pedantic(specification, rounds=1)
    (least, small), (most, large) = spent[NUMBERS[0]], spent[NUMBERS[-1]]
    further = NUMBERS[-1] - NUMBERS[0]
    figures = {
        "cpu_seconds": {number: round(seconds, 2) for number, (seconds, _) in spent.items()},
        "cpu_seconds_a_further_release": round((most - least) / further, 3),
        "MiB_a_further_release": round((large - small) / further, 2),
    }
    benchmark.extra_info |= figures
    print(f"\n{figures}")


def test_a_full_size_skeleton_beside_its_bare_model(benchmark):
    """The largest model built and read at full size, and as the library alone builds and runs it."""
    if benchmark.disabled:
        pytest.skip("The cost of a skeleton is measured with --benchmark-enable.")
    config = recorded(read_matrix(ROOT / "models.yaml").entries[LARGEST]).config
    build_skeleton(config)  # imports what it is made of

    def bare() -> float:
        began = time.process_time()
        skeleton = build_skeleton(config)
        with torch.device("meta"), torch.no_grad():
            skeleton.model(**skeleton.inputs())
        return time.process_time() - began

    floor, spent = [bare() for _ in range(3)], []

    def read() -> None:
        began = time.process_time()
        _ = build_skeleton(config).trace.stacks
        spent.append(time.process_time() - began)

    benchmark.pedantic(read, rounds=3)
    figures = {"floor_cpu_seconds": round(min(floor), 3), "cpu_seconds": round(min(spent), 3)}
    benchmark.extra_info |= figures | {"ratio": round(min(spent) / min(floor), 2)}
    print(f"\n{LARGEST} at full size: {benchmark.extra_info}")


DEAREST = 12


def test_claims_and_models(benchmark, tmp_path):
    """What each claim and each model costs of a run over the matrix, and what a further claim adds to a run on one."""
    if benchmark.disabled:
        pytest.skip("The cost of claims is measured with --benchmark-enable.")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--report={tmp_path}"]

    def specification() -> None:
        _spent([*command, "specs"])

    benchmark.pedantic(specification, rounds=1)
    by: dict[str, Counter[str]] = {"claim": Counter(), "model": Counter()}
    for result in json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["results"]:
        for kind, seconds in by.items():
            seconds[result[kind].rpartition("::")[2]] += result["seconds"]
    chapters = sorted(map(str, (ROOT / "specs").glob("test_0[1-7]_*.py")))
    few, many = ((_spent([*command, "-k", SMALL, *part]), _ran(tmp_path)) for part in (chapters[:1], chapters))
    figures: dict[str, Any] = {
        kind: {name: round(s, 3) for name, s in seconds.most_common(DEAREST)} for kind, seconds in by.items()
    }
    figures["seconds a further claim"] = round((many[0][0] - few[0][0]) / (many[1] - few[1]), 4)
    benchmark.extra_info |= figures
    for kind in ("claim", "model"):
        print(f"\nThe dearest by {kind}, in seconds of all {sum(by[kind].values()):.1f}:")
        print("\n".join(f"  {s:6.3f}  {name}" for name, s in figures[kind].items()))
    print(f"A further claim on {SMALL}: {figures['seconds a further claim'] * 1e3:.1f} ms")


def _ran(directory) -> int:
    return len(json.loads((directory / "report.json").read_text(encoding="utf-8"))["results"])


def _spent(command: list[str]) -> tuple[float, int]:
    """CPU seconds of a process, and the most memory it took, in MiB."""
    with tempfile.TemporaryFile("w+") as output:
        own = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}  # set for this process
        child = subprocess.Popen(command, cwd=ROOT, env=own, stdout=output, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(child.pid, 0)
        output.seek(0)
        assert status == 0, output.read()[-2000:]
    return used.ru_utime + used.ru_stime, used.ru_maxrss // 1024


def test_a_thousand_directories(benchmark, tmp_path):
    """A survey of 1,000 directories of 20 architectures on two processes, none of them settled before."""
    if benchmark.disabled:
        pytest.skip("The cost of whole runs is measured with --benchmark-enable.")
    names = [_published(tmp_path, number) for number in range(1000)]
    (tmp_path / "list").write_text("".join(f"{name}\n" for name in names))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2"]
    command += [f"--models-from={tmp_path / 'list'}", f"--records={tmp_path / 'out'}", "--no-cache"]
    spent: list[tuple[float, int]] = []
    benchmark.pedantic(lambda: spent.append(_spent(command)), rounds=1)
    seconds, most = spent[-1]
    benchmark.extra_info |= {"cpu_seconds": round(seconds, 2), "MiB": most}
    print(f"\n1,000 directories: {seconds:.1f} s of CPU, {most} MiB")


def _published(folder: Path, number: int) -> Path:
    """A release of one of twenty architectures; the first of each is made, the others have its files."""
    from tests.support.checkpoints import make

    kind, wide = ("opt", "llama", "bert", "mistral", "gpt_neox")[number % 5], 32 * (1 + number // 5 % 4)
    path, first = folder / f"org/{kind}-{number}", folder / f"org/{kind}-{number % 20}"
    if path == first:
        more: Any = {"word_embed_proj_dim": wide} if kind == "opt" else {"intermediate_size": 2 * wide}
        more |= {"num_key_value_heads": 2} if kind in ("llama", "mistral") else {}
        make(path, model_type=kind, hidden_size=wide, num_hidden_layers=2, num_attention_heads=4, vocab_size=99, **more)
    else:
        path.mkdir(parents=True)
        (path / "config.json").write_bytes((first / "config.json").read_bytes())
        os.link(first / "model.safetensors", path / "model.safetensors")
    return path

"""What a run of the specification costs beside its floor: `pytest tests/benchmarks --benchmark-enable`.

Each cost is measured beside its floor in one run, both in processes of their own, and told as a ratio; no time decides
whether a test passes.
"""

import os
import subprocess
import sys
import tempfile

import pytest

from fixtures.matrix import ROOT

LARGEST = "meta-llama/Llama-3.1-405B"
SMALL = "facebook/opt-125m"
RUNS = {
    "the whole matrix": ([], []),
    "one model": (["-k", SMALL], [SMALL]),
    "the largest model": (["-k", LARGEST], [LARGEST]),
    "a release without an entry": ([f"--model={ROOT / 'fixtures/configs' / SMALL}.json"], [SMALL]),
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
        name.write_bytes((ROOT / "fixtures/configs" / f"{SMALL}.json").read_bytes())
    spent = {}

    def specification():
        for number in NUMBERS:
            releases = [f"--model={name}" for name in names[:number]]
            spent[number] = _spent([sys.executable, "-m", "pytest", "specs", "-q", "-p", "no:cacheprovider", *releases])

    benchmark.pedantic(specification, rounds=1)
    (least, small), (most, large) = spent[NUMBERS[0]], spent[NUMBERS[-1]]
    further = NUMBERS[-1] - NUMBERS[0]
    told = {
        "cpu_seconds": {number: round(seconds, 2) for number, (seconds, _) in spent.items()},
        "cpu_seconds_a_further_release": round((most - least) / further, 3),
        "MiB_a_further_release": round((large - small) / further, 2),
    }
    benchmark.extra_info |= told
    print(f"\n{told}")


def _spent(command: list[str]) -> tuple[float, int]:
    """CPU seconds of a process, and the most memory it took, in MiB."""
    with tempfile.TemporaryFile("w+") as output:
        own = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}  # set for this process
        child = subprocess.Popen(command, cwd=ROOT, env=own, stdout=output, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(child.pid, 0)
        output.seek(0)
        assert status == 0, output.read()[-2000:]
    return used.ru_utime + used.ru_stime, used.ru_maxrss // 1024

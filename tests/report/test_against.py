"""One release against another: what differs, and nothing else."""

import json
import subprocess
from pathlib import Path

import pytest

from fixtures.report.compare import differences
from fixtures.report.record import Record
from fixtures.report.terminal import Page
from tests.support.child import pytest_run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
OPT = ROOT / "fixtures/published/configs/facebook/opt-125m.json"


def made(*verdicts: tuple[str, str, str], **facts: dict) -> Record:
    """Make a record of two models without a run: (claim, verdict on one, verdict on two), and facts by model."""
    record = Record()
    claims = [{"id": f"specs/test_01_x.py::{claim}", "statement": f"The {claim}."} for claim, _, _ in verdicts]
    record.take("catalogue", {"claims": claims, "models": ["one", "two"], "items": 2 * len(claims)})
    for model, known in facts.items():
        record.take("facts", {"id": model, "origin": "config", "facts": known})
    for claim, *letters in verdicts:
        for model, verdict in zip(record.models, letters, strict=True):
            reason = "" if verdict == "holds" else f"why {verdict}"
            taken = {"claim": f"specs/test_01_x.py::{claim}", "model": model, "verdict": verdict, "reason": reason}
            record.take("result", taken | {"expected": {}, "observed": {}})
    return record


def test_only_what_differs_is_said():
    """A fact with both values, a claim with both verdicts; what is the same on both is left out."""
    record = made(
        ("first", "holds", "holds"),
        ("second", "holds", "departs"),
        ("third", "does not apply", "not run"),
        one={"d_model": 1024, "vocab_size": 10},
        two={"d_model": 2048, "vocab_size": 10},
    )
    assert differences(Page(100), record) == [
        "d model",
        "  one  1,024",
        "  two  2,048",
        "",
        "The second.",
        "  one  holds",
        "  two  departs: why departs",
        "",
    ]


def test_a_claim_that_ran_on_one_alone_says_what_kept_it_from_the_other():
    """It is told apart from a contradiction, which has a verdict on either side."""
    lines = differences(Page(100), made(("first", "does not apply", "fails")))
    assert [line for line in lines if line] == ["On two alone:", "  fails: The first. (why does not apply)"]


def test_two_that_do_not_differ_say_so():
    """No difference is one sentence."""
    lines = differences(Page(100), made(("first", "holds", "holds"), one={"layers": 2}, two={"layers": 2}))
    assert lines == ["one and two differ in no fact and in no verdict."]


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return pytest_run("-k", "test_05 or test_06", *options)


@pytest.fixture
def narrower(tmp_path):
    """A checkpoint directory with a release's config, but six heads."""
    (tmp_path / "narrower").mkdir()
    config = json.loads(OPT.read_text()) | {"num_attention_heads": 6}
    (tmp_path / "narrower/config.json").write_text(json.dumps(config))
    return tmp_path / "narrower"


@pytest.mark.parametrize("options", [[], ["-n", "2"]], ids=["alone", "workers"])
def test_a_release_is_held_against_another(narrower, options):
    """The heads differ, and nothing that both have is printed; the exit status is that of the claims."""
    done = run(f"--model={narrower}", f"--against={OPT}", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.partition("= claims =")[2].splitlines()
    assert lines[1:4] == [
        "heads",
        "  narrower  6, each with keys and values of its own",
        "  opt-125m  12, each with keys and values of its own",
    ]
    assert not any(line.startswith(("parameters", "layers", "family", "departs")) for line in lines)


def test_a_release_is_held_against_an_entry(narrower):
    """An id of the matrix is its entry, from the recorded config: nothing is asked of the hub."""
    done = run(f"--model={narrower}", "--against=facebook/opt-125m")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "  facebook/opt-125m  12, each with keys and values of its own" in done.stdout


@pytest.mark.parametrize(
    "options",
    [
        ["--against=facebook/opt-125m"],
        [f"--model={OPT}", f"--against={OPT}"],
        ["--against=gpt2", f"--model={OPT}", "--model=a/b"],
    ],
)
def test_two_are_compared_and_no_other_number(options):
    """One release is named with --model, and another with --against."""
    done = run(*options)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "expected one other release to compare" in done.stderr

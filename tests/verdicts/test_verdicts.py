"""Outcomes become verdicts: exactly one for every claim on every model, and none that flatters."""

import json

import pytest

from fixtures.verdicts.judge import does_not_apply, not_run

CONFTEST = """
import pytest
from fixtures.verdicts import judge as verdicts

def pytest_generate_tests(metafunc):
    if "model" in metafunc.fixturenames:
        metafunc.parametrize("model", ["org/one"], indirect=True, scope="session")

@pytest.fixture(scope="session")
def model(request):
    return request.param

def pytest_expected_departure(item):
    return DECLARED(item)

def pytest_observed_facts(model):
    return FACTS(model)

FACTS = lambda model: None
DECLARED = lambda item: None
"""
ROTARY = "verdicts.Departure('positions are rotary')"
UNREAD = "verdicts.Departure('It runs without gradients.', declared=False, unread=True)"
SEEN = "verdicts.Departure('positions are rotary', declared=False)"
PLUGINS = (
    "fixtures.verdicts.judge",
    "fixtures.report.record",
    "fixtures.report.terminal",
    "no:benchmark",
    "no:cacheprovider",
)
IMPORTS = "import pytest\nfrom fixtures.verdicts.evidence import holds, same\nfrom fixtures.verdicts.judge import *\n"


@pytest.fixture
def judge(pytester):
    """Run one claim on one model; return its result and the run's."""

    def run(body: str, *options: str, departs: str = "None", facts: str = "None", asked: tuple[str, ...] = ()):
        pytester.makeini("[pytest]\nstrict = true\nmarkers =\n lesson(place): x\n")
        pytester.makeconftest(CONFTEST + f"DECLARED = lambda item: {departs}\nFACTS = lambda model: {facts}\n")
        pytester.makepyfile(test_04_fake=f'"""Fakes: of claims."""\n{IMPORTS}\n{body}')
        plugins = [word for plugin in PLUGINS for word in ("-p", plugin)]
        finished = pytester.runpytest_inprocess(*plugins, "--report", "out", *options, *asked)
        results = json.loads((pytester.path / "out/report.json").read_text())["results"]
        assert len(results) == 1, results
        return results[0], finished

    return run


def claim(*lines: str, given: str = "model") -> str:
    return f'def test_fake({given}):\n    """It is so."""\n' + "".join(f"    {line}\n" for line in lines)


def test_passed_holds(judge):
    """A claim that passes holds, with what was compared."""
    result, run = judge(claim("same('layers', observed=12, expected=12)"))
    assert (result["verdict"], result["reason"]) == ("holds", "")
    assert result["expected"] == result["observed"] == {"layers": 12}
    assert result["claim"] == "test_04_fake.py::test_fake"
    assert result["model"] == "org/one"
    assert result["seconds"] > 0
    assert run.ret == 0


def test_declared_and_seen_departs(judge):
    """A declared departure that is seen departs, with its reason, as pytest's own xfail."""
    result, run = judge(claim("same('layers', observed=11, expected=12)"), departs=ROTARY)
    assert (result["verdict"], result["reason"]) == ("departs", "positions are rotary")
    assert result["observed"] == {"layers": 11}
    run.assert_outcomes(xfailed=1)
    assert run.ret == 0


def test_what_departs_is_pytests_own_xfail(judge):
    """The reason stands in -rx, the contradiction in --xfail-tb, and --runxfail excuses nothing."""
    differs = claim("same('layers', observed=11, expected=12)")
    _, run = judge(differs, "-rx", departs=ROTARY)
    run.stdout.fnmatch_lines(["XFAIL test_04_fake.py::test_fake?org/one? - positions are rotary"])
    run.stdout.no_fnmatch_line("*Contradiction: layers*")
    _, run = judge(differs, "-rx", "--xfail-tb", departs=ROTARY)
    run.stdout.fnmatch_lines(["*Contradiction: layers: expected 12, observed 11"])
    _, run = judge(differs, "-rf")
    run.stdout.fnmatch_lines(["FAILED test_04_fake.py::test_fake?org/one? - Contradiction: layers: exp*"])
    result, run = judge(differs, "--runxfail", departs=ROTARY)
    assert (result["verdict"], run.ret) == ("fails", 1)


def test_what_cannot_be_read_is_no_failure(judge):
    """What a claim asks cannot be read of such a model: it did not run, whatever it ended in; it may hold."""
    for end in ("same('layers', observed=11, expected=12)", "raise RuntimeError('no gradients')"):
        result, run = judge(claim(end), departs=UNREAD)
        assert result["verdict"] == "not run"
        assert result["reason"] == "What this claim asks cannot be read of such a model yet: It runs without gradients."
        run.assert_outcomes(skipped=1)
    result, run = judge(claim("same('layers', observed=12, expected=12)"), departs=UNREAD)
    assert (result["verdict"], run.ret) == ("holds", 0)


def test_declared_and_not_seen_fails(judge):
    """A departure that is not seen fails, and says what to remove."""
    result, run = judge(claim("pass"), departs=ROTARY)
    assert result["verdict"] == "fails"
    assert result["reason"] == "declared to depart (positions are rotary) but holds: remove the departure"
    run.assert_outcomes(failed=1)
    assert run.ret == 1


def test_expected_by_nobody_s_word_may_hold(judge):
    """What follows from a property alone departs where it is seen, and holds where it is not."""
    result, run = judge(claim("same('layers', observed=11, expected=12)"), departs=SEEN)
    assert (result["verdict"], result["reason"], run.ret) == ("departs", "positions are rotary", 0)
    result, run = judge(claim("same('layers', observed=12, expected=12)"), departs=SEEN)
    assert (result["verdict"], result["reason"], run.ret) == ("holds", "", 0)
    run.assert_outcomes(passed=1)
    result, run = judge(claim("raise ValueError('no such')"), departs=SEEN)
    assert (result["verdict"], result["reason"], run.ret) == ("fails", "ValueError: no such", 1)


@pytest.mark.parametrize("departs", ["None", ROTARY], ids=["holding", "departing"])
@pytest.mark.parametrize("line", ["pass", "assert False", "pytest.xfail('perhaps')"])
def test_a_claim_does_not_excuse_itself(judge, line, departs):
    """An xfail of the claim's own making cannot pass quietly, whatever is declared."""
    result, run = judge("@pytest.mark.xfail(strict=False, reason='perhaps')\n" + claim(line), departs=departs)
    assert (result["verdict"], run.ret) == ("fails", 1)
    assert "perhaps" in result["reason"] or departs != "None"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("raise ValueError('no such\\nthing')", "ValueError: no such"),
        ("same('layers', observed=[], expected=[])", "layers: nothing was observed: []"),
        ("assert 1 == 2, 'the scores are 2 wide'", "the scores are 2 wide"),
    ],
    ids=["another exception", "nothing observed", "an assert"],
)
def test_departure_excuses_contradictions_only(judge, line, reason):
    """A claim that breaks, or that compares nothing, does not depart."""
    result, run = judge(claim(line), departs=ROTARY)
    assert (result["verdict"], result["reason"], run.ret) == ("fails", reason, 1)


def test_departure_excuses_no_setup(judge):
    """An assertion in a fixture is no departure of the claim."""
    broken = "@pytest.fixture\ndef broken():\n    assert False, 'not built'\n"
    result, run = judge(broken + claim("pass", given="model, broken"), departs=ROTARY)
    assert (result["verdict"], result["reason"], run.ret) == ("fails", "not built", 1)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("same('layers', observed=11, expected=12)", "layers: expected 12, observed 11"),
        ("assert 1 == 2, 'one is not two'", "one is not two"),
        ("pytest.fail('given up')", "given up"),
        ("raise KeyError", "KeyError"),
    ],
)
def test_failed_fails(judge, line, reason):
    """A failure's reason is what the claim said, without a traceback."""
    result, run = judge(claim(line))
    assert (result["verdict"], result["reason"], run.ret) == ("fails", reason, 1)


def test_failing_setup_fails(judge):
    """A claim whose model cannot be had fails, once."""
    broken = "@pytest.fixture\ndef broken():\n    raise OSError('no such config')\n"
    result, run = judge(broken + claim("pass", given="model, broken"))
    assert (result["verdict"], result["reason"], run.ret) == ("fails", "OSError: no such config", 1)


def test_missing_fixture_fails(judge):
    """A fixture that does not exist is named."""
    result, _ = judge(claim("pass", given="model, absent"))
    assert (result["verdict"], result["reason"]) == ("fails", "FixtureLookupError: fixture 'absent' not found")


def test_failing_teardown_fails(judge):
    """A claim that passed and then breaks in teardown fails."""
    broken = "@pytest.fixture\ndef broken():\n    yield\n    raise OSError('still open')\n"
    result, run = judge(broken + claim("pass", given="model, broken"))
    assert (result["verdict"], result["reason"], run.ret) == ("fails", "OSError: still open", 1)


def test_failing_departures_fail_their_item(judge):
    """A model whose departures cannot be told fails its claims instead of ending the run."""
    result, run = judge(claim("pass"), departs="1 / 0")
    assert (result["verdict"], result["reason"], run.ret) == ("fails", "ZeroDivisionError: division by zero", 1)


def test_failing_facts_fail_their_item(judge):
    """A model whose facts cannot be told fails once instead of ending the run."""
    result, run = judge(claim("pass"), facts="1 / 0")
    assert result["verdict"] == "fails"
    assert result["reason"] == "the facts of org/one cannot be told: ZeroDivisionError: division by zero"
    assert run.ret == 1


def test_does_not_apply_makes_no_noise(judge):
    """What does not apply is in the record with its sentence, and nowhere else in the run."""
    result, run = judge(claim("does_not_apply('no layer attends')"), "-rs")
    assert (result["verdict"], result["reason"]) == ("does not apply", "no layer attends")
    run.assert_outcomes()
    run.stdout.no_fnmatch_line("*SKIPPED*")
    run.stdout.re_match_lines([r"test_04_fake\.py +\[100%\]"])  # and no letter for it


def test_does_not_apply_from_a_fixture(judge):
    """A fixture can say that its noun does not exist in the model."""
    fixture = "@pytest.fixture\ndef heads():\n    does_not_apply('no heads')\n"
    result, _ = judge(fixture + claim("pass", given="model, heads"))
    assert (result["verdict"], result["reason"]) == ("does not apply", "no heads")


def test_does_not_apply_is_named_where_every_test_is(judge):
    """With -v, a claim that does not apply says so on its line."""
    _, run = judge(claim("does_not_apply('no layer attends')"), "-v")
    run.stdout.fnmatch_lines(["*test_fake?org/one? DOES NOT APPLY (no layer attends)*"])


@pytest.mark.parametrize("line", ["not_run('no GPU here')", "pytest.skip('no GPU here')"])
def test_skipped_is_not_run(judge, line):
    """Any other skip is a claim that was not run, with its reason, and shows as a skip."""
    result, run = judge(claim(line), "-rs")
    assert (result["verdict"], result["reason"]) == ("not run", "no GPU here")
    run.assert_outcomes(skipped=1)
    run.stdout.fnmatch_lines(["SKIPPED * no GPU here"])


def test_nothing_ran_is_no_success(judge):
    """A run in which no claim ran says why and does not succeed."""
    _, run = judge(claim("not_run('no GPU here')"))
    run.stdout.fnmatch_lines(["No claim ran: no GPU here"])
    assert run.ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_failing_subtest_fails_its_claim(judge):
    """A row that fails inside a claim gives the claim's reason."""
    body = claim("with subtests.test('row'):", "    assert False, 'row one'", given="model, subtests")
    result, run = judge(body)
    assert (result["verdict"], result["reason"], run.ret) == ("fails", "row one", 1)


def test_exceptions_stay_skips_for_pytest():
    """The suite's two ways not to run are skips wherever pytest looks."""
    for outcome in (does_not_apply, not_run):
        with pytest.raises(pytest.skip.Exception, match="why"):
            outcome("why")

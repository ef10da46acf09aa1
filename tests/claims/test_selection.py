"""What a run leaves out unless it is asked for, and what happens where memory runs out."""

import pytest
import torch

from fixtures.claims.selection import whole_names

PLUGINS = ("verdicts.judge", "report.record", "claims.selection", "report.terminal", "claims.gpu")
CONFTEST = """
import pytest

def pytest_generate_tests(metafunc):
    metafunc.parametrize("model", ["org/one"], indirect=True, scope="session")

@pytest.fixture(scope="session")
def model(request):
    return request.param

@pytest.fixture(scope="session")
def quantizer(model):
    return model
"""
CHAPTER = '''
"""Fakes: of claims."""
import pytest
import torch

def test_plain(model):
    """It is quick."""

@pytest.mark.quantization
def test_arithmetic(model):
    """It only counts."""

@pytest.mark.quantization
def test_quantizes(model, quantizer):
    """It quantizes."""

@pytest.mark.loading
def test_loads(model):
    """It loads."""

@pytest.mark.learning
def test_trains(model):
    """It trains."""

@pytest.mark.gpu
def test_large(model):
    """It is large."""
    raise torch.OutOfMemoryError("tried to allocate 9 GB")

@pytest.mark.gpu
def test_small(model, accelerator):
    """It is small."""
    assert accelerator.free() > 0
'''
needs_none = pytest.mark.skipif(torch.accelerator.is_available(), reason="an accelerator is here")


@pytest.fixture
def run(pytester):
    """Run the fakes; return what passed, and the run."""
    pytester.makeini("[pytest]\nstrict = true\nmarkers =\n gpu: x\n quantization: x\n learning: x\n")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_04_fake=CHAPTER)
    plugins = [word for name in PLUGINS for word in ("-p", f"fixtures.{name}")]

    def run(*options: str):
        done = pytester.runpytest_inprocess(*plugins, "-p", "no:benchmark", "-p", "no:cacheprovider", "-rA", *options)
        passed = {line.split("::")[1].partition("[")[0] for line in done.outlines if line.startswith("PASSED")}
        return passed, done

    return run


def test_a_plain_run_leaves_out_what_takes_its_time_and_says_so(run):
    passed, done = run()
    assert passed == {"test_plain", "test_arithmetic"}
    done.stdout.fnmatch_lines(['3 of these load, quantize or train for real and were left out; -m "*" runs them.'])


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        ("quantization", {"test_arithmetic", "test_quantizes"}),
        ("loading", {"test_loads"}),
        ("learning", {"test_trains"}),
        ("loading or quantization", {"test_arithmetic", "test_quantizes", "test_loads"}),
        ("not gpu", {"test_plain", "test_arithmetic"}),
    ],
)
def test_a_mark_is_asked_for_by_name(run, marks, expected):
    passed, done = run("-m", marks)
    assert passed == expected
    assert done.ret == 0


def test_a_file_named_on_the_command_line_is_run_whole(run):
    passed, _ = run("test_04_fake.py")
    assert passed == {"test_plain", "test_arithmetic", "test_quantizes", "test_loads", "test_trains"}


@needs_none
@pytest.mark.parametrize("marks", ["gpu", "gpu and quantization"])
def test_without_an_accelerator_a_run_for_one_ends_with_a_sentence(run, marks):
    passed, done = run("-m", marks)
    assert not passed
    assert done.ret == 5
    done.stdout.fnmatch_lines([f"Nothing was selected: *-m '{marks}'*"])


def test_where_memory_runs_out_the_claim_is_not_run_and_the_next_goes_on(run):
    passed, done = run("-m", "gpu", "--device=cpu")
    assert passed == {"test_small"}
    assert done.ret == 0
    done.stdout.fnmatch_lines(["*Memory ran out on cpu, where * GB are free now: tried to allocate 9 GB*"])


@needs_none
def test_a_device_that_is_not_here_is_refused(run):
    _, done = run("-m", "gpu", "--device=cuda")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["ERROR: --device=cuda: torch finds no accelerator here; *"])


@pytest.mark.parametrize("name", ["tpu", "cuda:one", ""])
def test_a_device_of_another_name_is_refused(run, name):
    _, done = run(f"--device={name}")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([f"ERROR: --device={name}: expected one of cuda, *"])


def test_a_context_of_no_tokens_is_refused(run):
    _, done = run("--context=0")
    assert done.ret == pytest.ExitCode.USAGE_ERROR


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("gpt2", {"gpt2": "org/gpt2"}),
        ("org/GPT2 and softmax", {"org/GPT2": "org/gpt2"}),
        ("gpt2-xl or opt-1.3b", {"gpt2-xl": "org/gpt2-xl", "opt-1.3b": "org/opt-1.3b"}),
        ("gpt", {}),
        ("same", {}),
    ],
)
def test_a_word_that_is_one_models_whole_name_means_that_model(words, expected):
    """Part of a name, and a name that two models share, mean what pytest takes them for."""
    models = ["org/gpt2", "org/gpt2-xl", "org/opt-1.3b", "a/same", "b/same"]
    assert whole_names(words, models) == expected


def test_a_whole_name_selects_that_model_alone(pytester, run):
    """Its longer namesakes are left out, and what -k said is what a message repeats."""
    pytester.makeconftest(CONFTEST.replace('["org/one"]', '["org/one", "org/one-xl"]'))
    _, done = run("-k", "one and test_plain")
    assert "org/one-xl" not in done.stdout.str()
    done.assert_outcomes(passed=1, deselected=13)
    _, done = run("-k", "one and nothing")
    done.stdout.fnmatch_lines(["Nothing was selected: -k 'one and nothing' *"])

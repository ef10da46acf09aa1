"""`pytest --pyargs transformers_spec --model=X`, in any repository: the run of the command, in a process of its own.

pytest loads this wherever the package is installed. It adds no option and no fixture to anybody's run: where the words
name the specification, it hands them to the command, before any conftest.py is read; else it does nothing.
"""

from __future__ import annotations

import subprocess
from collections.abc import Generator, Sequence

import pytest

from transformers_spec.run import COMMAND

PACKAGE = "transformers_spec"
WORDS: pytest.StashKey[list[str]] = pytest.StashKey()
"""What is handed on, where the run is ours."""


def words_for_the_command(words: Sequence[str]) -> list[str]:
    """What was typed, without what names the package."""
    return [word for word in words if word not in (PACKAGE, "--pyargs")]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> Generator[None]:
    """Take over a run that names the specification: its options are not for this pytest, nor is what lies around."""
    known = early_config.known_args_namespace
    typed = [str(word) for word in early_config.invocation_params.args]
    if known.pyargs and PACKAGE in typed:
        early_config.stash[WORDS] = words_for_the_command(typed)
        known.noconftest = True
        args[:] = ["--noconftest"]
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Run the command in place of everything else; its exit status is pytest's."""
    words = config.stash.get(WORDS, None)
    if words is None:
        return None
    return subprocess.call([*COMMAND, *(words or ["--verbosity=0"])])  # without a word it would say how it is used

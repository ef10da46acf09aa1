"""Runs of pytest in processes of their own, which begin where torch and transformers are imported.

Most of a short run is the import of the libraries. multiprocessing's fork server imports them once, before anything is
computed, and each run is a fork of it: its own memory, folder, environment and exit, as after `python -m pytest`.
What has to do with how a process begins (variables that are read on import, options of Python's) needs a real one.
"""

from __future__ import annotations

import atexit
import functools
import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
IMPORTED = ["torch", "transformers", "transformers.modeling_utils", "transformers.models.auto.modeling_auto"]


def pytest_run(
    *options: str, at: Path = ROOT, timeout: float | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run pytest with these options in a folder, without its cache; what it printed, and its exit status."""
    words = ["-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning", *options]
    with tempfile.TemporaryDirectory() as folder:
        printed = [Path(folder, name) for name in ("stdout", "stderr")]
        process = _server().Process(
            target=_run, args=(words, str(at), {**os.environ, **environment}, *map(str, printed))
        )
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(words, timeout or 0)
        out, err = (file.read_text(encoding="utf-8", errors="replace") for file in printed)
    return subprocess.CompletedProcess(words, process.exitcode, out, err)


@functools.cache
def _server() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return context


def _run(words: list[str], at: str, environment: dict[str, str], out: str, err: str) -> None:
    for number, name in ((1, out), (2, err)):
        file = os.open(name, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(at)
    sys.argv, sys.path[0:0] = ["pytest", *words], [at, *environment.get("PYTHONPATH", "").split(os.pathsep)]
    import pytest

    code = int(pytest.main(words))
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

"""Running the claims from another program: in a child process, so that nothing of the caller's is touched.

The child is the command transformers-spec; its record comes back through a temporary folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from transformers_spec.record import Record

HERE = Path(__file__).resolve().parent
# Installed, the suite lies in this package; in a clone, around it.
SUITE = HERE / "suite" if (HERE / "suite").is_dir() else HERE.parent
# A file and not a module's name: whatever the caller's folder and path hold, it is this one that runs. -P keeps the
# folder that it lies in off the child's path.
COMMAND = (sys.executable, "-P", str(SUITE / "fixtures/command.py"))
WITHOUT_PAGE = ("-p", "no:fixtures.report.page.plugin")
CONCLUDED = (0, 1, 5)  # pytest's exit status where a run came to its end: passed, failed, nothing ran
WIDE = {"COLUMNS": "10000"}  # sentences that go into an error are not broken into lines
MOST_LINES = 12  # of a crashed child's output, in an error


class CheckError(Exception):
    """A release could not be checked, in a sentence: no such release, no time left, a process that died.

    `record` is what was known by then, None where that is nothing; `output` is what the run wrote.
    """

    def __init__(self, sentence: str, *, record: Record | None = None, output: str = "") -> None:
        super().__init__(sentence)
        self.record, self.output = record, output


def command() -> NoReturn:
    """The command transformers-spec: become the process that runs the claims, with the same words."""
    os.execv(sys.executable, [*COMMAND, *sys.argv[1:]])


def check(
    release: str | os.PathLike[str],
    *,
    weights: bool = False,
    marks: str | None = None,
    select: str | None = None,
    device: str | None = None,
    timeout: float | None = None,
) -> Record:
    """Run the claims on one release and return the record.

    `release` is ORG/NAME or ORG/NAME@REVISION on the hub, a checkpoint directory or a config.json. `weights` loads its
    real weights as well. `marks` and `select` are pytest's -m and -k: "quantization", "softmax or sum_to_one".
    `device` is where claims marked gpu run. `timeout` is in seconds.

    The claims run in a process of their own, with this interpreter and this environment. Claims that fail are in the
    record and raise nothing. CheckError where there is no record of a finished run.
    """
    name = os.fspath(release)
    if not name or "\0" in name:
        raise CheckError(f"expected a release (ORG/NAME on the hub, a directory or a config.json), found {name!r}")
    words = [f"--model={Path(name).expanduser().absolute() if _is_here(name) else name}"]
    words += ["--weights"] if weights else []
    words += [f"-m{marks}"] if marks else []
    words += [f"-k{select}"] if select else []
    words += [f"--device={device}"] if device else []
    with tempfile.TemporaryDirectory(prefix="transformers-spec-") as folder:
        status, output = _run([*words, f"--report={folder}"], timeout)
        record = _read(Path(folder))
    if record is not None and status in CONCLUDED and record.results:
        return record
    known = record if record and record.results else None
    raise CheckError(f"{name}: {_why(status, output, known or record, timeout)}", record=known, output=output)


def _is_here(name: str) -> bool:
    try:
        return Path(name).expanduser().exists()
    except (OSError, RuntimeError):  # too long, no such user
        return False


def _run(words: Sequence[str], timeout: float | None) -> tuple[int | None, str]:
    """Run the command; return its exit status, None where its time was over, and what it wrote."""
    child = subprocess.Popen(
        [*COMMAND, *words, *WITHOUT_PAGE],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | WIDE,
        process_group=0,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    with _no_orphans(child):
        try:
            output, _ = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            return None, error.stdout.decode("utf-8", "replace") if error.stdout else ""
        return child.returncode, output


@contextlib.contextmanager
def _no_orphans(child: subprocess.Popen[str]) -> Iterator[None]:
    """Leave no process behind when time is over or on Ctrl-C: neither the child nor what it has started."""
    try:
        yield
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        if child.stdout:
            child.stdout.close()


def _read(folder: Path) -> Record | None:
    try:
        return Record.of_document(json.loads((folder / "report.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def _why(status: int | None, output: str, record: Record | None, timeout: float | None) -> str:
    done = f"{len(record.results) if record else 0} results were there by then"
    if status is None:
        return f"the claims were not done within {timeout:g} seconds; {done}"
    errors = [line.removeprefix("ERROR: ") for line in output.splitlines() if line.startswith("ERROR: ")]
    if errors:
        return " ".join(errors)
    if record is not None and record.suite.why:
        return record.suite.why
    ended = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    last = "\n".join(output.strip().splitlines()[-MOST_LINES:])
    return f"the process that ran the claims ended with {ended}; {done}. It wrote last:\n{last}"

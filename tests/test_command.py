"""The command: built into a wheel and installed, it checks releases from any directory, as pytest does from a clone."""

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from fixtures.command import located, main

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
CHECKPOINT = ROOT / "fixtures/published/configs/facebook/opt-125m.json"


@pytest.fixture
def command(installed):
    """Run the installed command in a directory that has nothing of the project."""

    def run(*words: str, at: Path) -> subprocess.CompletedProcess[str]:
        return installed("transformers-spec", *words, at=at)

    return run


@pytest.fixture
def elsewhere(tmp_path):
    """A directory with a checkpoint in it, as a model's own repository has one."""
    (tmp_path / "a model").mkdir()
    shutil.copyfile(CHECKPOINT, tmp_path / "a model/config.json")
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --unheard-of\n")
    (tmp_path / "conftest.py").write_text("raise RuntimeError('the conftest of somebody else')\n")
    (tmp_path / "fixtures.py").write_text("raise RuntimeError('the fixtures of somebody else')\n")
    return tmp_path


def test_the_wheel_has_every_file_that_a_run_reads(wheel):
    """What lies in specs/ and fixtures/, code and data, lies in the package as well, and the console script."""
    names = {name.removeprefix("transformers_spec/suite/") for name in zipfile.ZipFile(wheel).namelist()}
    parts = [ROOT / "specs", ROOT / "fixtures"]
    here = {path.relative_to(ROOT).as_posix() for part in parts for path in part.rglob("*") if path.is_file()}
    kept = {name for name in here if "__pycache__" not in name and not name.endswith((".rej", ".orig"))}
    assert kept | {"conftest.py", "pytest.ini", "models.yaml"} <= names
    scripts = next(name for name in names if name.endswith("entry_points.txt"))
    assert b"transformers-spec = transformers_spec.run:command" in zipfile.ZipFile(wheel).read(scripts)


def test_it_checks_a_directory_from_anywhere(command, elsewhere):
    """A path as people type it is checked; the settings that lie around are not read; the record comes here."""
    done = command("a model", "-k", "test_04", "--report", "out", at=elsewhere)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a model (directory)" in done.stdout
    assert (elsewhere / "out/report.json").exists()
    assert (elsewhere / "out/index.html").exists()


def test_it_checks_releases_in_parallel(command, elsewhere):
    """Workers are wired as the process is that started them."""
    done = command("a model", "-n", "2", "-k", "test_04", at=elsewhere)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 workers" in done.stdout


def test_what_the_project_around_tells_pytest_is_not_heard(command, elsewhere, monkeypatch):
    """Options and plugins that the environment has for another project's tests have no say."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "--unheard-of")
    monkeypatch.setenv("PYTEST_PLUGINS", "not_there")
    monkeypatch.setenv("PYTHONPATH", str(elsewhere))
    done = command("a model", "-k", "test_04", at=elsewhere)
    assert done.returncode == 0, done.stdout + done.stderr


PLANTED = (
    "conftest.py",
    "sitecustomize.py",
    "torch.py",
    "transformers.py",
    "execnet.py",
    "planted.py",
    "a model/torch.py",
)


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "workers"])
def test_no_program_that_lies_around_is_run(command, elsewhere, workers):
    """Neither modules nor plugins nor what git would run for its settings, in the directory or in the release's."""
    ran = elsewhere / "ran"
    for name in PLANTED:
        (elsewhere / name).write_text(f"open({str(ran)!r}, 'a').write({name!r})\nraise SystemExit(7)\n")
    (elsewhere / "planted.pth").write_text(f"import sys; open({str(ran)!r}, 'a').write('pth')\n")
    (elsewhere / "planted-1.dist-info").mkdir()
    (elsewhere / "planted-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 1\n")
    (elsewhere / "planted-1.dist-info/entry_points.txt").write_text("[pytest11]\nplanted = planted\n")
    program = elsewhere / "git-program"
    program.write_text(f"#!/bin/sh\necho git >> {ran}\n")
    program.chmod(0o755)
    if shutil.which("git"):
        for folder in (elsewhere, elsewhere / "a model"):
            subprocess.run(["git", "init", "--quiet", folder], check=True)
            subprocess.run(["git", "-C", folder, "config", "core.fsmonitor", str(program)], check=True)
    done = command("a model", "-k", "test_04", "--report", "out", *workers, at=elsewhere)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not ran.exists(), ran.read_text()


def test_its_exit_status_is_pytests(command, elsewhere):
    """Nothing selected is 5, no such release 4, each with a sentence."""
    done = command("a model/config.json", "-k", "nothing_of_this_name", at=elsewhere)
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED
    assert "Nothing was selected" in done.stdout
    done = command("no-such-model", at=elsewhere)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--model=no-such-model: expected a hub id" in done.stderr


def test_a_release_among_the_options_is_refused(command, elsewhere):
    """A word after an option would be a test for pytest; the sentence says where releases stand."""
    done = command("-q", "a model", at=elsewhere)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "name releases before it" in done.stderr


def test_without_a_word_it_says_how_it_is_used(capsys):
    """No word is wrong usage, --help is not."""
    assert main([]) == pytest.ExitCode.USAGE_ERROR
    assert main(["--help"]) == 0
    assert capsys.readouterr().out.count("usage: transformers-spec") == 2


def test_what_is_here_is_named_by_its_absolute_path(tmp_path, monkeypatch):
    """Paths that exist are made absolute, whatever they look like; hub ids stay."""
    (tmp_path / "org/name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert located("org/name") == located("~/org/name") == str(tmp_path / "org/name")
    assert located("org/other@main") == "org/other@main"
    assert located("x\0y") == "x\0y"

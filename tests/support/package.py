"""The package: built into a wheel, and installed where nothing of this clone is to be found."""

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = ("pyproject.toml", "README.md", "LICENSE", "conftest.py", "pytest.ini", "models.yaml")
FOLDERS = ("specs", "fixtures", "transformers_spec")


def build(folder: Path) -> Path:
    """Build the wheel from a copy, for building leaves folders behind; return it."""
    pytest.importorskip("setuptools", minversion="77", reason="setuptools builds the wheel")
    pytest.importorskip("packaging", minversion="24.2", reason="setuptools reads the licence with a newer packaging")
    copy = folder / "copy"
    for part in FOLDERS:
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__", "*.rej", "*.orig"))
    for part in FILES:
        shutil.copyfile(ROOT / part, copy / part)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, "--wheel-dir", folder, copy], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


class Environment:
    """A virtual environment with a wheel in it, which borrows the libraries of the one that runs the tests."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder = folder
        venv.create(folder, with_pip=False, symlinks=True)
        packages = sysconfig.get_path("purelib", vars={"base": str(folder)})
        # a line in a .pth adds a folder without reading the .pth files in it: an editable install is not borrowed
        (Path(packages) / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python"), "install", "--quiet", "--no-deps"]
        # pip would take the borrowed package of the same name for one that it has to replace
        subprocess.run([*pip, "--no-index", "--ignore-installed", str(wheel)], check=True)

    def __call__(self, program: str, *words: str, at: Path) -> subprocess.CompletedProcess[str]:
        """Run a program in a folder."""
        command = [str(self.folder / "bin" / program), *words]
        return subprocess.run(command, cwd=at, capture_output=True, text=True, check=False)

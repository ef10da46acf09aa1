"""YAML that is a trap: what is too deep or stands for too much is refused before it is composed, in a sentence."""

import time

import pytest
import yaml

from fixtures.published.entries_file import EntriesError, Loader, load
from fixtures.published.yaml_limits import beyond

ALIASES = "a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
TRAPS = {
    "brackets": ("models: " + "[" * 100_000, "expected at most 60 levels"),
    "braces": ("models: " + "{a: " * 100_000, "expected at most 60 levels"),
    "dashes": ("models:\n" + "- " * 100_000, "expected at most 60 levels|found an error"),
    "questions": ("? " * 100_000, "expected at most 60 levels|found an error"),
    "aliases": (ALIASES + "models: *a11\n", "found aliases that stand for more"),
    "itself": ("models: &m {a: *m}\n", r"found \*m inside itself"),
    "no anchor": ("models: *m\n", "found undefined alias"),
    "a key of any length": (f"models: {{{'m/' + 'x' * 2000}: {{}}}}\n", "."),
    "a key with a null": ('models: {"m/\\0": {}}\n', "."),
    "a key of control signs": ('models: {"m/\\e[2J": 1}\n', r"x1b\[2J"),
}


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("loader", [Loader, yaml.SafeLoader], ids=["C", "Python"])
def test_a_trap_is_refused_in_a_sentence(tmp_path, trap, loader, monkeypatch):
    text, words = TRAPS[trap]
    (tmp_path / "models.yaml").write_text(text)
    monkeypatch.setattr("fixtures.published.entries_file.Loader", loader)
    began = time.monotonic()
    with pytest.raises(EntriesError, match=words) as caught:
        load(tmp_path / "models.yaml", configs=tmp_path)
    assert time.monotonic() - began < 10
    assert all(line.startswith("models.yaml:") and len(line) < 600 for line in caught.value.problems)
    assert all(line.isprintable() for line in caught.value.problems)


def test_the_matrix_is_within_the_limits():
    from fixtures.claims.parametrize import ROOT

    assert beyond((ROOT / "models.yaml").read_text(), Loader) is None

"""What is trained is kept between runs, and never believed where it may be anything else than what was written."""

import json

import pytest
import torch

from fixtures.learning import kept, recipes
from fixtures.learning.training import train

SHORT = recipes.LOOK_BACK.varied(steps=3)


@pytest.fixture
def trainings(monkeypatch):
    """The recipes that are trained, in order, while this test runs."""
    trained = []

    def counted(recipe):
        trained.append(recipe.name)
        return train(recipe)

    monkeypatch.setattr(kept, "train", counted)
    return trained


def files(directory):
    return {path.suffix: path for path in directory.rglob("*") if path.is_file()}


def alike(one, other):
    pairs = zip(one.after.model.parameters(), other.after.model.parameters(), strict=True)
    return one.course == other.course and all(torch.equal(left, right) for left, right in pairs)


def test_what_is_kept_is_what_was_trained(tmp_path, trainings):
    first, second = (kept.trained(SHORT, tmp_path) for _ in range(2))
    assert trainings == [SHORT.name]
    assert alike(first, second)
    assert first.before.accuracy() == second.before.accuracy()
    assert second.after.ids.equal(first.after.ids)
    assert set(files(tmp_path)) == {".json", ".safetensors"}


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-7]),
        lambda path: path.write_bytes(path.read_bytes()[:-2] + b"0" + path.read_bytes()[-1:]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff" * 64),
        lambda path: path.write_text("[]"),
        lambda path: path.unlink(),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["cut", "changed", "empty", "noise", "another", "gone", "folder"],
)
def test_what_is_damaged_is_trained_again(tmp_path, trainings, suffix, damage):
    first = kept.trained(SHORT, tmp_path)
    damage(next(path for path in tmp_path.rglob("*") if path.suffix == suffix))
    second = kept.trained(SHORT, tmp_path)
    assert trainings == [SHORT.name] * 2
    assert alike(first, second)


def test_a_loss_that_somebody_wrote_is_not_believed(tmp_path, trainings):
    kept.trained(SHORT, tmp_path)
    path = files(tmp_path)[".json"]
    about = json.loads(path.read_text())
    about["course"][-1]["loss"] = 0.0
    path.write_text(json.dumps(about))
    assert kept.trained(SHORT, tmp_path).course[-1].loss > 1
    assert len(trainings) == 2


@pytest.mark.parametrize("name", ["versions", "_code"])
def test_another_version_is_another_name_and_takes_the_place(tmp_path, trainings, monkeypatch, name):
    kept.trained(SHORT, tmp_path)
    monkeypatch.setattr(kept, name, lambda *_: "another")
    kept.trained(SHORT, tmp_path)
    kept.trained(SHORT, tmp_path)
    assert len(trainings) == 2
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 2


def test_another_recipe_has_another_key():
    changed = [SHORT, SHORT.varied(seed=1), SHORT.varied(heads=1), SHORT.varied(frozen=True), SHORT.varied(steps=4)]
    assert len({kept.key(recipe) for recipe in changed}) == len(changed)


def test_where_nothing_can_be_written_it_is_trained_each_time(tmp_path, trainings):
    blocked = tmp_path / "file"
    blocked.write_text("")
    first, second = (kept.trained(SHORT, blocked) for _ in range(2))
    assert trainings == [SHORT.name] * 2
    assert alike(first, second)
    assert blocked.read_text() == ""


def test_without_a_folder_nothing_is_kept(trainings):
    assert alike(*(kept.trained(SHORT) for _ in range(2)))
    assert len(trainings) == 2

"""Releases: what a name on the command line stands for, what its files are, and the sentence where it is none."""

import json

import pytest

from fixtures.published.hub import Repository
from fixtures.published.release import Release, ReleaseError, at_path, is_hub_id, listed, named, on_hub

CONFIG = {"model_type": "opt", "hidden_size": 64}


@pytest.fixture
def config(tmp_path):
    """A bare config."""
    file = tmp_path / "one" / "config.json"
    file.parent.mkdir()
    file.write_text(json.dumps(CONFIG))
    return file


@pytest.mark.parametrize("name", ["org/name", "org/name@main", "org/name@refs/pr/3", "o-r.g/n_a-me.v2"])
def test_the_form_of_a_hub_id(name):
    assert is_hub_id(name)


@pytest.mark.parametrize(
    "name", ["name", "a/b/c", "org/name.json", "org/model.safetensors", "org/", "org/name@", "-o/n", "../x"]
)
def test_what_is_no_hub_id(name):
    assert not is_hub_id(name)


def test_a_path_that_is_here_is_no_hub_id(tmp_path, monkeypatch):
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not is_hub_id("org/name")


def test_a_revision_belongs_to_the_name():
    release = on_hub("org/name@v1")
    assert release.repository is not None
    assert (release.id, release.repository.id, release.repository.revision) == ("org/name@v1", "org/name", "v1")


def test_a_bare_config_is_read(config):
    release = at_path(config)
    assert (release.origin, release.id, release.config.hidden_size) == ("config", "one", 64)
    assert release.weights == []
    assert "the config alone is here" in release.no_weights


def test_a_directory_is_read(config):
    release = at_path(config.parent)
    assert (release.origin, release.id, release.config.model_type) == ("directory", "one", "opt")
    assert "one has no safetensors file: there are no weights to look at." in release.no_weights


def test_weights_in_a_folder_below_are_pointed_out(config):
    (config.parent / "weights").mkdir()
    (config.parent / "weights" / "model.safetensors").touch()
    reason = at_path(config.parent).no_weights
    assert "beside its config.json, but weights/model.safetensors" in reason
    assert "Move the weights up." in reason


def test_the_files_of_a_directory_are_told_apart(config):
    for name in ("pytorch_model.bin", "tokenizer.json", "README.md", "training_args.bin"):
        (config.parent / name).write_bytes(b"")
    release = at_path(config.parent)
    assert sorted(release.text_files) == ["config.json", "tokenizer.json"]
    assert release.weights == []
    assert "has its weights as pytorch_model.bin: pickled" in release.no_weights
    (config.parent / "model.safetensors").write_bytes(b"")
    assert at_path(config.parent).weights == ["model.safetensors"]
    assert at_path(config.parent).no_weights == ""


def test_a_config_alone_has_no_tokenizer(config):
    assert at_path(config.parent).text_files == []


def test_releases_of_one_name_are_told_apart(tmp_path):
    for place in ("a", "b"):
        (tmp_path / place / "model").mkdir(parents=True)
    assert [r.id for r in named([str(tmp_path / "a/model"), str(tmp_path / "b/model")])] == ["a/model", "b/model"]


def test_names_that_cannot_be_releases_are_named_together(tmp_path):
    with pytest.raises(ValueError, match=r"found no such path") as caught:
        named([str(tmp_path / "none"), "org/name.json", "org/one", "org/one"])
    assert len(str(caught.value).splitlines()) == 3
    assert "org/one: named 2 times; name it once." in str(caught.value)


def test_a_list_of_names_has_remarks(tmp_path):
    (tmp_path / "list").write_text("# mine\norg/one  # the first\n\norg/two@v1\n")
    assert listed(tmp_path / "list") == ["org/one", "org/two@v1"]


@pytest.mark.parametrize("content", [None, "", "# nothing\n"], ids=["none", "empty", "remarks"])
def test_a_list_without_names_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "list").write_text(content)
    with pytest.raises(ValueError, match=r"one .*a line, found none"):
        listed(tmp_path / "list")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "expected JSON, found nothing"),
        ("{", "expected JSON, found something else"),
        ("[" * 10**5, "expected JSON of a few levels, found hundreds inside each other"),
        ("[]", "expected a mapping with a model_type, found none"),
        ('{"hidden_size": 3}', "expected a mapping with a model_type, found none"),
        ('{"model_type": "nothing-that-is"}', "does not know the model type 'nothing-that-is'"),
        ('{"model_type": "nothing-that-is", "auto_map": {"x": "y"}}', "code from a repository is not run here"),
    ],
    ids=["empty", "cut", "deep", "list", "no-type", "unknown", "remote-code"],
)
def test_a_config_that_is_none_is_refused(config, content, sentence):
    config.write_text(content)
    with pytest.raises(ReleaseError) as caught:
        at_path(config).config  # noqa: B018 - it is read
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_named_as_a_config_are_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ReleaseError, match=r"found weights\. Name the directory they lie in"):
        at_path(tmp_path / "model.safetensors").config  # noqa: B018 - it is read


def test_a_hub_that_cannot_be_asked_is_said_once(monkeypatch):
    """No weights are seen, and the sentence is the hub's."""
    from fixtures.published.hub import HubError

    def refuse(*args, **kwargs):
        raise HubError("no network", "org/one: no connection.")

    monkeypatch.setattr(Repository, "file", refuse)
    release = Release("org/one", "hub", None, repository=Repository("org/one"))
    assert (release.weights, release.no_weights) == ([], "org/one: no connection.")

"""Small files of somebody else's: what is no file is not opened, a link that leads elsewhere is not followed."""

import json
import os
import socket
import time

import pytest

from fixtures.published import small_files
from fixtures.published.release import ReleaseError, at_path, listed
from fixtures.published.small_files import FileError
from fixtures.verdicts.errors import SentenceError, escaped


def _socket(path):
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


ODD = {
    "a pipe": os.mkfifo,
    "a directory": os.mkdir,
    "a socket": _socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link that leads nowhere": lambda path: path.symlink_to("nothing"),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of a short name: a socket's is limited."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one").mkdir()
    return tmp_path / "one"


@pytest.mark.parametrize("found", ODD)
def test_what_is_no_file_is_refused_at_once(folder, found, monkeypatch):
    monkeypatch.chdir(folder)
    path = folder / "config.json"
    ODD[found](path if found != "a socket" else "config.json")
    began = time.monotonic()
    with pytest.raises(FileError, match=f"expected a file, found {found}"):
        small_files.read(path)
    with pytest.raises(ReleaseError, match=r"config\.json: expected a file") as caught:
        at_path(folder).config  # noqa: B018 - it is read
    assert "\n" not in str(caught.value)
    if found != "a directory":
        with pytest.raises(ValueError, match=f"found none: expected a file, found {found}"):
            listed(path)
    assert time.monotonic() - began < 5


def test_a_link_out_of_the_folder_is_not_followed(folder):
    (folder.parent / "secret").write_text('{"model_type": "opt"}')
    (folder / "config.json").symlink_to("../secret")
    with pytest.raises(ReleaseError, match=r"found a link out of it, to .*secret"):
        at_path(folder).config  # noqa: B018 - it is read


def test_a_link_within_the_folder_and_a_snapshot_of_the_cache_are_read(folder):
    (folder / "other").write_text('{"model_type": "opt", "hidden_size": 64}')
    (folder / "config.json").symlink_to("other")
    assert at_path(folder).config.hidden_size == 64
    snapshot = folder / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (folder / "blobs").mkdir()
    (folder / "other").rename(folder / "blobs" / "1")
    (snapshot / "config.json").symlink_to("../../blobs/1")
    assert at_path(snapshot).config.hidden_size == 64


def test_what_is_too_large_is_not_read(folder):
    with (folder / "config.json").open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(ReleaseError, match="expected at most 10000000 bytes, found 1000000000000"):
        at_path(folder).config  # noqa: B018 - it is read


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "found nothing"),
        (b"[" * 10**5, "found hundreds inside each other"),
        (b"[" * 100 + b"]" * 100, "expected JSON of at most 60 levels"),
        (b'{"a":' * 100 + b"1" + b"}" * 100, "expected JSON of at most 60 levels"),
        (b"\xff", "expected UTF-8, found byte 0xff on line 1"),
        (b"1" * 10**5, "found something else"),
        (b"\xef\xbb\xbf{}", "found something else"),
    ],
    ids=["empty", "endless", "lists", "mappings", "not-utf-8", "digits", "mark"],
)
def test_what_is_no_json_is_said(content, words):
    with pytest.raises(FileError, match=words):
        small_files.parse(content)


def test_depth_is_counted():
    values: list[object] = [1, [], [[]], {"a": [{}]}]
    assert [small_files.depth(value, most=9) for value in values] == [0, 1, 2, 3]
    assert small_files.depth(json.loads("[" * 500 + "]" * 500), most=9) == 10


def test_what_moves_a_cursor_is_shown():
    assert escaped("a\x1b[2Jb\udce9\n") == "a\\x1b[2Jb\\udce9\\n"
    assert escaped("x" * 9, 3) == "xxx..."
    assert str(SentenceError("one\n  two\x07")) == "one two\\x07"


def test_a_name_that_is_no_text_is_escaped(folder):
    path = os.fsdecode(os.fsencode(folder) + b"/m\xe9")
    os.mkdir(path)
    release = at_path(folder / os.path.basename(path))
    assert release.id == "m\\udce9"
    with pytest.raises(ReleaseError, match="expected a checkpoint directory") as caught:
        release.config  # noqa: B018 - it is read
    assert str(caught.value).isprintable()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_directory_without_permission_is_told(folder):
    folder.chmod(0)
    try:
        with pytest.raises(ReleaseError):
            at_path(folder).config  # noqa: B018 - it is read
        assert at_path(folder).weights == []
    finally:
        folder.chmod(0o700)

"""A hub that means harm: endless and slow answers, names that lead elsewhere, garbage; each is one sentence, soon."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from fixtures.published import hub_limits
from fixtures.published.hub import HubError, Repository
from fixtures.published.release import is_hub_id
from fixtures.verdicts.errors import SentenceError, escaped, masked

pytestmark = pytest.mark.slow

COMMIT = "a" * 40
CONFIG = b'{"model_type": "opt"}'


class _Hostile(BaseHTTPRequestHandler):
    """Answers as a hub does, but for what `ways` says."""

    protocol_version = "HTTP/1.1"
    ways: ClassVar[dict[str, Any]] = {}

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self._file(body=False)

    def do_GET(self):
        if self.path.startswith("/api/"):
            self._list()
        else:
            self._file(body=True)

    def _list(self):
        if "list" in self.ways:
            content = self.ways["list"]
        else:
            content = json.dumps({"id": "o/n", "sha": COMMIT, "siblings": [{"rfilename": "config.json"}]}).encode()
        self._send(content, {"Content-Type": "application/json"}, body=True)

    def _file(self, *, body):
        headers = {"X-Repo-Commit": self.ways.get("commit", COMMIT), "ETag": f'"{self.ways.get("etag", "b" * 12)}"'}
        self._send(self.ways.get("file", CONFIG), headers, body=body)

    def _send(self, content, headers, *, body):
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        if callable(content) and body:
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            content(self)
            return
        size = self.ways.get("size", 0 if callable(content) else len(content))
        self.send_header("Content-Length", str(size))
        self.end_headers()
        if body:
            self.wfile.write(content)


def endless(handler):
    try:
        while True:
            handler.wfile.write(b"x" * 2**16)
    except OSError:
        handler.server.hung_up = True


def drip(handler):
    try:
        for _ in range(600):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.1)
    except OSError:
        pass


@pytest.fixture
def hostile(monkeypatch, tmp_path):
    """Run a hub that answers in these ways, for the client of this process."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_limits, "PATIENCE", 2.0)

    @contextmanager
    def run(**ways):
        handler = type("Handler", (_Hostile,), {"ways": ways})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        url = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
            server.server_close()

    return run


def refusal(act):
    began = time.monotonic()
    with pytest.raises(HubError) as caught:
        act()
    assert time.monotonic() - began < 20
    assert str(caught.value).isprintable()
    return caught.value.kind, str(caught.value)


def outside(tmp_path):
    """The files that lie anywhere but in the cache."""
    return [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(tmp_path / "hub")]


@pytest.mark.parametrize("header", ["etag", "commit"])
@pytest.mark.parametrize("value", ["../../../../../x", "..", "/x", "a/b", "a\x1bb", ".hidden"])
def test_a_name_that_leaves_the_cache_is_refused(hostile, tmp_path, header, value):
    with hostile(**{header: value}):
        kind, sentence = refusal(lambda: Repository("o/n").file("config.json"))
    assert kind == "garbage"
    assert "sends a header" in sentence
    assert outside(tmp_path) == []


def test_an_endless_body_ends(hostile, tmp_path):
    with hostile(file=endless, size=len(CONFIG)):
        kind, sentence = refusal(lambda: Repository("o/n").file("config.json"))
    assert (kind, "sends more than the 21 bytes" in sentence) == ("garbage", True)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 10**6


def test_an_endless_list_ends(hostile, monkeypatch):
    monkeypatch.setattr(hub_limits._Allowed, "size", 10**6)
    monkeypatch.setattr(hub_limits.within, "__kwdefaults__", {"size": 10**6})
    with hostile(list=endless):
        assert refusal(lambda: Repository("o/n").listing())[0] == "garbage"


@pytest.mark.parametrize("what", ["file", "list"])
def test_an_answer_that_drips_is_not_waited_for(hostile, what):
    with hostile(**{what: drip, "size": 500}):
        one = Repository("o/n")
        kind, sentence = refusal(one.listing if what == "list" else lambda: one.file("config.json"))
    assert kind in ("slow", "garbage")
    assert "takes longer than anybody waits" in sentence or "sends more" in sentence


@pytest.mark.parametrize(
    "listed",
    [
        b"",
        b"garbage",
        b"[]",
        b"5",
        b"[" * 100_000,
        b'{"sha": 5}',
        b'{"id": "o/n", "sha": "../x", "siblings": []}',
        json.dumps({"id": "o/n", "sha": COMMIT, "siblings": [{"rfilename": None}]}).encode(),
        json.dumps({"id": "o/n", "sha": COMMIT, "siblings": [{"rfilename": "../../x"}]}).encode(),
        json.dumps({"id": "o/n", "sha": COMMIT, "siblings": [{}]}).encode(),
        json.dumps({"id": "o/n", "sha": COMMIT, "siblings": 5}).encode(),
    ],
    ids=["empty", "text", "list", "number", "deep", "sha", "sha-elsewhere", "null", "elsewhere", "nameless", "no-list"],
)
def test_a_list_that_is_garbage_is_called_so(hostile, listed):
    with hostile(list=listed):
        kind, sentence = refusal(lambda: Repository("o/n").listing())
    assert kind == "garbage"
    assert "Error" not in sentence


def test_what_a_hub_should_send_is_taken(hostile):
    with hostile():
        one = Repository("o/n")
        assert one.file("config.json").read_bytes() == CONFIG
        assert one.listing() == {"config.json": None}
        assert one.commit == COMMIT


def test_credentials_in_an_address_are_not_shown(hostile, monkeypatch):
    from huggingface_hub import constants

    with hostile() as server:
        port = server.server_address[1]
    for name in ("ENDPOINT", "HUGGINGFACE_CO_URL_TEMPLATE"):
        rest = "/{repo_id}/resolve/{revision}/{filename}" if name != "ENDPOINT" else ""
        monkeypatch.setattr(constants, name, f"http://user:pass@word@127.0.0.1:{port}{rest}")
    _, sentence = refusal(lambda: Repository("o/n").file("config.json"))
    assert "pass" not in sentence
    assert "word" not in sentence
    assert masked("at http://u:p@h/x, https://h/y") == "at http://***@h/x, https://h/y"
    assert "secret" not in str(SentenceError("http://u:secret@h"))
    assert escaped("//x@y") == "//x@y"


@pytest.mark.parametrize(
    "name", ["o/n@../x", "o/n@a/../../x", "o/n@/x", "o/n@-x", "o/n@.x", "o/n@a//b", "o/n@a\x1bb", "o/n@a\\b", "o/n@a:b"]
)
def test_a_revision_that_is_no_name_is_no_hub_id(name):
    assert not is_hub_id(name)


@pytest.mark.parametrize("name", ["o/n@refs/pr/3", "o/n@v1.0+cu", "o/n@feature#1", f"o/n@{COMMIT}", "o/n@käse"])
def test_a_revision_of_git_is_one(name):
    assert is_hub_id(name)

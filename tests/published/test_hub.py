"""The hub, with its real client, against a stand-in on this machine: what is found, and a sentence for each trouble."""

import os
import socket
import subprocess
import sys
import time

import pytest

from fixtures.claims.parametrize import ROOT
from fixtures.published.hub import HubError, Repository
from tests.support.checkpoints import publish
from tests.support.hub_stand_in import Repo, checkpoint, hub

pytestmark = pytest.mark.slow

OPT = "facebook/opt-125m"
MAIN, TAGGED = "a" * 40, "b" * 40
TOKEN = "hf_wordthatnobodysees"
CONFIG, WEIGHTS = "config.json", "model.safetensors"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The files of a small checkpoint."""
    return checkpoint(publish(OPT, tmp_path_factory.mktemp("published")))


@pytest.fixture
def client(monkeypatch, tmp_path):
    """The client of this process, with a cache of its own, a token, and little patience: how to point it at a hub."""
    from huggingface_hub import constants

    def point_at(url):
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.5)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return point_at


@pytest.fixture
def serve(client, files):
    """Run a hub with one repository, org/one, for the time of a with block."""
    from contextlib import contextmanager

    @contextmanager
    def serve(trouble="", **given):
        with hub({"org/one": Repo(given.pop("files", files), trouble, **given)}) as server:
            client(server.url)
            yield server

    return serve


def refusal(ask):
    """Return the kind and the sentence of the error that a question to the hub ends in, soon."""
    began = time.monotonic()
    with pytest.raises(HubError) as caught:
        ask()
    assert time.monotonic() - began < 5
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert TOKEN not in sentence
    return caught.value.kind, sentence


def kept(tmp_path):
    """What the cache has of files and of parts of files."""
    found = (tmp_path / "hub").rglob("*")
    return [p.name for p in found if p.is_file() and ({"blobs", "snapshots"} & set(p.parts))]


def test_a_file_is_fetched_once_and_settles_the_commit(serve, files):
    with serve() as server:
        one = Repository("org/one")
        assert one.file(CONFIG).read_bytes() == files[CONFIG]
        assert one.commit == MAIN
        asked = len(server.requests)
        assert Repository("org/one", MAIN).file(CONFIG).read_bytes() == files[CONFIG]
        assert len(server.requests) == asked, "a file of a commit cannot change: nothing is asked again"


def test_a_revision_has_files_of_its_own_commit(serve):
    with serve(branches={"main": MAIN, "v1": TAGGED}):
        one = Repository("org/one", "v1")
        one.file(CONFIG)
        assert (one.name, one.commit) == ("org/one@v1", TAGGED)


def test_the_files_are_listed_with_their_sizes(serve, files):
    with serve():
        assert Repository("org/one").listing() == {name: len(content) for name, content in files.items()}


def test_a_header_is_read_from_the_first_bytes(serve, files):
    from safetensors.torch import load

    with serve() as server:
        found = Repository("org/one").header(WEIGHTS)
        expected = {name: tuple(tensor.shape) for name, tensor in load(files[WEIGHTS]).items()}
        assert {name: tensor.shape for name, tensor in found.items()} == expected
        asked = [request for request in server.requests if WEIGHTS in request]
        assert asked, "no request for the weights' file was seen"
        assert all("bytes=" in request for request in asked)


@pytest.mark.parametrize(
    ("trouble", "kind", "todo"),
    [
        ("gated", "gated", "accept the licence at http"),
        ("forbidden", "gated", "accept the licence at http"),
        ("error", "server", "try again later"),
        ("busy", "busy", "try again later"),
        ("slow", "slow", "HF_HUB_ETAG_TIMEOUT"),
        ("slow body", "slow", "HF_HUB_DOWNLOAD_TIMEOUT"),
        ("truncated", "broken off", "nothing of it is kept; try again"),
        ("corrupted", "corrupted", "nothing of it is kept; try again"),
        ("no headers", "endpoint", "HF_ENDPOINT"),
    ],
)
def test_a_file_in_trouble(serve, tmp_path, trouble, kind, todo):
    with serve(trouble):
        found, sentence = refusal(lambda: Repository("org/one").file(CONFIG))
    assert found == kind, sentence
    assert sentence.startswith("org/one: ")
    assert todo in sentence
    assert not kept(tmp_path)


@pytest.mark.parametrize("trouble", ["gated", "error", "busy", "truncated", "corrupted"])
def test_a_header_in_trouble(serve, trouble):
    with serve(trouble):
        _, sentence = refusal(lambda: Repository("org/one").header(WEIGHTS))
    assert sentence.startswith("org/one: ")


def test_a_corrupted_file_of_weights_is_not_kept(serve, tmp_path):
    with serve("corrupted"):
        kind, _ = refusal(lambda: Repository("org/one").file(WEIGHTS, weights=True))
    assert kind == "corrupted"
    assert not kept(tmp_path)


def test_what_is_not_there(serve):
    with serve():
        assert refusal(lambda: Repository("org/two").file(CONFIG))[0] == "missing"
        assert refusal(lambda: Repository("org/two").listing())[0] == "missing"
        assert refusal(lambda: Repository("org/one", "v9").file(CONFIG))[0] == "revision"
        assert refusal(lambda: Repository("org/one").file("other.json"))[0] == "no file"


def test_a_gated_repository_opens_with_a_token(serve, monkeypatch, files):
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    with serve("gated"):
        assert Repository("org/one").file(CONFIG).read_bytes() == files[CONFIG]


def test_without_a_token_it_says_to_set_one(serve, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with serve("gated"):
        assert "set HF_TOKEN" in refusal(lambda: Repository("org/one").file(CONFIG))[1]


def test_offline_the_cache_is_enough(serve, monkeypatch, files):
    from huggingface_hub import constants

    with serve() as server:
        for name in (CONFIG, WEIGHTS):
            Repository("org/one").file(name, weights=True)
        asked = len(server.requests)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        one = Repository("org/one")
        assert one.file(CONFIG).read_bytes() == files[CONFIG]
        assert set(one.listing()) == {CONFIG, WEIGHTS}
        assert len(server.requests) == asked
        kind, sentence = refusal(lambda: one.file("tokenizer.json"))
        assert (kind, "HF_HUB_OFFLINE is set" in sentence) == ("offline", True)


def test_a_refused_connection(serve, client):
    with serve():
        Repository("org/one").file(CONFIG)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # taken, and not listening
        client(f"http://127.0.0.1:{nobody.getsockname()[1]}")
        assert refusal(lambda: Repository("org/two").file(CONFIG))[0] == "no network"
        assert refusal(lambda: Repository("org/two").listing())[0] == "no network"
        Repository("org/one").file(CONFIG)  # from the cache


def test_a_damaged_cache_is_fetched_anew(serve, files):
    with serve():
        path = Repository("org/one").file(CONFIG)
        path.resolve().write_bytes(files[CONFIG][::-1])
        assert Repository("org/one").file(CONFIG).read_bytes() == files[CONFIG]


def test_a_damaged_cache_without_a_hub(serve, client, files):
    with serve():
        path = Repository("org/one").file(CONFIG)
        path.resolve().write_bytes(files[CONFIG][::-1])
    client("http://127.0.0.1:9")
    kind, sentence = refusal(lambda: Repository("org/one").file(CONFIG))
    assert kind == "corrupted"
    assert str(path.resolve()) in sentence


# ---- as somebody types it


@pytest.fixture
def cli(tmp_path):
    """Run pytest in a process of its own against a hub; return the status, what was said, and the seconds it took."""

    def run(url, *arguments, **environment):
        own = {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"}
        kept = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=kept | own | environment, capture_output=True, text=True, timeout=120, check=False
        )
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.parametrize("trouble", ["missing", "gated", "corrupted", "refused", "offline"])
def test_a_run_that_cannot_have_its_release(cli, files, trouble):
    """One sentence, exit status 4, no traceback and no token."""
    with hub({"org/one": Repo(files, trouble)}) as server:
        url = "http://127.0.0.1:9" if trouble == "refused" else server.url
        name = "org/two" if trouble == "missing" else "org/one"
        environment = {"HF_HUB_OFFLINE": "1"} if trouble == "offline" else {}
        status, printed = cli(url, f"--model={name}", **environment)
    assert status == 4, printed
    assert [line for line in printed.splitlines() if line.startswith(f"ERROR: --model={name}: ")], printed
    assert "Traceback" not in printed
    assert TOKEN not in printed


def test_a_run_on_the_hub_fetches_no_weights(cli, files, tmp_path):
    with hub({"org/one": Repo(files)}) as server:
        status, printed = cli(server.url, "--model=org/one", "specs/test_14_the_release.py")
    assert status == 0, printed
    assert "org/one (hub)" in printed
    assert "The weights are read with --weights." in printed
    assert not list((tmp_path / "home").rglob("*.safetensors"))


def test_a_run_with_weights_fetches_them(cli, files, tmp_path):
    with hub({"org/one": Repo(files)}) as server:
        status, printed = cli(server.url, "--model=org/one", "--weights", "specs/test_14_the_release.py")
    assert status == 0, printed
    assert "0 not run" in printed
    assert list((tmp_path / "home").rglob("*.safetensors"))

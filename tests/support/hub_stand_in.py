"""A stand-in for the hub, on 127.0.0.1: the routes and headers that the real client uses, and every way to go wrong."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

GATED = {401: "GatedRepo", 403: "GatedRepo"}


@dataclass
class Repo:
    """A repository: its commits by name of branch or tag, their files, and what is wrong with it.

    `trouble`: "gated" (without the token "hf_reader"), "forbidden" (403, whatever the token), "truncated", "corrupted",
    "slow", "slow body", "error" (500), "busy" (429), "busy at first" (429 twice, to wait a second), "no headers".
    """

    files: dict[str, bytes]
    trouble: str = ""
    branches: dict[str, str] = field(default_factory=lambda: {"main": "a" * 40})
    large: tuple[str, ...] = (".safetensors", ".bin")

    def etag(self, name: str) -> str:
        """The content hash: SHA-256 for what is kept as a large file, git's for the others."""
        content = self.files[name]
        if name.endswith(self.large):
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


class StandIn(ThreadingHTTPServer):
    """A hub with these repositories; `requests` keeps what it was asked."""

    daemon_threads = True

    def __init__(self, repos: dict[str, Repo]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos, self.requests, self.patience = repos, list[str](), dict[str, int]()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address) -> None:
        """Whoever hangs up is no concern of the hub's."""


@contextmanager
def hub(repos: dict[str, Repo]) -> Iterator[StandIn]:
    """Run a hub with these repositories."""
    server = StandIn(repos)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def checkpoint(directory: Path) -> dict[str, bytes]:
    """The files of a directory."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandIn

    def log_message(self, *args) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = unquote(self.path.partition("?")[0])
        self.server.requests.append(f"{self.command} {path} {self.headers.get('Range', '')}".strip())
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self._info("/".join(parts[2:4]), "/".join(parts[5:]) or "main")
        elif len(parts) > 4 and parts[2] == "resolve":
            self._file("/".join(parts[:2]), *self._revision(parts[3:]), body=body)
        else:
            self._refuse(404, "RepoNotFound")

    def _revision(self, parts: list[str]) -> tuple[str, str]:
        if parts[0] == "refs":
            return "/".join(parts[:3]), "/".join(parts[3:])
        return parts[0], "/".join(parts[1:])

    def _repo(self, name: str, revision: str) -> tuple[Repo, str] | None:
        repo = self.server.repos.get(name)
        if repo is None:
            return self._refuse(404, "RepoNotFound")
        if repo.trouble == "slow":
            time.sleep(30)
        if repo.trouble == "error":
            return self._refuse(500)
        if repo.trouble == "busy":
            return self._refuse(429)
        if repo.trouble == "busy at first" and self.server.patience.setdefault(name, 2):
            self.server.patience[name] -= 1
            return self._refuse(429, headers={"Retry-After": "1"})
        if repo.trouble == "gated" and self.headers.get("Authorization") != "Bearer hf_reader":
            return self._refuse(401, "GatedRepo")
        if repo.trouble == "forbidden":
            return self._refuse(403, "GatedRepo")
        if revision in repo.branches:
            return repo, repo.branches[revision]
        if revision in repo.branches.values():
            return repo, revision
        return self._refuse(404, "RevisionNotFound")

    def _info(self, name: str, revision: str) -> None:
        if (found := self._repo(name, revision)) is None:
            return
        repo, commit = found
        files = [{"rfilename": file, "size": len(content)} for file, content in repo.files.items()]
        content = json.dumps({"id": name, "modelId": name, "sha": commit, "siblings": files}).encode()
        self._send(200, content, {"Content-Type": "application/json"}, body=True)

    def _file(self, name: str, revision: str, file: str, *, body: bool) -> None:
        if (found := self._repo(name, revision)) is None:
            return
        repo, commit = found
        if file not in repo.files:
            self._refuse(404, "EntryNotFound", {"X-Repo-Commit": commit})
            return
        content = repo.files[file]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{repo.etag(file)}"'} if repo.trouble != "no headers" else {}
        status, wanted = 200, self.headers.get("Range")
        if wanted:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            part = content[int(first) : int(last or len(content)) + 1]
            headers["Content-Range"] = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
            status, content = 206, part
        if body and repo.trouble == "slow body":
            time.sleep(30)
        if body and repo.trouble == "corrupted":
            content = bytes([content[0], *reversed(content[1:-1]), content[-1]])
        self._send(status, content, headers, body=body, cut=repo.trouble == "truncated")

    def _refuse(self, status: int, code: str = "", headers: dict[str, str] | None = None) -> Any:
        fields = (
            {"X-Error-Code": code, "X-Error-Message": f"{code} for Bearer {self.headers.get('Authorization')}"}
            if code
            else {}
        )
        self._send(status, b"", fields | (headers or {}), body=False)

    def _send(self, status: int, content: bytes, headers: dict[str, str], *, body: bool, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut and body:
            self.close_connection = True

"""A hub of models on this machine: the addresses that its client calls, and what can go wrong."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

PAGE = b"<html><body>Log in to the network of this hotel.</body></html>"


class FakeHub(ThreadingHTTPServer):
    """Repositories in memory.

    Attributes:
        repositories: name -> file -> content; each has the revisions "main" and its commit.
        cuts: after how many bytes the next downloads break off; the last one holds for all others.
        refusal: a status and an error code for every request.
        portal: answer everything with a web page.
        requests: "METHOD path", with the first byte where it is not 0.
        agents: what the clients say that they are.
        sent: bodies of commits and of new repositories.
        private: names of the repositories that are.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.cuts: list[int | None] = [None]
        self.refusal: tuple[int, str] | None = None
        self.portal = False
        self.requests: list[str] = []
        self.agents: set[str] = set()
        self.sent: list[dict[str, object]] = []
        self.private: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def commit(self, name: str) -> str:
        content = repr(sorted(self.repositories[name].items())).encode()
        return hashlib.sha1(content).hexdigest()

    def downloads(self) -> list[str]:
        return [
            request
            for request in self.requests
            if request.startswith("GET") and "/resolve/" in request
        ]

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are expected."""


class Handler(BaseHTTPRequestHandler):
    """Answers by the path, as the hub does."""

    server: FakeHub

    def do_HEAD(self) -> None:
        self._get(b"")

    def do_GET(self) -> None:
        self._get(None)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.requests.append(f"POST {self.path}")
        if self._refused():
            return
        if self.path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}"
            self.server.sent.append(wanted)
            is_private = wanted.get("private") or wanted.get("visibility") == "private"
            if name not in self.server.repositories and is_private:
                self.server.private.add(name)
            self.server.repositories.setdefault(name, {})
            self._json({"url": f"{self.server.url}/{name}"})
        elif "/preupload/" in self.path:
            files = [file["path"] for file in json.loads(body)["files"]]
            kinds = (
                {"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in files
            )
            self._json({"files": list(kinds)})
        elif "/commit/" in self.path:
            self._commit([json.loads(line) for line in body.splitlines()])
        else:
            self._json({})

    def _commit(self, lines: list[dict[str, dict[str, str]]]) -> None:
        name = "/".join(self.path.split("/")[3:5])
        self.server.sent.append(lines[0]["value"])
        for line in lines[1:]:
            content = base64.b64decode(line["value"]["content"])
            self.server.repositories[name][line["value"]["path"]] = content
        commit = self.server.commit(name)
        self._json({"commitUrl": f"{self.server.url}/{name}/commit/{commit}", "commitOid": commit})

    def _get(self, body: bytes | None) -> None:
        server = self.server
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(asked[1]) if asked else 0
        server.agents.add(self.headers.get("User-Agent", ""))
        server.requests.append(f"{self.command} {self.path}" + f" from {first}" * bool(first))
        if self._refused():
            return
        api = re.fullmatch(
            r"/api/models/([^/]+/[^/?]+)(?:/(revision|tree)/([^/?]+))?(\?.*)?", self.path
        )
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        match = api or file
        if match is None or match[1] not in server.repositories:
            self._error(401, "RepoNotFound")
            return
        name, revision = match[1], (match[3] if api else match[2]) or "main"
        commit = server.commit(name)
        if revision not in ("main", commit):
            self._error(404, "RevisionNotFound")
        elif api:
            self._list(name, api[2] == "tree", commit)
        elif file and file[3] not in server.repositories[name]:
            self._error(404, "EntryNotFound", commit)
        elif file:
            self._file(server.repositories[name][file[3]], first, commit)

    def _list(self, name: str, tree: bool, commit: str) -> None:
        files = self.server.repositories[name]
        if tree:
            entries = (
                {"type": "file", "path": f, "size": len(c), "oid": ""} for f, c in files.items()
            )
            self._json(list(entries))
        else:
            names = [{"rfilename": file} for file in files]
            about = {"id": name, "modelId": name, "sha": commit, "siblings": names}
            self._json({**about, "private": name in self.server.private})

    def _file(self, content: bytes, first: int, commit: str) -> None:
        self.send_response(206 if first else 200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content) - first))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "GET":
            cuts = self.server.cuts
            self.wfile.write(content[first:][: cuts.pop(0) if len(cuts) > 1 else cuts[0]])

    def _refused(self) -> bool:
        if self.server.portal:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(PAGE)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(PAGE)
        elif self.server.refusal:
            self._error(*self.server.refusal)
        return self.server.portal or self.server.refusal is not None

    def _error(self, status: int, code: str, commit: str = "") -> None:
        self.send_response(status)
        for name, value in (("X-Error-Code", code), ("X-Repo-Commit", commit)):
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _json(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[FakeHub]:
    with FakeHub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def use(server: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point the client, which read its environment when it was imported, to a hub and a cache."""
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in (
        ("ENDPOINT", server.url),
        ("HUGGINGFACE_CO_URL_TEMPLATE", template),
        ("HF_HUB_CACHE", str(cache)),
        ("HF_HUB_OFFLINE", False),
        ("HF_HUB_DISABLE_TELEMETRY", False),
    ):
        monkeypatch.setattr(constants, name, value)
    monkeypatch.delenv("HF_HUB_DISABLE_TELEMETRY", raising=False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between its attempts

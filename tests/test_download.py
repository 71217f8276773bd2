import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from scripts import download_weights
from yolact import download as module
from yolact.download import OFFICIAL_WEIGHTS, DownloadError, download, fetch_weights

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves one content under every path but /missing."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.ranges = True
        self.sent: int | None = None  # bytes sent before the connection breaks
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, size = self.server, len(self.server.content)
        server.requests.append(self.headers.get("Range", "all"))
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(asked[1]) if asked and server.ranges else 0
        if self.path == "/missing":
            self.send_error(404)
        elif first >= size > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.end_headers()
        else:
            self.send_response(206 if first else 200)
            self.send_header("Content-Length", str(size - first))
            if first:
                self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
            self.end_headers()
            self.wfile.write(server.content[first:][: server.sent])

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights" / "w.pth"


def fetch(url: str, path: Path, **checks: int | str) -> Path:
    return download(url, path, progress=False, **checks)  # type: ignore[arg-type]


def part(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    return path.with_name(path.name + ".part")


def test_empty_file(server: Server, path: Path) -> None:
    server.content = b""
    assert fetch(server.url, path, expected_bytes=0).read_bytes() == b""


def test_whole_file_and_nothing_else(server: Server, path: Path) -> None:
    assert fetch(server.url, path, expected_bytes=len(CONTENT), sha256=SHA256.upper()) == path
    path.unlink()
    assert fetch(server.url, path, sha256=SHA256[:8]) == path
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("have", "ranges", "requests"),
    [
        (CONTENT[:1], True, ["bytes=1-"]),
        (CONTENT[:500_000], True, ["bytes=500000-"]),
        (CONTENT[:500_000], False, ["bytes=500000-"]),  # the server starts afresh
        (CONTENT, True, [f"bytes={len(CONTENT)}-"]),  # complete: 416
        (CONTENT + b"more", True, [f"bytes={len(CONTENT) + 4}-", "all"]),  # too long: 416
        (b"", True, ["all"]),
    ],
)
def test_resume(server: Server, path: Path, have: bytes, ranges: bool, requests: list[str]) -> None:
    part(path).write_bytes(have)
    server.ranges = ranges
    fetch(server.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert server.requests == requests
    assert list(path.parent.iterdir()) == [path]


def test_a_broken_connection_is_continued(server: Server, path: Path) -> None:
    server.sent = 300_000
    with pytest.raises(DownloadError, match=f"after 300000 of {len(CONTENT)} bytes"):
        fetch(server.url, path)
    assert not path.exists()
    server.sent = None
    fetch(server.url, path, sha256=SHA256)
    assert server.requests == ["all", "bytes=300000-"]


def test_an_interrupt_keeps_what_came(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks = iter([CONTENT[:100_000]])

    def read(response: HTTPResponse, amount: int) -> bytes:
        if chunk := next(chunks, None):
            return chunk
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(HTTPResponse, "read", read)
        fetch(server.url, path)
    assert [file.name for file in path.parent.iterdir()] == ["w.pth.part"]
    assert fetch(server.url, path, sha256=SHA256).read_bytes() == CONTENT
    assert server.requests == ["all", "bytes=100000-"]


@pytest.mark.parametrize(
    ("place", "checks", "reason"),
    [
        ("/missing", {}, "404"),
        ("/w.pth", {"expected_bytes": 7}, f"offers {len(CONTENT)} bytes instead of 7"),
        ("/w.pth", {"sha256": "00ff"}, f"is {SHA256} instead of 00ff"),
    ],
)
def test_refusals(
    server: Server, path: Path, place: str, checks: dict[str, int | str], reason: str
) -> None:
    path.parent.mkdir()
    path.write_bytes(b"old")
    with pytest.raises(DownloadError, match=reason) as caught:
        fetch(server.url + place, path, **checks)
    message = str(caught.value)
    assert server.url + place in message
    assert str(path) in message
    assert "\n" not in message
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("url", ["", "w.pth", "file:///w.pth", "http://", "http://127.0.0.1:1/w"])
def test_no_server(path: Path, url: str) -> None:
    with pytest.raises(DownloadError, match=re.escape(str(path))):
        fetch(url, path)


@pytest.mark.parametrize("already", [[], ["weights"]])
def test_no_folder_is_left_by_a_failure(server: Server, tmp_path: Path, already: list[str]) -> None:
    for name in already:
        (tmp_path / name).mkdir()
    with pytest.raises(DownloadError, match="404"):
        fetch(server.url + "/missing", tmp_path / "weights" / "of" / "w.pth")
    assert [file.name for file in tmp_path.rglob("*")] == already
    server.sent = 5
    with pytest.raises(DownloadError, match="broke after 5"):
        fetch(server.url, tmp_path / "weights" / "of" / "w.pth")
    assert (tmp_path / "weights" / "of" / "w.pth.part").read_bytes() == CONTENT[:5]


def test_a_silent_server(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.1)
    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)  # never answers
    with listener, pytest.raises(DownloadError, match="timed out"):
        fetch(f"http://127.0.0.1:{listener.server_address[1]}/w", path)


def test_many_at_once_do_no_harm(server: Server, path: Path) -> None:
    threads = [threading.Thread(target=fetch, args=(server.url, path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]


def test_waiting_for_another_process_finds_its_file(server: Server, path: Path) -> None:
    path.parent.mkdir()
    with module._locked(path.with_name(".w.pth.lock")):
        thread = threading.Thread(target=fetch, args=(server.url, path))
        thread.start()
        thread.join(0.05)
        path.write_bytes(b"fetched by the other")
    thread.join()
    assert path.read_bytes() == b"fetched by the other"
    assert server.requests == []


@pytest.mark.parametrize("name", OFFICIAL_WEIGHTS)
def test_published_files(name: str) -> None:
    official = OFFICIAL_WEIGHTS[name]
    assert official.file_name.startswith(name)
    if name.startswith("maskrcnn"):
        assert official.url.startswith("https://download.pytorch.org/models/")
        assert len(official.sha256 or "") == 8
    else:
        assert official.url.endswith(f"/resolve/main/{official.file_name}?download=true")


def test_fetch_weights(server: Server, tmp_path: Path) -> None:
    path = fetch_weights("yolact_base", tmp_path, base_url=server.url + "/")
    assert path == tmp_path / "yolact_base_54_800000.pth"
    assert path.read_bytes() == CONTENT
    path.write_bytes(b"mine")
    assert fetch_weights("yolact_base", tmp_path, base_url=server.url).read_bytes() == b"mine"
    assert len(server.requests) == 1
    with pytest.raises(KeyError, match="yolact_im700"):
        fetch_weights("yolact", tmp_path)


def test_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "darknet53.pth").touch()
    assert download_weights.main(["darknet53", "--folder", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "darknet53.pth")
    assert download_weights.main(["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(OFFICIAL_WEIGHTS)
    for wrong in ([], ["yolact"]):
        with pytest.raises(SystemExit, match="2"):
            download_weights.main(wrong)

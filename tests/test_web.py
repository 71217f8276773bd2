"""Images behind web addresses, from a server that may answer anything."""

from __future__ import annotations

import io
import json
import threading
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage
from support.rectangles import RectangleDetector

from data.video.reader import open_video
from yolact.cli.predict import segment_image
from yolact.cli.saving import SaveOptions
from yolact.drawing.detections import draw_detections
from yolact.results.thresholds import Thresholds
from yolact.sources import web
from yolact.sources.kinds import kind_of
from yolact.sources.one import read

PIXELS = np.arange(300, dtype=np.uint8)[:300].reshape(10, 10, 3)


def png() -> bytes:
    buffer = io.BytesIO()
    PilImage.fromarray(PIXELS).save(buffer, "PNG")
    return buffer.getvalue()


CONTENT = png()
REDIRECTIONS = {
    "/moved": "/photo.png",
    "/to-file": "file:///etc/passwd",
    "/to-ftp": "ftp://127.0.0.1/photo.png",
    "/loop": "/loop",
}


class Handler(BaseHTTPRequestHandler):
    """Answers by the path."""

    server: Server

    def do_GET(self) -> None:
        answers = {"/missing": self.miss, "/slow": self.sleep, "/drip": self.drip}
        kinds = {"/page": "text/html", "/live": "multipart/x-mixed-replace; boundary=x"}
        if self.path in REDIRECTIONS:
            self.send_response(302)
            self.send_header("Location", REDIRECTIONS[self.path])
            self.end_headers()
        elif self.path in answers:
            answers[self.path]()
        else:
            content = b"no image" if self.path == "/odd.jpg" else CONTENT
            length = {"/short": len(CONTENT) + 1, "/huge": 10**12}.get(self.path, len(content))
            self.send_response(200)
            self.send_header("Content-Type", kinds.get(self.path, "application/octet-stream"))
            if self.path != "/endless":
                self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(content * (1000 if self.path == "/endless" else 1))

    def miss(self) -> None:
        self.send_error(404)

    def sleep(self) -> None:
        self.server.ended.wait(30)

    def drip(self) -> None:
        self.send_response(200)
        self.end_headers()
        while not self.server.ended.wait(0.02):
            self.wfile.write(b"x")

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ended = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are expected."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.ended.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SILENCE", 0.2), ("PATIENCE", 0.2), ("MAX_BYTES", 10_000)):
        monkeypatch.setattr(web, name, value)


@pytest.mark.parametrize(
    "path", ["/photo.png", "/photo", "//a//b.png?q=1:2#x", "/moved", "/a ü.png"]
)
def test_an_image_and_its_address(url: str, path: str) -> None:
    shot = read(url + path)
    assert (shot.image == PIXELS).all()
    assert shot.source == url + path
    assert not shot.is_file


def test_a_password_is_in_no_result(url: str, tmp_path: Path) -> None:
    address = url.replace("http://", "http://me:hidden@") + "/photo.png"
    detector: Any = RectangleDetector()
    segment_image(
        *(address, tmp_path / "a.png", detector, draw_detections, Thresholds()),
        SaveOptions(("json", "csv"), quiet=True),
    )
    (entry,) = tmp_path.glob("json/*.json")
    assert json.loads(entry.read_text())["source"] == address.replace("hidden", "***")
    assert not any(b"hidden" in file.read_bytes() for file in tmp_path.rglob("*.*"))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/missing", "HTTP error 404 Not Found"),
        ("/page", "the server sent a web page"),
        ("/live", "the server sends a video (multipart/x-mixed-replace)"),
        ("/huge", "1,000,000,000,000 bytes exceed 10,000"),
        ("/endless", "more than 10,000 bytes"),
        ("/short", "without sending complete message body"),
        ("/slow", "timed out"),
        ("/drip", "not finished after 0 seconds"),
        ("/to-file", "unsupported protocol 'file://'"),
        ("/to-ftp", "unsupported protocol 'ftp://'"),
        ("/loop", "Exceeded maximum allowed redirects"),
        ("/odd.jpg", "as an image: not a known image format"),
    ],
)
def test_anything_else_is_one_line(url: str, path: str, said: str) -> None:
    with pytest.raises((ValueError, OSError)) as caught:
        read(url + path)
    assert url + path in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://127.0.0.1:1/a.png", "Connection refused"),
        ("http://", "and a host"),
        ("http://127.0.0.1:port/a.png", "port"),
        ("ftp://host/a.png", "expected an address that begins with http:// or https://"),
        ("file:///etc/passwd", "expected an address that begins with http"),
        ("rtsp://host/a.png", "expected an address that begins with http"),
    ],
)
def test_addresses_of_nothing(address: str, said: str) -> None:
    with pytest.raises(OSError, match=f"cannot fetch {address}: .*{said}"):
        read(address)


@pytest.mark.parametrize("sign", ["", "#", "/", "?"])
@pytest.mark.parametrize("work", [read, open_video])
def test_no_traceback_shows_a_password(sign: str, work: Callable[[str], object]) -> None:
    """Neither the error nor its cause, as programs print it."""
    with pytest.raises((OSError, ValueError), match=r"//me:\*\*\*@127") as caught:
        work(f"http://me:secret{sign}secret@127.0.0.1:1/a.png")
    assert "secret" not in "".join(traceback.format_exception(caught.value, limit=0))


@pytest.mark.parametrize(
    ("source", "as_image", "as_video"),
    [
        ("http://h/a.JPG", "image", "image"),
        ("http://h/a.jpg?size=3", "image", "image"),
        ("https://h/a.mp4", "video", "video"),
        ("https://h/live", "image", "video"),
        ("https://h", "image", "video"),
        ("rtsp://h/a.jpg", "video", "video"),
        ("absent.bin", "image", "video"),
        ("absent.jpg", "image", "image"),
        ("absent", "images", "images"),
        ("a*.jpg", "images", "images"),
        ("0", "video", "video"),
    ],
)
def test_kinds(source: str, as_image: str, as_video: str) -> None:
    assert (kind_of(source), kind_of(source, otherwise="video")) == (as_image, as_video)

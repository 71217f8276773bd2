"""The endpoint of `yolact serve`, without a browser."""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image as PilImage

from data.images import read_image
from layers.masks import assemble_masks
from yolact import Predictor
from yolact.explain import prototypes_of

pytest.importorskip("fastapi", reason="needs the extra 'serve'")
pytest.importorskip("httpx2", reason="needs httpx2, which comes with the extra 'dev'")

import httpx2  # noqa: E402
from fastapi.testclient import TestClient  # noqa: E402
from support.tiny_server import (  # noqa: E402
    ALL,
    JPEG,
    PNG,
    client_of,
    encoded,
    picture,
    refusal,
    tiny_predictor,
)

from yolact.serve.app import PAGE, STYLE, make_app  # noqa: E402
from yolact.serve.guard import hosts_for  # noqa: E402
from yolact.serve.upload import FORMATS  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent

FORM = "multipart/form-data; boundary=x"


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return tiny_predictor()


@pytest.fixture(scope="module")
def client(predictor: Predictor) -> TestClient:
    return client_of(predictor, rate=1e6, burst=10**6)


def header_of_png(side: int) -> bytes:
    """A PNG that says it is a square of this side, and has no pixels."""
    header = b"IHDR" + side.to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    chunks = b"\0\0\0\r" + header + zlib.crc32(header).to_bytes(4, "big") + bytes(4) + b"IDAT"
    return b"\x89PNG\r\n\x1a\n" + chunks + zlib.crc32(b"IDAT").to_bytes(4, "big")


def test_no_objects(client: TestClient) -> None:
    answer = client.post("/api/segment?score_threshold=1", content=PNG).json()
    assert (answer["width"], answer["height"], answer["objects"]) == (60, 40, [])


def test_the_objects_are_those_of_the_predictor(client: TestClient, predictor: Predictor) -> None:
    answer = client.post(ALL, content=PNG).json()
    found = predictor(read_image(PNG), 0, 5)
    assert len(answer["objects"]) == len(found) == 5
    for number, each in enumerate(answer["objects"]):
        assert (each["name"], each["label"]) == (found.names()[number], int(found.labels[number]))
        assert each["score"] == pytest.approx(float(found.scores[number]), abs=1e-4)
        assert each["box"] == pytest.approx(found.boxes[number].tolist(), abs=0.01)
        assert each["segmentation"] == found.rle()[number]
        assert each["area"] == found.areas[number]
        lines = [[part["outline"], *part["holes"]] for part in each["polygons"]]
        expected = found.polygons()[number]
        assert lines == [[r.reshape(-1).tolist() for r in (p.outline, *p.holes)] for p in expected]


@pytest.mark.parametrize(
    ("masks", "given"),
    [
        ("all", {"polygons", "segmentation"}),
        ("polygons", {"polygons"}),
        ("rle", {"segmentation"}),
        ("none", set()),
    ],
)
def test_masks_in_the_form_that_is_asked_for(
    client: TestClient, masks: str, given: set[str]
) -> None:
    first, *_ = client.post(f"{ALL}&masks={masks}", content=PNG).json()["objects"]
    assert {"polygons", "segmentation"} & first.keys() == given
    assert len(first["coefficients"]) == 32


def test_tolerance_leaves_out_points(client: TestClient) -> None:
    content = encoded(picture(size=(300, 200)))

    def points(query: str) -> int:
        objects = client.post(ALL + query, content=content).json()["objects"]
        return sum(len(part["outline"]) for each in objects for part in each["polygons"])

    assert points("&tolerance=3") < points("")


def test_coefficients_and_prototypes_make_the_masks(
    client: TestClient, predictor: Predictor
) -> None:
    objects = client.post(ALL, content=PNG).json()["objects"]
    answer = client.post("/api/prototypes", content=PNG).json()
    grey = read_image(base64.b64decode(answer["png"]))[..., 0]
    shape = (len(answer["peaks"]), answer["height"], answer["width"])
    peaks = torch.tensor(answer["peaks"])[:, None, None]
    prototypes = torch.from_numpy(grey.reshape(shape).astype(np.float32)) / 255 * peaks
    exact = prototypes_of(predictor, read_image(PNG))
    assert (prototypes - exact).abs().max() <= float(peaks.max()) / 255
    weights = torch.tensor([each["coefficients"] for each in objects])
    boxes = torch.tensor([each["box"] for each in objects]) / torch.tensor([60, 40, 60, 40])
    soft = assemble_masks(prototypes, weights, boxes)
    assert (soft - predictor(read_image(PNG), 0, 5).soft_masks).abs().mean() < 0.02


@pytest.mark.parametrize("format", (*FORMATS, "MPO"))
def test_every_format_as_a_body_and_as_a_form(client: TestClient, format: str) -> None:
    content = encoded(picture(), format)
    named_wrong = {"image": ("holiday.txt", content, "text/plain")}  # the content counts
    form = httpx2.Request("POST", "http://x", files=named_wrong)
    type_ = form.headers["Content-Type"].replace("multipart/form-data", "Multipart/Form-Data")
    for answer in (
        client.post(ALL, content=content),
        client.post(ALL, files=named_wrong),
        client.post(ALL, content=form.read(), headers={"Content-Type": type_}),
    ):
        assert answer.status_code == 200, answer.text
        assert (answer.json()["width"], answer.json()["height"]) == (60, 40)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "I;16", "CMYK"])
def test_every_kind_of_pixel(client: TestClient, mode: str) -> None:
    image = picture("CMYK") if mode == "CMYK" else picture("L" if mode == "I;16" else mode)
    content = encoded(image, "JPEG" if mode == "CMYK" else "PNG")
    if mode == "I;16":
        content = cv2.imencode(".png", np.full((40, 60), 40_000, np.uint16))[1].tobytes()
    answer = client.post(ALL, content=content).json()
    assert (answer["width"], answer["height"]) == (60, 40)


def test_the_rotation_of_a_camera_is_applied(client: TestClient) -> None:
    exif = PilImage.Exif()
    exif[0x0112] = 6
    content = encoded(picture(), "JPEG", exif=exif)
    answer = client.post(ALL, content=content).json()
    assert (answer["width"], answer["height"]) == (40, 60)


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        (b"", 400, "no image"),
        (b"hello", 415, "not an image of a known format; expected BMP"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "not an image"),
        (b"\0\0\0 ftypavif\0\0\0\0avifmif1miaf", 415, "not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "not an image"),
        (JPEG[:-400], 422, "cannot read the given bytes as an image"),
        (PNG[:-400], 422, "cannot read the given bytes as an image"),
        (header_of_png(300), 422, "cannot read"),
        (header_of_png(7_100), 413, "more than 50,000,000 pixels"),
        (header_of_png(13_400), 413, "more than 50,000,000 pixels"),
        (header_of_png(60_000), 413, "more than 50,000,000 pixels"),
    ],
)
def test_what_is_no_image_is_refused(
    client: TestClient, content: bytes, status: int, reason: str
) -> None:
    for path in ("/api/segment", "/api/prototypes"):
        assert reason in refusal(client.post(path, content=content), status)


def chunks(content: bytes) -> Iterator[bytes]:
    yield from (content[i : i + 100] for i in range(0, len(content), 100))


@pytest.mark.parametrize(
    "body",
    [{"content": PNG}, {"content": chunks(PNG)}, {"files": {"image": PNG}}],
    ids=["declared", "in chunks", "in a form"],
)
def test_a_body_too_large(predictor: Predictor, body: dict[str, Any]) -> None:
    small = client_of(predictor, upload_bytes=1000)
    assert "more than 1,000 bytes" in refusal(small.post("/api/segment", **body), 413)


def test_an_image_too_large(predictor: Predictor) -> None:
    small = client_of(predictor, pixels=2399)
    assert "more than 2,399 pixels" in refusal(small.post("/api/segment", content=PNG), 413)


@pytest.mark.parametrize(
    ("method", "path", "request_", "status", "reason"),
    [
        ("GET", "/api/segment", {}, 405, "Method Not Allowed"),
        ("POST", "/api/model", {}, 405, "Method Not Allowed"),
        ("DELETE", "/", {}, 405, "Method Not Allowed"),
        ("GET", "/api/nothing", {}, 404, "Not Found"),
        ("GET", "/page/../app.py", {}, 404, "Not Found"),
        ("GET", "/page/%2e%2e/app.py", {}, 404, "Not Found"),
        ("GET", "/docs", {}, 404, "Not Found"),
        ("GET", "/page", {}, 404, "Not Found"),
        ("GET", "/api/model/", {}, 404, "Not Found"),
        ("POST", "/api/segment?top_k=0", {"content": PNG}, 422, "top_k: "),
        ("POST", "/api/segment?top_k=101", {"content": PNG}, 422, "top_k: "),
        ("POST", "/api/segment?score_threshold=2", {"content": PNG}, 422, "score_threshold: "),
        ("POST", "/api/segment?tolerance=nan", {"content": PNG}, 422, "tolerance: "),
        ("POST", "/api/segment?masks=some", {"content": PNG}, 422, "masks: "),
        ("POST", "/api/segment?score_treshold=1", {"content": PNG}, 422, "score_treshold: unknown"),
        ("POST", "/api/segment?top_k=1&top_k=2", {"content": PNG}, 422, "top_k: given more than"),
        ("POST", "/api/segment", {"files": {"image": PNG}, "data": {"top_k": "1"}}, 422, "top_k: "),
        ("POST", "/api/prototypes?top_k=1", {"content": PNG}, 422, "top_k: unknown; parameters"),
        ("POST", "/api/segment", {"files": {"photo": PNG}}, 400, "as the field 'image'"),
        ("POST", "/api/segment", {"data": {"image": "text"}}, 415, "not an image"),
        (
            "POST",
            "/api/segment",
            {"files": [("image", PNG), ("image", PNG)]},
            400,
            "Too many files",
        ),
        (
            "POST",
            "/api/segment",
            {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
            400,
            "boundary",
        ),
        *(
            ("POST", "/api/segment", {"content": body, "headers": {"Content-Type": FORM}}, 400, why)
            for body in (b"--x\r\n\x9bA: b\r\n\r\nc\r\n--x--", b"--x\r\nA: b\rc", b"--y\r\n")
            for why in ("Invalid multipart data",)
        ),
    ],
)
def test_wrong_requests(
    client: TestClient, method: str, path: str, request_: dict[str, Any], status: int, reason: str
) -> None:
    answer = client.request(method, path, follow_redirects=False, **request_)
    assert reason in refusal(answer, status)


def test_a_mistake_of_ours_tells_nothing(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(f"{ROOT}/secret.pth is broken")

    monkeypatch.setattr(predictor, "segment", fail)
    app = make_app(predictor, "tiny")
    answer = TestClient(app, raise_server_exceptions=False).post("/api/segment", content=PNG)
    assert refusal(answer, 500).startswith("internal error")


LOOPBACK = hosts_for("127.0.0.1")


@pytest.mark.parametrize(
    ("host", "origin", "hosts", "status"),
    [
        ("127.0.0.1:8000", None, LOOPBACK, 200),
        ("localhost", None, LOOPBACK, 200),
        ("LOCALHOST:8000", "http://localhost:8000", LOOPBACK, 200),
        ("[::1]:8000", "http://[::1]:8000", LOOPBACK, 200),
        ("evil.example", None, LOOPBACK, 421),
        ("localhost.evil.example", None, LOOPBACK, 421),
        ("[::1", None, LOOPBACK, 421),
        ("evil@localhost", None, LOOPBACK, 421),
        ("localhost/evil", None, LOOPBACK, 421),
        ("localhost#evil", None, LOOPBACK, 421),
        ("", None, LOOPBACK, 421),
        ("localhost", "http://evil.example", LOOPBACK, 403),
        ("localhost:8000", "http://localhost:9000", LOOPBACK, 403),
        ("localhost", "null", LOOPBACK, 403),
        ("server.example", None, None, 200),
        ("server.example", "http://server.example", None, 200),
        ("server.example", "http://evil.example", None, 403),
    ],
)
@pytest.mark.parametrize("front", ["", "Front.example"])
def test_other_sites_are_turned_away(
    predictor: Predictor,
    host: str,
    origin: str | None,
    hosts: frozenset[str] | None,
    status: int,
    front: str,
) -> None:
    headers = {"Host": host} | ({"Origin": origin} if origin else {})
    answer = client_of(predictor, hosts, front).post(ALL, content=PNG, headers=headers)
    if status != 200:
        refusal(answer, status)
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "front.example"])
@pytest.mark.parametrize(
    ("front", "origin", "status"),
    [
        ("front.example", "https://front.example", 200),
        ("front.example", "https://front.example:8443", 200),
        ("Front.example", "https://FRONT.example", 200),
        ("front.example", "https://evil.example", 403),
        ("front.example", "https://front.example.evil.example", 403),
        ("front.example", "https://evil.example@front.example", 403),
        ("front.example", "https://[front.example", 403),
        ("front.example", "null", 403),
    ],
)
def test_a_server_in_front(
    predictor: Predictor, host: str, front: str, origin: str, status: int
) -> None:
    """It forwards its own name as the host, or the address that it knows."""
    headers = {"Host": host, "Origin": origin}
    answer = client_of(predictor, LOOPBACK, front).post(ALL, content=PNG, headers=headers)
    assert answer.status_code == status
    if status == 403:
        assert "--front" in refusal(answer, 403)


@pytest.mark.parametrize(
    ("address", "is_open"),
    [("127.0.0.1", False), ("::1", False), ("localhost", False), ("0.0.0.0", True), ("::", True)],
)
def test_only_loopback_is_called_by_few_names(address: str, is_open: bool) -> None:
    assert (hosts_for(address) is None) == is_open


def test_the_model_is_described(client: TestClient) -> None:
    info = client.get("/api/model").json()
    assert client.head("/api/model").status_code == 200
    assert (info["name"], info["image_size"], info["prototypes"]) == ("tiny", 64, True)
    assert info["classes"][1] == {"name": "dog", "category_id": 2}
    assert all(re.fullmatch("#[0-9a-f]{6}", color) for color in info["palette"])


def test_a_model_without_prototypes(predictor: Predictor) -> None:
    from support.tiny_mask_rcnn import build

    client = client_of(Predictor(build()))
    assert client.get("/api/model").json()["prototypes"] is False
    objects = client.post(ALL, content=PNG).json()["objects"]
    assert objects and "coefficients" not in objects[0]
    assert "no prototypes" in refusal(client.post("/api/prototypes", content=PNG), 404)


def test_the_schema_tells_all(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    assert schema["paths"].keys() == {"/api/model", "/api/segment", "/api/prototypes"}
    post = schema["paths"]["/api/segment"]["post"]
    assert {p["name"] for p in post["parameters"]} == {
        "score_threshold", "top_k", "masks", "tolerance",
    }  # fmt: skip
    assert "multipart/form-data" in post["requestBody"]["content"]
    guide = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
    statuses = guide.partition("with its status:")[2].partition("\n\n")[0]
    assert {"200", *re.findall(r"\b[45]\d\d\b", statuses)} == post["responses"].keys()


def page_files() -> list[Path]:
    return [path for folder in (PAGE, STYLE) for path in folder.rglob("*") if path.is_file()]


def test_the_page_is_whole_and_needs_no_other_server(client: TestClient) -> None:
    page = client.get("/")
    assert client.head("/").headers["content-length"] == page.headers["content-length"]
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for path in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert client.get(f"/{path.partition('#')[0]}").status_code == 200, path
    for file in page_files():
        text = file.read_text().replace("http://www.w3.org/", "")
        assert not re.search(r"https?://|@import|\bstyle=|\bon\w+=\"", text), file
        for path in re.findall(r'from "(\.[^"]+)"', text):
            assert (file.parent / path).is_file(), (file, path)


def test_the_files_of_the_page_are_small() -> None:
    long = [f.name for f in page_files() if len(f.read_text().splitlines()) > 260]
    assert not long


def test_icons_that_are_used_are_there() -> None:
    used = re.findall(r"icons\.svg#(\w+)", (PAGE / "index.html").read_text())
    known = re.findall(r'<symbol id="(\w+)"', (PAGE / "icons.svg").read_text())
    assert set(used) == set(known)

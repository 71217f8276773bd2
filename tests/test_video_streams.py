"""Streams from servers on this machine, which stall, break off and come back."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import pytest
from support.numbered_clip import number_of, picture, write_clip
from support.rtsp_camera import RtspCamera
from support.sound_clip import write_sound_clip

from data.files import without_password
from data.video.reader import open_video

Answer = Callable[[BaseHTTPRequestHandler, int], None]


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], str]]:
    """Return the address of a server whose answer gets the request and its number, from 0 on."""
    servers, done = [], threading.Event()

    def start(answer: Answer) -> str:
        count = iter(range(1000))

        class Handler(BaseHTTPRequestHandler):
            stopped = done

            def do_GET(self) -> None:
                answer(self, next(count))

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    done.set()
    for server in servers:
        server.shutdown()
        server.server_close()


def send(request: BaseHTTPRequestHandler, content: bytes, *, most: int | None = None) -> None:
    """Answer with a file, from the byte that was asked for on; break off after `most` bytes."""
    asked = re.match(r"bytes=(\d+)-", request.headers.get("Range", ""))
    start = int(asked[1]) if asked else 0
    request.send_response(206 if start else 200)
    request.send_header("Content-Length", str(len(content) - start))
    request.send_header("Accept-Ranges", "bytes")
    request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    request.end_headers()
    request.wfile.write(content[start:][:most])


def stall(request: BaseHTTPRequestHandler) -> None:
    request.wfile.flush()
    request.stopped.wait(20)


def begin(request: BaseHTTPRequestHandler, kind: str = "video/mp2t") -> None:
    request.send_response(200)
    request.send_header("Content-Type", kind)
    request.end_headers()


def test_a_file_from_the_web(tmp_path: Path, serve: Callable[[Answer], str]) -> None:
    content = write_sound_clip(tmp_path / "a.mp4", seconds=1).read_bytes()
    with open_video(serve(lambda request, _: send(request, content)) + "/a.mp4?x=1") as source:
        assert (source.is_live, source.path) == (False, None)
        assert source.sound is not None
        assert len(list(source)) == 25


def test_an_image_from_the_web(serve: Callable[[Answer], str]) -> None:
    content = cv2.imencode(".jpg", picture(7))[1].tobytes()
    with open_video(serve(lambda request, _: send(request, content)) + "/a.jpg") as source:
        assert [number_of(frame) for frame in source] == [7]


@pytest.mark.parametrize("stalls", [False, True])
def test_a_file_that_breaks_off_goes_on(
    tmp_path: Path, serve: Callable[[Answer], str], stalls: bool
) -> None:
    content = write_clip(tmp_path / "a.mkv", 25).read_bytes()

    def answer(request: BaseHTTPRequestHandler, number: int) -> None:
        send(request, content, most=len(content) // 2 if number == 0 else None)
        if stalls and number == 0:
            stall(request)

    with open_video(serve(answer) + "/a.mkv", timeout=2) as source:
        assert [number_of(frame) for frame in source] == list(range(25))


def test_a_file_that_stays_away_is_an_error(tmp_path: Path, serve: Callable[[Answer], str]) -> None:
    content = write_clip(tmp_path / "a.mkv", 25).read_bytes()

    def answer(request: BaseHTTPRequestHandler, number: int) -> None:
        if number == 0:
            send(request, content, most=len(content) // 2)
        else:
            request.send_error(503)

    with open_video(serve(answer) + "/a.mkv", timeout=1) as source:
        frames = []
        with pytest.raises(OSError, match=r"/a.mkv: (ends early|no data)"):
            for frame in source:
                frames.append(number_of(frame))
    assert frames == list(range(len(frames)))
    assert 5 < len(frames) < 20


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("name", ["a.ts", "a.mkv"])
def test_a_stream_that_ends(
    tmp_path: Path, serve: Callable[[Answer], str], name: str, is_chunked: bool
) -> None:
    content = write_clip(tmp_path / name, 25).read_bytes()

    def answer(request: BaseHTTPRequestHandler, number: int) -> None:
        if is_chunked:
            request.protocol_version = "HTTP/1.1"
            request.send_response(200)
            request.send_header("Transfer-Encoding", "chunked")
            request.end_headers()
            request.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content))
        else:
            begin(request)
            request.wfile.write(content)

    with open_video(serve(answer), timeout=1) as source:
        assert [number_of(frame) for frame in source] == list(range(25))


def test_a_stream_that_stalls(tmp_path: Path, serve: Callable[[Answer], str]) -> None:
    content = write_clip(tmp_path / "a.ts", 25).read_bytes()

    def answer(request: BaseHTTPRequestHandler, number: int) -> None:
        begin(request)
        if number == 0:
            request.wfile.write(content)
        stall(request)

    start = time.monotonic()
    with open_video(serve(answer) + "/live", timeout=1) as source:
        frames = []
        with pytest.raises(
            OSError, match=r"/live: no data for \d s \(it stalled\); 2\d frames came"
        ) as error:
            for frame in source:
                frames.append(number_of(frame))
    assert "\n" not in str(error.value)
    assert frames == list(range(len(frames)))
    assert len(frames) >= 23  # the decoder of a live stream may keep the latest
    assert time.monotonic() - start < 10


def test_a_stream_that_comes_back(tmp_path: Path, serve: Callable[[Answer], str]) -> None:
    content = write_clip(tmp_path / "a.ts", 25).read_bytes()

    def answer(request: BaseHTTPRequestHandler, number: int) -> None:
        begin(request)
        request.wfile.write(content)
        if number == 0:
            stall(request)

    with open_video(serve(answer), timeout=1) as source:
        seen = [(number_of(frame), source.seconds) for frame in source]
    numbers, times = zip(*seen, strict=True)
    assert numbers[-25:] == tuple(range(25))
    assert len(numbers) > 45
    assert list(times) == sorted(times)
    assert times[-1] - times[0] < 10


def multipart(frames: range, pause: float, request: BaseHTTPRequestHandler) -> None:
    """Send what a network camera sends."""
    begin(request, "multipart/x-mixed-replace; boundary=frame")
    for number in frames:
        jpeg = cv2.imencode(".jpg", picture(number))[1].tobytes()
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
        request.wfile.write(head.encode() + jpeg + b"\r\n")
        request.wfile.flush()
        time.sleep(pause)


def test_a_camera_of_jpegs_that_breaks_off(serve: Callable[[Answer], str]) -> None:
    def answer(request: BaseHTTPRequestHandler, number: int) -> None:
        if number < 2:
            multipart(range(12 * number, 12 * number + 12), 0.04, request)
        else:
            request.send_error(404)

    with open_video(serve(answer), timeout=1) as source:
        assert source.is_live
        seen = []
        with pytest.raises(OSError, match="it broke off"):
            for frame in source:
                seen.append((number_of(frame), source.seconds))
    assert [number for number, _ in seen] == list(range(24))
    assert [time for _, time in seen] == sorted(time for _, time in seen)


def test_a_recording_of_such_a_camera_ends(serve: Callable[[Answer], str]) -> None:
    with open_video(serve(lambda request, _: multipart(range(20), 0, request))) as source:
        assert [number_of(frame) for frame in source] == list(range(20))


def hls(segments: list[str], end: bool = True) -> bytes:
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1", "#EXT-X-MEDIA-SEQUENCE:0"]
    lines += [line for name in segments for line in ("#EXTINF:1.0,", name)]
    return "\n".join([*lines, *(["#EXT-X-ENDLIST"] if end else [])]).encode() + b"\n"


def test_hls(tmp_path: Path, serve: Callable[[Answer], str]) -> None:
    content = write_clip(tmp_path / "a.ts", 25).read_bytes()
    files = {"/a.m3u8": hls(["0.ts"]), "/0.ts": content}
    with open_video(serve(lambda request, _: send(request, files[request.path])) + "/a.m3u8") as s:
        assert not s.is_live
        assert [number_of(frame) for frame in s] == list(range(25))


def test_a_playlist_reads_no_file_of_this_machine(
    tmp_path: Path, serve: Callable[[Answer], str]
) -> None:
    secret = write_clip(tmp_path / "secret.ts", 25)
    for name in (f"file://{secret}", str(secret), f"concat:{secret}", f"subfile:{secret}"):
        address = serve(lambda request, _, name=name: send(request, hls([name])))
        with pytest.raises(ValueError, match="cannot read the stream"):
            open_video(address + "/a.m3u8", timeout=2)


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9/clip.mp4", "rtsp://me:secret@127.0.0.1:9/live", "no://x/y"]
)
def test_unreachable_streams(address: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="cannot read the stream") as error:
        open_video(address, timeout=2)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("clip.mp4", "clip.mp4"),
        ("rtsp://camera/live", "rtsp://camera/live"),
        ("rtsp://me@camera/live", "rtsp://me@camera/live"),
        ("rtsp://me:secret@camera:554/live", "rtsp://me:***@camera:554/live"),
        ("no rtsp://me:se:c@ret@camera/live: it", "no rtsp://me:***@camera/live: it"),
        ("http://c/v?user=me&password=secret&x=1", "http://c/v?user=me&password=***&x=1"),
        ("http://c/v?Token=secret", "http://c/v?Token=***"),
        ("rtsp://me:se#cret@camera/live", "rtsp://me:***@camera/live"),
        ("rtsp://me:se/cr?et@camera:554/live", "rtsp://me:***@camera:554/live"),
        ("rtsp://me:12#3@camera", "rtsp://me:***@camera"),
        ("no rtsp://me:se cret@camera/live", "no rtsp://me:***@camera/live"),
        ("http://c:80 and me@home", "http://c:80 and me@home"),
        ("http://c:8080/a@2x.png", "http://c:8080/a@2x.png"),
        ("http://c:80/a and me@home", "http://c:80/a and me@home"),
        ("http://c/?loginuse=me&loginpas=secret", "http://c/?loginuse=me&loginpas=***"),
        (
            "http://c/v?X-Amz-Signature=ab&sig=c&key=d",
            "http://c/v?X-Amz-Signature=***&sig=***&key=***",
        ),
        ("http://c/v?t=12:30@home", "http://c/v?t=12:30@home"),
    ],
)
def test_passwords_are_masked(text: str, shown: str) -> None:
    assert without_password(text) == shown


@pytest.mark.parametrize(
    "part", ["a", "a.b-c+", "rtsp", "?token=", "a://b:", "rtsp://me:", "a://b:c/"]
)
def test_looking_for_passwords_takes_no_square_of_time(part: str) -> None:
    """Names of files and classes, which may be long, are looked through as well."""
    text = part * (2_000_000 // len(part))
    assert len(without_password(text)) <= len(text)


@pytest.mark.parametrize("breaks", ["stalls", "closes"])
def test_an_rtsp_camera_comes_back_and_is_given_up(breaks: str) -> None:
    def after(_: object) -> None:
        if breaks == "stalls":
            camera.done.wait(20)

    camera = RtspCamera([range(40), range(40, 70)], after, pause=0.01)
    seen = []
    try:
        with open_video(camera.address, timeout=1) as source:
            assert source.is_live
            assert "secret" not in source.name
            with pytest.raises(OSError, match=r"rtsp://me:\*\*\*@.*: no data for \d s"):
                for frame in source:
                    seen.append((number_of(frame), source.seconds))
    finally:
        camera.close()
    numbers, times = zip(*seen, strict=True)
    assert len(numbers) > 60
    assert numbers[-1] == 69 % 25
    assert list(times) == sorted(times)
    assert times[-1] < 10

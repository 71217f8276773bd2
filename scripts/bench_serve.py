"""Put load on `yolact serve` on this machine, and check that every answer belongs to its request.

The pictures are generated scenes, all different. Each is segmented directly first; then clients
post them in turn to a server in a process of its own, each waiting for an answer before its next
request. An answer is right if its names and run lengths are those of its own picture.

Example:
  python scripts/bench_serve.py --requests=400 --clients=1,4,8,16
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection
from itertools import chain
from typing import Any

import cv2
import numpy as np

from data.images import Image
from data.shapes.scenes import ShapeScenes
from yolact.cli.common import add_flags, at_least, flag, make_parser, run_command
from yolact.errors import UsageError
from yolact.evaluation.speed import describe_machine
from yolact.predictor import Predictor

MODEL = "yolact_resnet18_shapes"
THRESHOLD = 0.1  # as the page asks
QUERY = f"/api/segment?masks=rle&score_threshold={THRESHOLD}"
HEAD = "| clients | requests/s | p50, ms | p95, ms | p99, ms | turned away | wrong |"

Found = list[tuple[str, str]]
"""Name and run lengths of each object."""


@dataclass(frozen=True)
class Load:
    """What a client, or all together, saw.

    Attributes:
        milliseconds: of each request that was answered.
        turned_away: requests that were answered by 429 or 503, and sent again.
        wrong: answers that are not those of their picture.
    """

    milliseconds: list[float]
    turned_away: int
    wrong: int


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = make_parser("bench_serve.py", __doc__)
    flags = (
        flag("--trained_model", "model name or file, as in yolact serve", str, MODEL),
        flag("--precision", "precision of the server and of the direct prediction", str, "float32"),
        flag("--images", "number of different pictures", int, 50),
        flag("--image_size", "side of the pictures in pixels", int, 480),
        flag("--requests", "requests of all clients together, in each row", int, 400),
        flag("--clients", "numbers of simultaneous clients, one row each", str, "1,4,8,16"),
    )
    add_flags(parser, "options", flags)
    args = parser.parse_args(argv)
    at_least(args, images=1, image_size=16, requests=1)
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", args.clients):
        raise UsageError(f"--clients={args.clients}: expected numbers from 1, as in 1,4,8")
    scenes = ShapeScenes(args.images, args.image_size)
    pictures = [scenes.sample(index).image for index in range(args.images)]
    predictor = Predictor.from_checkpoint(args.trained_model, precision=args.precision)
    expected = direct(predictor, pictures)
    print(describe_machine(predictor.device))
    print(f"{HEAD}\n|{' --- |' * 7}")
    with serving(f"--trained_model={args.trained_model}", f"--precision={args.precision}") as port:
        for clients in map(int, args.clients.split(",")):
            print(row(clients, *load(port, pictures, expected, clients, args.requests)), flush=True)


def direct(predictor: Predictor, pictures: Sequence[Image]) -> list[Found]:
    """Segment the pictures without a server.

    Raises:
        ValueError: two have the same objects, so that answers could not be told apart.
    """
    found = [predictor(picture, THRESHOLD, top_k=100) for picture in pictures]
    told = [_told(each.names(), each.rle()) for each in found]
    if len({str(each) for each in told}) < len(told):
        raise ValueError("two pictures have the same objects: take larger ones, or fewer")
    return told


@contextmanager
def serving(*flags: str) -> Iterator[int]:
    """Run `yolact serve` in a process of its own, without a limit of the rate; give its port."""
    code = "from yolact.cli.main import main; raise SystemExit(main())"
    command = [sys.executable, "-c", code, "serve", "--port=0", "--rate=1e9", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not (port := re.search(r":(\d+) ", line)):
                raise ValueError("the server did not start")
            yield int(port[1])
        finally:
            process.terminate()


def load(
    port: int, pictures: Sequence[Image], expected: Sequence[Found], clients: int, requests: int
) -> tuple[Load, float]:
    """Send requests by so many clients; return what they saw, and the seconds that it took.

    Args:
        port: of the server, on this machine.
        pictures: (H, W, 3) uint8 RGB, sent in turn.
        expected: the objects of each.
        clients: at a time.
        requests: of all together.
    """
    bodies = [cv2.imencode(".png", image[..., ::-1])[1].tobytes() for image in pictures]
    client = partial(_client, port, bodies, expected)
    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        seen = list(threads.map(client, (range(i, requests, clients) for i in range(clients))))
    seconds = time.perf_counter() - start
    times = list(chain.from_iterable(each.milliseconds for each in seen))
    return Load(times, sum(s.turned_away for s in seen), sum(s.wrong for s in seen)), seconds


def row(clients: int, seen: Load, seconds: float) -> str:
    """Return a line of the table."""
    p50, p95, p99 = np.percentile(seen.milliseconds, (50, 95, 99))
    rate = len(seen.milliseconds) / seconds
    return (
        f"| {clients} | {rate:.1f} | {p50:.0f} | {p95:.0f} | {p99:.0f} "
        f"| {seen.turned_away} | {seen.wrong} |"
    )


def _client(
    port: int, bodies: Sequence[bytes], expected: Sequence[Found], numbers: Sequence[int]
) -> Load:
    times, turned_away, wrong = [], 0, 0
    with closing(HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
        for number in numbers:
            place = number % len(bodies)
            status = 0
            while status != 200:
                start = time.perf_counter()
                connection.request("POST", QUERY, bodies[place])
                response = connection.getresponse()
                status, answer = response.status, json.loads(response.read())
                if status in (429, 503):
                    turned_away += 1
                    time.sleep(float(response.headers["Retry-After"]))
                elif status != 200:
                    raise ValueError(f"the server answered {status}: {answer.get('error')}")
            times.append(1000 * (time.perf_counter() - start))
            objects = answer["objects"]
            got = _told([o["name"] for o in objects], [o["segmentation"] for o in objects])
            wrong += got != expected[place]
    return Load(times, turned_away, wrong)


def _told(names: Sequence[str], run_lengths: Sequence[Mapping[str, Any]]) -> Found:
    return [(name, each["counts"]) for name, each in zip(names, run_lengths, strict=True)]


if __name__ == "__main__":
    raise SystemExit(run_command(main))

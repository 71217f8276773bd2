"""Serve a web page and a JSON endpoint that segment images.

The page runs in any browser on this machine: drop, choose or paste pictures, or use the camera.
Pictures are not kept.

Examples:
  yolact serve                                    persons, by the bundled model
  yolact serve --trained_model=mine.pth --port=8080
  curl --data-binary @photo.jpg http://127.0.0.1:8000/api/segment
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from data.images import MAX_PIXELS
from yolact.checkpoint import BUNDLED
from yolact.engines.names import EngineName, Precision
from yolact.errors import UsageError
from yolact.predictor import Predictor

from .common import add_flags, flag, make_parser

logger = logging.getLogger(__name__)

_NEEDED = ("fastapi", "uvicorn", "python_multipart")
MODEL = (
    flag("--trained_model", ".pth, .xml or .onnx, released name, or hf:owner/name", str, BUNDLED),
    flag("--device", "auto, cpu, cuda, cuda:1 or mps", str, "auto"),
    flag("--engine", "engine that runs the network", str, "auto", choices=get_args(EngineName)),
    flag(
        "--precision",
        "auto: whichever is fast on this machine",
        str,
        "auto",
        choices=get_args(Precision),
    ),
)
SERVER = (
    flag("--host", "address to listen at; 0.0.0.0 lets other machines in", str, "127.0.0.1"),
    flag("--port", "port to listen at; 0 for any free one", int, 8000),
    flag("--front", "host name of a reverse proxy, such as photos.example.com", str, ""),
    flag("--max_upload", "largest request in megabytes", float, 20.0),
    flag("--max_pixels", "largest image in pixels", int, 50_000_000),
    flag("--rate", "requests per second of one client, in the long run", float, 30.0),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until Ctrl-C."""
    args = parse_arguments(argv)
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise ValueError(f'{missing[0]} is not installed: pip install "yolact[serve]"')
    from yolact.serve.app import make_app
    from yolact.serve.guard import hosts_for, is_loopback
    from yolact.serve.limits import Limits
    from yolact.serve.run import address_of, listen, make_server

    with listen(args.host, args.port) as listener:
        predictor = Predictor.from_checkpoint(
            args.trained_model, args.device, args.precision, args.engine
        )
        predictor.warm_up()
        limits = Limits(round(args.max_upload * 1e6), args.max_pixels, args.rate)
        name = Path(args.trained_model).stem
        app = make_app(predictor, name, limits, hosts_for(args.host), args.front)
        if not is_loopback(args.host):
            logger.warning("warning: %s lets any machine that can reach it use this", args.host)
        print(f"{name} at {address_of(listener)} (Ctrl-C stops)", flush=True)
        make_server(app).run(sockets=[listener])


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        UsageError: a value out of range.
    """
    parser = make_parser("yolact serve", __doc__)
    add_flags(parser, "model", MODEL)
    add_flags(parser, "server", SERVER)
    args = parser.parse_args(argv)
    if not 0 <= args.port <= 65535:
        raise UsageError(f"--port={args.port}: expected 0 to 65535")
    if not 0 < args.max_pixels <= MAX_PIXELS:
        raise UsageError(f"--max_pixels={args.max_pixels}: expected 1 to {MAX_PIXELS}")
    if not set(args.front).isdisjoint("/:@"):
        raise UsageError(f"--front={args.front}: expected a name alone, as photos.example.com")
    for name in ("max_upload", "rate"):
        if not 0 < getattr(args, name) < float("inf"):
            raise UsageError(f"--{name}={getattr(args, name)}: expected a number above 0")
    return args

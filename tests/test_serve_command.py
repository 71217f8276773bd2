"""`yolact serve` as a command."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from support.tiny import SETTINGS

from yolact import build_model, get_config
from yolact.checkpoint import save_checkpoint
from yolact.cli.main import main

pytest.importorskip("fastapi", reason="needs the extra 'serve'")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def own_argv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["yolact"])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    config = get_config("yolact_resnet18").override(*SETTINGS)
    save_checkpoint(path, build_model(config), config)
    return path


def run(*flags: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(["serve", *flags])
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return code, err


@pytest.mark.parametrize(
    ("flag", "code", "reason"),
    [
        ("--port=70000", 2, "--port=70000: expected 0 to 65535"),
        ("--front=https://a.org", 2, "--front=https://a.org: expected a name alone, as photos."),
        ("--max_pixels=0", 2, "--max_pixels=0: expected 1 to 178000000"),
        ("--max_pixels=178000001", 2, "--max_pixels=178000001: expected 1 to 178000000"),
        ("--rate=0", 2, "--rate=0.0: expected a number above 0"),
        ("--max_upload=nan", 2, "--max_upload=nan: expected a number above 0"),
        ("--host=no.such.host.invalid", 1, "cannot serve at no.such.host.invalid, port 8000: "),
        ("--device=gpu", 1, "--device=gpu: not on this machine"),
        ("--trained_model=absent.pth", 1, "absent.pth"),
    ],
)
def test_mistakes(capsys: pytest.CaptureFixture[str], flag: str, code: int, reason: str) -> None:
    flags = [flag] if "port" in flag or "host" in flag else ["--port=0", flag]
    found, line = run(*flags, capsys=capsys)
    assert (found, reason in line) == (code, True), line


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, line = run(f"--port={port}", capsys=capsys)
    assert code == 1
    assert f"cannot serve at 127.0.0.1, port {port}: Address already in use" in line


def test_without_the_extra(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "yolact.cli.serve.find_spec", lambda name: None if name == "uvicorn" else find_spec(name)
    )
    code, line = run(capsys=capsys)
    assert (code, line) == (1, 'error: uvicorn is not installed: pip install "yolact[serve]"\n')


class Stopped:
    """A server that somebody stops at once."""

    def __init__(self, app: object) -> None:
        self.app = app

    def run(self, sockets: list[socket.socket]) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize(("host", "is_told"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_letting_other_machines_in_is_told(
    weights: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: Any,
    monkeypatch: Any,
    host: str,
    is_told: bool,
) -> None:
    monkeypatch.setattr("yolact.serve.run.make_server", Stopped)
    code = main(
        ["serve", f"--host={host}", "--port=0", f"--trained_model={weights}", "--engine=plain"]
    )
    assert code == 130
    assert capsys.readouterr().out.startswith(f"tiny at http://{host}:")
    assert ("lets any machine" in caplog.text) == is_told


def test_it_serves_until_ctrl_c(weights: Path) -> None:
    code = "from yolact.cli.main import main; raise SystemExit(main())"
    command = [sys.executable, "-c", code, "serve", "--port=0", f"--trained_model={weights}"]
    process = subprocess.Popen(
        [*command, "--engine=plain", "--device=cpu"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        name, _, address, *_ = process.stdout.readline().split()
        with urllib.request.urlopen(f"{address}/api/model", timeout=30) as answer:
            assert f'"name":"{name}"'.encode() in answer.read()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "stopped\n")

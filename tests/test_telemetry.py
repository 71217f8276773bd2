"""Nothing reports to anybody: no import and no conversion makes contact or leaves an identity."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openvino_telemetry")

CHECK = "import sys; assert 'openvino_telemetry' not in sys.modules"
WAYS = {
    "choice": "from yolact.engines.choose import has_openvino; assert has_openvino()",
    "conversion": f"""
import yolact.engines.openvino
{CHECK}
import torch
from yolact import build_model, get_config
from yolact.engines.openvino import convert
config = get_config("yolact_resnet18_shapes").override("model.image_size=64")
convert(build_model(config).eval().network, 64)
""",
}
PROBE = """
import socket
def refuse(*args, **kwargs): raise AssertionError("asked for an address")
socket.socket.connect = socket.getaddrinfo = refuse
"""


@pytest.mark.parametrize("way", WAYS)
def test_reports_to_nobody(tmp_path: Path, way: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("CI", "GITHUB_ACTIONS")}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    code = "\n".join((PROBE, WAYS[way], CHECK))
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert result.returncode == 0, result.stderr.decode()
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == []


def test_keeps_what_the_program_has_imported() -> None:
    code = "import openvino_telemetry, sys; from yolact.engines.choose import has_openvino\n"
    code += "has_openvino(); assert sys.modules['openvino_telemetry'] is openvino_telemetry"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "CI": "1"})

"""The application of `yolact serve` with a tiny network, and what is asked of it."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import torch
from fastapi.testclient import TestClient
from PIL import Image as PilImage

from yolact import Predictor, build_model, get_config
from yolact.serve.app import make_app
from yolact.serve.guard import SECURITY_HEADERS
from yolact.serve.limits import Limits

from .tiny import SETTINGS

ALL = "/api/segment?score_threshold=0&top_k=5"


def tiny_predictor() -> Predictor:
    """A model with random weights that finds cups, dogs and persons anywhere."""
    torch.manual_seed(0)
    config = get_config("yolact_resnet18").override(*SETTINGS, "detect.score_threshold=0.0")
    return Predictor(build_model(config.with_classes(("cup", "dog", "person"))))


def client_of(
    predictor: Predictor, hosts: frozenset[str] | None = None, front: str = "", **limits: Any
) -> TestClient:
    return TestClient(make_app(predictor, "tiny", Limits(**limits), hosts, front))


def picture(mode: str = "RGB", size: tuple[int, int] = (60, 40)) -> PilImage.Image:
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return PilImage.fromarray(values).convert(mode)


def encoded(image: PilImage.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


PNG, JPEG = encoded(picture()), encoded(picture(), "JPEG")


def refusal(response: Any, status: int) -> str:
    """The reason of a refusal: one line of JSON that tells nothing about this machine."""
    assert response.status_code == status, response.text
    (reason,) = response.json().values()
    assert response.json() == {"error": reason}
    assert reason and "\n" not in reason
    assert not re.search(r"[\w.]/\w|Traceback|0x[0-9a-f]{4}", reason.replace("image/", "")), reason
    assert SECURITY_HEADERS.items() <= dict(response.headers).items()
    return str(reason)

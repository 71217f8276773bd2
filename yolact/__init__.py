"""YOLACT and YOLACT++: real-time instance segmentation."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data.video.writer import VideoWriter
    from yolact.models.yolact import Yolact
    from yolact.results.coco_file import CocoFile
    from yolact.results.detections import Detections
    from yolact.results.folder import ResultFolder

    from .build import build_model
    from .checkpoint import load_model
    from .config import Config
    from .predictor import Predictor
    from .presets import get_config, list_configs

__version__ = "0.1.0"

__all__ = [
    "CocoFile",
    "Config",
    "Detections",
    "Predictor",
    "ResultFolder",
    "VideoWriter",
    "Yolact",
    "build_model",
    "get_config",
    "list_configs",
    "load_model",
]

_MODULES = {
    "CocoFile": "results.coco_file",
    "Config": "config",
    "Detections": "results.detections",
    "Predictor": "predictor",
    "ResultFolder": "results.folder",
    "VideoWriter": "video.pipeline",
    "Yolact": "models.yolact",
    "build_model": "build",
    "get_config": "presets",
    "list_configs": "presets",
    "load_model": "checkpoint",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for: `yolact --help` waits for no torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]

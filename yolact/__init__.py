"""YOLACT and YOLACT++: real-time instance segmentation."""

from yolact.models.yolact import Yolact
from yolact.results.detections import Detections

from .build import build_model
from .checkpoint import load_model
from .config import Config
from .predictor import Predictor
from .presets import get_config, list_configs

__version__ = "0.1.0"

__all__ = [
    "Config",
    "Detections",
    "Predictor",
    "Yolact",
    "build_model",
    "get_config",
    "list_configs",
    "load_model",
]

"""YOLACT and YOLACT++: real-time instance segmentation."""

from .build import build_model
from .checkpoint import load_model
from .config import Config
from .model import Yolact
from .predictor import Predictor
from .presets import get_config, list_configs

__version__ = "0.1.0"

__all__ = [
    "Config",
    "Predictor",
    "Yolact",
    "build_model",
    "get_config",
    "list_configs",
    "load_model",
]

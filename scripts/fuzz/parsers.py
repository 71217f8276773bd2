"""All readers of files of strangers, each with its valid files, how to damage them, and a call.

Every parser is made in a folder of its own, which it fills; its `read` takes the content of one
file, and uses what comes out of it as the program would.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from parser import Parser

_IN_MODULES = {
    "labels": (
        *("image", "coco", "yolo", "data_yaml", "labelme", "via", "cvat", "label_studio"),
        *("sam", "panoptic", "label_map", "run_lengths"),
    ),
    "models": ("checkpoint", "safetensors", "config", "settings", "exported", "results", "log"),
    "streams": ("video", "upload"),
}
MODULE_OF = {name: module for module, names in _IN_MODULES.items() for name in names}
"""The names of the parsers, and in which module of this folder they are."""


def make_parser(name: str, folder: Path) -> Parser:
    """Make a parser in an empty folder; what others need is not loaded."""
    parser: Parser = getattr(import_module(MODULE_OF[name]), name)(folder)
    return parser

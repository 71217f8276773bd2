"""A network and a dataset small enough to train and evaluate within a test."""

from __future__ import annotations

from pathlib import Path

import torch

from data.classes import SHAPE_CLASSES
from data.shapes.scenes import ShapeScenes, export_coco
from yolact import build_model, get_config
from yolact.checkpoint import save_checkpoint

SETTINGS = (
    "model.image_size=64",
    "model.fpn_channels=16",
    "model.prototype_channels=16",
    "model.head_channels=16",
    "train.pretrained_backbone=False",
)
FLAGS = ["--device=cpu", *(f"--set={setting}" for setting in SETTINGS)]


def make_dataset(folder: Path, train: int = 4, val: int = 3) -> Path:
    """Write a COCO-style dataset of generated scenes."""
    export_coco(ShapeScenes(train, 96, seed=0), folder, "train")
    export_coco(ShapeScenes(val, 96, seed=1), folder, "val")
    return folder


def save_tiny(path: Path) -> None:
    """Write a checkpoint with random weights that finds a hundred shapes anywhere."""
    torch.manual_seed(0)
    config = get_config("yolact_resnet18").override(*SETTINGS, "detect.score_threshold=0.0")
    config = config.with_classes(SHAPE_CLASSES.names)
    save_checkpoint(path, build_model(config), config)


def train_flags(dataset: Path, folder: Path, iterations: int, *more: str) -> list[str]:
    """Return flags for a run without validation and report whose files go to one folder."""
    return [
        "--config=yolact_resnet18",
        "--set=model.backbone=mobilenet_v3_small",  # a tenth of the weights, and of their files
        f"--dataset={dataset}",
        f"--save_folder={folder}",
        f"--log_folder={folder}",
        "--batch_size=6",
        "--no_autoscale",
        "--num_workers=0",
        "--validation_size=-1",
        "--no_report",
        f"--set=train.max_iterations={iterations}",
        *FLAGS,
        *more,
    ]

"""Folders as datasets lie in them, with files that hold hardly anything."""

from __future__ import annotations

from pathlib import Path

from data.catalog import DatasetPaths

LABELME, VIA, COCO = '{"shapes": []}', '{"_via_settings": {}}', '{"images": [], "annotations": []}'
YAML = "names: [cat]"


def places(paths: DatasetPaths) -> tuple[Path | None, ...]:
    """Images and annotations for training, then for validation."""
    splits = (paths.train, paths.val)
    return tuple(place for split in splits for place in (split[1:3] if split else (None, None)))


def write(root: Path, files: dict[str, str]) -> None:
    for file, text in files.items():
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

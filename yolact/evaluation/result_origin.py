"""The origin of stored detections, which must agree before they are scored again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from data.files import open_file
from data.sample import Dataset
from yolact.config import Config
from yolact.results.journal import told_differences

_BLOCK = 2**20

IMAGES = "images of --dataset"
"""Key of the images in `by_flags`, as no flag names them."""


@dataclass(frozen=True)
class Origin:
    """Everything that determines the detections in an image.

    Attributes:
        weights: path of the checkpoint; for information only.
        digest: SHA-256 of the checkpoint's content, in hexadecimal.
        dataset: name of the dataset, or its absolute path.
        masks: the kind of masks, see `MaskMode`.
        score_threshold: detections with lower scores were dropped.
        engine: engine that ran the network, "auto" if unknown; for information only.
        precision: precision of the network, "auto" if unknown.
        settings: "model.image_size" and so on -> plain value, of all of `model` and `detect`.
        tiles: description of how images were cut into tiles; "none" for no tiles.
        images: digest of the dataset's images, see `digest_of_images`; "" if unknown.
    """

    weights: str
    digest: str
    dataset: str
    masks: str
    score_threshold: float
    engine: str
    precision: str
    settings: Mapping[str, object]
    tiles: str = "none"
    images: str = ""

    def to_dict(self) -> dict[str, object]:
        """Return plain values, for JSON."""
        return asdict(self)

    def by_flags(self) -> dict[str, object]:
        """Return the values by the flags that set them."""
        return {
            "--trained_model": f"SHA-256 {self.digest[:16]}",
            "--dataset": self.dataset,
            "masks": self.masks,
            "--score_threshold": self.score_threshold,
            "--engine": self.engine,
            "--precision": self.precision,
            "--tile": self.tiles,
            IMAGES: f"SHA-256 {self.images[:16]}",
            **{f"--set {name}": value for name, value in self.settings.items()},
        }

    @classmethod
    def from_dict(cls, values: object) -> Origin:
        """Rebuild an origin from the result of `to_dict`.

        Raises:
            ValueError: another value.
        """
        known = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or set(values) != known:
            raise ValueError("it does not tell the origin of its detections")
        threshold, settings = values["score_threshold"], values["settings"]
        texts = [values[name] for name in values if name not in ("score_threshold", "settings")]
        sound = isinstance(threshold, (int, float)) and isinstance(settings, dict)
        if not sound or not all(isinstance(text, str) for text in texts):
            raise ValueError("the origin of its detections makes no sense")
        return cls(**values)

    def differences(self, other: Origin) -> list[str]:
        """Describe what differs in another origin, each with the flag that gives our value.

        Boxes can be scored with any masks, so `masks="none"` of the other agrees with all kinds.
        """
        ours, theirs = self.by_flags(), other.by_flags()
        if self.digest != other.digest:
            ours["--trained_model"], theirs["--trained_model"] = self._file, other._file
        theirs["--engine"] = self.engine
        if other.precision == "auto":
            theirs["--precision"] = self.precision
        if other.masks == "none":
            theirs["masks"] = self.masks
        return told_differences(ours, theirs)

    @property
    def _file(self) -> str:
        return f"{self.weights} (SHA-256 {self.digest[:12]})"


def settings_of(config: Config) -> dict[str, object]:
    """Return the settings that affect a model's detections, by their names in `Config.override`."""
    plain = config.to_dict()
    return {f"{part}.{k}": v for part in ("model", "detect") for k, v in plain[part].items()}


def digest_of_images(dataset: Dataset) -> str:
    """Return the SHA-256 of the ids and file names of a dataset's images, in order.

    If ids count the files of a folder, a new file changes the ids of others.
    """
    names = (dataset.image_info(index)["file_name"] for index in range(len(dataset)))
    listed = "\0".join(f"{key} {name}" for key, name in zip(dataset.image_ids, names, strict=True))
    return hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest()


def digest_of(weights: Path) -> str:
    """Return the SHA-256 of a checkpoint, or of both files of an OpenVINO model."""
    digest = hashlib.sha256()
    is_pair = weights.suffix.lower() == ".xml"
    for path in (weights, weights.with_suffix(".bin")) if is_pair else (weights,):
        if not path.exists():
            continue
        with open_file(path) as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()

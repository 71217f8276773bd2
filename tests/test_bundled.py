"""The models that come with the repository."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pytest
import torch

from data.images import read_image
from data.shapes.scenes import shapes_split
from yolact import Predictor, checkpoint
from yolact.checkpoint import BUNDLED, IN_REPOSITORY, resolve_weights
from yolact.presets import get_config

PORTRAIT = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
MAX_MEGABYTES = 30


@pytest.mark.parametrize("name", IN_REPOSITORY)
def test_each_is_small_and_found_by_its_name(name: str) -> None:
    path = resolve_weights(name)
    assert path.stat().st_size < MAX_MEGABYTES * 1e6
    predictor = Predictor.from_checkpoint(name, device="cpu")
    assert predictor.model.class_names == get_config(name).model.names


def test_the_wheel_has_the_first_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{BUNDLED}.pth").touch()
    monkeypatch.setattr(checkpoint, "BUNDLED_FOLDER", tmp_path)
    assert resolve_weights(BUNDLED) == tmp_path / f"{BUNDLED}.pth"
    for name in set(IN_REPOSITORY) - {BUNDLED}:
        with pytest.raises(FileNotFoundError, match=f"{name}: in the repository, .* {BUNDLED}, "):
            resolve_weights(name)


def test_persons_are_found_in_a_photograph() -> None:
    image = read_image(PORTRAIT)
    found = Predictor.from_checkpoint(BUNDLED, device="cpu")(image)  # by its own threshold
    assert found.names() == ["person"]
    mask = found.masks[0]
    for x, y in ((250, 180), (250, 420), (140, 520), (380, 520)):  # face, chest, both arms
        assert mask[y, x], (x, y)
    for x, y in ((450, 100), (30, 60), (480, 20)):  # sky and flag
        assert not mask[y, x], (x, y)


@pytest.mark.parametrize("index", [3, 4, 5])
def test_shapes_are_found_in_a_scene(index: int) -> None:
    sample = shapes_split("val").sample(index)
    predictor = Predictor.from_checkpoint("yolact_resnet18_shapes", device="cpu")
    found = predictor(sample.image, score_threshold=0.5)
    assert sorted(found.labels.tolist()) == sorted(sample.labels.tolist())


@pytest.fixture(scope="module")
def shapes() -> Predictor:
    return Predictor.from_checkpoint("yolact_resnet18_shapes", device="cpu", engine="eager")


def test_classes_may_come_from_an_iterator(shapes: Predictor) -> None:
    images = [shapes_split("val").sample(index).image for index in (3, 4)]
    every = [len(shapes(image)) for image in images]
    assert min(every) > 0
    for given in (images, iter(images)):  # of the second comes another iterator
        classes = iter(shapes.model.class_names)
        assert [len(found) for found in shapes(given, classes=classes)] == every


def test_what_is_found_may_be_changed(shapes: Predictor) -> None:
    found = shapes(shapes_split("val").sample(3).image)
    assert len(found) > 1
    before = found.box_scores.clone()
    found.scores.mul_(0.5)
    found.mask_frames[0].add_(1)
    assert torch.equal(found.box_scores, before)
    assert not torch.equal(found.mask_frames[0], found.mask_frames[1])

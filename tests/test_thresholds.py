"""Which detections count: ranges, classes, and the score that belongs to a model."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import SETTINGS

from data.shapes.scenes import ShapeScenes
from yolact import Config, Predictor, build_model, get_config, list_configs, load_model
from yolact.checkpoint import IN_REPOSITORY, read_checkpoint, resolve_weights, save_checkpoint
from yolact.cli.eval_flags import benchmark_thresholds, display_thresholds, parse_arguments
from yolact.cli.from_flags import choose_model, origin_of
from yolact.engines.exported import metadata, read_trained
from yolact.errors import OptionError, UsageError
from yolact.presets import stored_config
from yolact.results.thresholds import Thresholds, labels_of

NAMES = ("cat", "dog", "7", "traffic light")


def test_classes_of_one_name_are_all_meant() -> None:
    assert labels_of(["cat"], ("cat", "dog", "cat")) == (0, 2)
    assert labels_of([2], ("cat", "dog", "cat")) == (2,)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("score_threshold", math.nan, "expected a number from 0 to 1"),
        ("score_threshold", math.inf, "expected a number from 0 to 1"),
        ("score_threshold", 2, "expected a number from 0 to 1"),
        ("score_threshold", 30, "expected a number from 0 to 1"),
        ("score_threshold", -1, "expected a number from 0 to 1"),
        ("score_threshold", -1e-9, "expected a number from 0 to 1"),
        ("top_k", 0, "expected a whole number, at least 1"),
        ("top_k", -1, "expected a whole number, at least 1"),
    ],
)
def test_one_range_in_the_words_of_whoever_asks(name: str, value: float, said: str) -> None:
    with pytest.raises(OptionError) as caught:
        Thresholds.for_pictures(0.3, NAMES, **{name: value})  # type: ignore[arg-type]
    assert str(caught.value) == f"{name}={value!r}: {said}"
    for image in ("--image=a.jpg", "--no_bar"):
        with pytest.raises(UsageError) as on_command_line:
            parse_arguments(None, [image, f"--{name}={value}"])
        assert str(on_command_line.value) == f"--{name}={value}: {said}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("score_threshold", value) for value in ("a", True, None, [0.5], np.bool_(True))),
        *(("top_k", value) for value in ("5", True, 2.0, math.nan, [5])),
    ],
)
def test_values_of_another_type(name: str, value: object) -> None:
    with pytest.raises(OptionError, match=rf"^{name}="):
        Thresholds(**{"score" if name != "top_k" else name: value})  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers() -> None:
    assert Thresholds(np.float32(0.5), np.int64(3)).top_k == 3
    assert Thresholds(0, None) == Thresholds(0.0) == Thresholds()


@pytest.mark.parametrize(
    ("classes", "labels"),
    [
        ([], ()),
        ("dog", (1,)),
        (["dog", "cat", "dog"], (0, 1)),
        ([3, "cat"], (0, 3)),
        (2, (2,)),
        (["7"], (2,)),  # a name before a label
        (("3",), (3,)),
        (iter(["traffic light"]), (3,)),
        (np.arange(2), (0, 1)),
    ],
)
def test_classes_by_name_or_label(classes: Any, labels: tuple[int, ...]) -> None:
    assert labels_of(classes, NAMES) == labels


def test_a_number_is_a_label_whatever_classes_are_called() -> None:
    digits = ("1", "2", "3")
    assert [labels_of(each, digits) for each in (1, np.int64(1), [0, 1])] == [(1,), (1,), (0, 1)]
    assert labels_of(["1", "0"], digits) == (0,)  # the class called 1, and the label 0


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (
            ["cat", "dgo"],
            "classes='dgo': no such class; did you mean 'dog'?; there are cat, dog, 7",
        ),
        (4, "classes=4: no such class; there are cat"),
        ([-1], "classes=-1: no such class"),
        ([True], "classes=True: no such class"),
        ([None], "classes=None: no such class"),
        ([""], "classes='': no such class"),
    ],
)
def test_unknown_classes(classes: Any, said: str) -> None:
    with pytest.raises(OptionError) as caught:
        labels_of(classes, NAMES)
    assert str(caught.value).startswith(said)


def tiny(*more: str) -> Config:
    plain = ("detect.score_threshold=0.0", "detect.refit=False")
    return get_config("yolact_resnet18").override(*SETTINGS, *plain, *more)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    config = tiny("score_threshold=0.4", "model.class_names=a,b,c")
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "tiny.pth", build_model(config), config)
    return tmp_path / "tiny.pth"


def test_the_model_tells_from_which_score_on_it_is_shown(checkpoint: Path) -> None:
    model, image = load_model(checkpoint), ShapeScenes(1, 96).sample(0).image
    predictor = Predictor(model)
    assert model.score_threshold == 0.4
    own, every = predictor(image), predictor(image, score_threshold=0.0)
    assert 0 < len(own) < len(every)
    assert torch.equal(own.scores, every.scores[every.scores >= 0.4])
    assert set(predictor(image, 0.0, classes=["b", 2]).names()) == {"b", "c"}
    assert len(predictor(image, 0.0, 3, classes=["b"])) == 3
    assert len(every) <= len(predictor.find_all(image)) == 100
    assert every.masks.any(dim=(1, 2)).all()
    for batch in (predictor([image])[0], next(predictor.stream([image]))):
        assert torch.equal(batch.scores, own.scores)


def test_boxes_alone_are_kept_without_masks(checkpoint: Path) -> None:
    predictor = Predictor(load_model(checkpoint))
    predictor.model.mask_mode = "none"
    assert len(predictor(ShapeScenes(1, 96).sample(0).image, score_threshold=0.0)) == 100


@pytest.mark.parametrize(
    ("flags", "pictures", "counted"),
    [
        ([], (0.4, None, None), (0.0, 5)),
        (["--score_threshold=0"], (0.0, None, None), (0.0, 5)),
        (["--score_threshold=0.3", "--top_k=2"], (0.3, 2, None), (0.3, 2)),
        (["--set=score_threshold=0.5"], (0.5, None, None), (0.0, 5)),
        (["--classes=c,a"], (0.4, None, (0, 2)), (0.0, 5)),
        (["--classes= 1"], (0.4, None, (1,)), (0.0, 5)),
    ],
)
def test_flags_left_out_are_the_models_own(
    checkpoint: Path, flags: list[str], pictures: object, counted: object
) -> None:
    args = parse_arguments(None, [f"--trained_model={checkpoint}", "--image=a.jpg", *flags])
    read, config = choose_model(args)
    thresholds = display_thresholds(args, config)
    assert (thresholds.score, thresholds.top_k, thresholds.labels) == pictures
    assert thresholds.drop_empty
    assert (benchmark_thresholds(args).score, benchmark_thresholds(args).top_k) == counted
    assert not benchmark_thresholds(args).drop_empty
    assert origin_of(args, read, config).score_threshold == (args.score_threshold or 0.0)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--image=a.jpg", "--classes=d"], "--classes=d: no such class; there are a, b, c"),
        (["--image=a.jpg", "--classes="], "--classes=: no such class"),
        (["--classes=a"], "--classes does nothing with the evaluation of a dataset"),
        (["--benchmark", "--video=a.mp4", "--classes=a"], "--classes does nothing with --bench"),
    ],
)
def test_classes_that_cannot_be_shown(checkpoint: Path, flags: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        args = parse_arguments(None, [f"--trained_model={checkpoint}", *flags])
        display_thresholds(args, choose_model(args)[1])
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("name", list_configs())
def test_files_that_do_not_tell_have_the_score_of_their_preset(name: str) -> None:
    config = get_config(name)
    values = config.to_dict()
    assert stored_config({**values, "score_threshold": 0.9}).score_threshold == 0.9
    del values["score_threshold"]
    assert stored_config(values) == config
    assert stored_config({**values, "name": "mine"}) == replace(
        config, name="mine", score_threshold=0.15
    )


def test_exported_files_tell_or_have_that_of_their_preset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny("score_threshold=0.4")
    text = metadata(build_model(config), config)
    old = json.loads(text)
    del old["config"]["score_threshold"]
    found = []
    for content in (text, json.dumps(old)):
        monkeypatch.setattr("yolact.engines.exported._read_metadata", lambda _, text=content: text)
        config = read_trained(tmp_path / "a.xml").preset()
        found.append(config.score_threshold)
    assert found == [0.4, 0.15]


@pytest.mark.parametrize("value", ["1.5", "-0.1", "nan"])
def test_a_configuration_has_a_score(value: str) -> None:
    with pytest.raises(ValueError, match="score_threshold"):
        get_config("yolact_base").override(f"score_threshold={value}")


@pytest.mark.parametrize("name", IN_REPOSITORY)
def test_bundled_models_have_a_measured_score(name: str) -> None:
    config = read_checkpoint(resolve_weights(name)).preset()
    assert config.score_threshold == get_config(name).score_threshold > 0.15

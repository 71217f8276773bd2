"""What the flags of eval.py make of a model and its settings."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from support.tiny import SETTINGS
from test_scripts import script

from yolact import build_model, get_config
from yolact.checkpoint import save_checkpoint
from yolact.cli import from_flags
from yolact.cli.benchmark import compared
from yolact.cli.eval_flags import parse_arguments
from yolact.cli.from_flags import choose_model
from yolact.errors import UsageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints fast.pth, cross_class.pth and greedy.pth, each with its own suppression."""
    folder = tmp_path_factory.mktemp("nms")
    for nms in ("fast", "cross_class", "greedy"):
        config = get_config("yolact_resnet18").override(*SETTINGS, f"detect.nms={nms}")
        save_checkpoint(folder / f"{nms}.pth", build_model(config), config)
    return folder


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], ("fast", "cross_class", "greedy")),
        (["--fast_nms=True"], ("fast", "fast", "fast")),
        (["--fast_nms"], ("fast", "fast", "fast")),
        (["--fast_nms=False"], ("greedy", "greedy", "greedy")),
        (["--cross_class_nms=True"], ("cross_class", "cross_class", "cross_class")),
        (["--cross_class_nms=False"], ("fast", "fast", "greedy")),
        (["--fast_nms", "--cross_class_nms"], ("cross_class", "cross_class", "cross_class")),
        (["--fast_nms=False", "--cross_class_nms"], ("greedy", "greedy", "greedy")),
        (["--fast_nms=False", "--set=detect.nms=fast"], ("fast", "fast", "fast")),
    ],
)
def test_a_model_keeps_its_suppression_unless_told(
    folder: Path, flags: list[str], expected: tuple[str, ...]
) -> None:
    for own, nms in zip(("fast", "cross_class", "greedy"), expected, strict=True):
        argv = [f"--trained_model={folder / own}.pth", *flags]
        assert choose_model(parse_arguments(None, argv))[1].detect.nms == nms


@pytest.mark.parametrize("own", ["cross_class", "greedy"])
def test_comparisons_keep_it_too(folder: Path, own: str) -> None:
    first, second = str(folder / "fast.pth"), str(folder / f"{own}.pth")
    args = parse_arguments(None, [f"--trained_model={first}", f"--compare=trained_model={second}"])
    assert [choose_model(each)[1].detect.nms for each in compared(args)] == ["fast", own]
    compare = script("compare")
    args = compare["parse_arguments"]([first, second])
    models = [choose_model(compare["eval_arguments"](args, model)) for model in args.models]
    assert [config.detect.nms for _, config in models] == ["fast", own]


@pytest.mark.parametrize(
    ("flags", "asked"),
    [
        ([], "float32"),
        (["--precision=auto", "--detect"], "float32"),
        (["--output_coco_json"], "float32"),
        (["--precision=bfloat16"], "bfloat16"),
        (["--image=a.jpg"], "auto"),
        (["--images=a"], "auto"),
        (["--video=a.mp4"], "auto"),
        (["--benchmark"], "auto"),
        (["--image=a.jpg", "--precision=float32"], "float32"),
    ],
)
def test_an_average_precision_is_in_float32_whatever_is_fast_here(
    folder: Path, flags: list[str], asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    precisions: list[object] = []
    monkeypatch.setattr(from_flags, "engine_for_file", lambda *a: precisions.append(a[-1]))
    args = parse_arguments(None, [f"--trained_model={folder / 'fast.pth'}", *flags])
    from_flags.engine_for(args, *choose_model(args))
    assert precisions == [asked]


@pytest.mark.parametrize(
    ("own", "flags", "found", "entering"),
    [
        ("fast", [], 100, 200),
        ("fast", ["--max_detections=7"], 7, 200),
        ("fast", ["--max_detections=400"], 400, 800),  # no more would come out otherwise
        ("fast", ["--max_detections=400", "--set=detect.top_k=500"], 400, 500),
        ("cross_class", [], 100, 200),
        ("cross_class", ["--max_detections=7"], 7, 7),  # top_k alone decides across classes
        ("cross_class", ["--max_detections=400"], 400, 400),
        ("cross_class", ["--max_detections=7", "--set=detect.top_k=9"], 7, 9),
        ("cross_class", ["--max_detections=7", "--fast_nms=False"], 7, 200),
        ("fast", ["--max_detections=7", "--cross_class_nms"], 7, 7),
        ("fast", ["--max_detections=7", "--set=detect.nms=cross_class"], 7, 7),
    ],
)
def test_room_for_many_detections(
    folder: Path, own: str, flags: list[str], found: int, entering: int
) -> None:
    args = parse_arguments(None, [f"--trained_model={folder / own}.pth", *flags])
    detect = choose_model(args)[1].detect
    assert (detect.max_detections, detect.top_k) == (found, entering)


@pytest.mark.parametrize(
    ("flags", "mode", "masks"),
    [
        ([], "cropped", True),
        (["--detect"], "none", False),
        (["--no_crop"], "whole", True),
        (["--smooth_masks"], "smooth", True),
        (["--display_masks=False"], "cropped", False),
    ],
)
def test_masks_are_made_and_drawn_as_the_flags_say(
    flags: list[str], mode: str, masks: bool
) -> None:
    args = parse_arguments(None, flags)
    assert from_flags.mask_mode(args) == mode
    draw = from_flags.drawing(args)
    assert isinstance(draw, partial)
    assert draw.keywords["masks"] == masks


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--bbox_det_file=a.json", "--mask_det_file=./a.json"], "bbox_det_file and --mask_det"),
        (["--ap_data_file=a.json", "--mask_det_file=a.json"], "ap_data_file and --mask_det_file"),
    ],
)
def test_two_results_into_one_file_are_refused(flags: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=f"--{told}.* are one file, .*a.json: name two"):
        parse_arguments(None, ["--output_coco_json", *flags])

"""The modes of eval.py, and the flags that apply in each."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Literal

from yolact.errors import UsageError

from .saving import needs_drawing

Mode = Literal["image", "images", "video", "dataset", "benchmark"]

_PICTURES = frozenset({"image", "images", "video"})
_DATA = frozenset({"dataset", "benchmark"})
_SCORED = frozenset({"dataset"})

_ONLY_FOR: Mapping[frozenset[str], str] = {
    _PICTURES: "classes min_area quiet color no_picture save_json save_txt save_csv "
    "save_coco save_labelme save_masks save_crops save_cutouts",
    frozenset({"image", "images", "dataset"}): "tile overlap overview",
    frozenset({"image", "images"}): "max_pixels",
    frozenset({"image"}): "display_lincomb mask_proto_debug",
    frozenset({"image", "video"}): "overwrite",
    frozenset({"video"}): "display_fps emulate_playback timeout raw track",
    frozenset({"video", "benchmark"}): "video_multiframe keyframes",
    frozenset({"images", "video", "dataset"}): "resume",
    _DATA: "val crowd boxes_only max_images shuffle seed no_sort json",
    _SCORED: "display per_class report report_threshold report_images ap_data_file "
    "output_coco_json bbox_det_file mask_det_file output_web_json web_det_path",
    frozenset({"benchmark"}): "compare batch_sizes",
}

_TOLD: Mapping[str, str] = {
    "image": "--image",
    "images": "--images",
    "video": "--video",
    "dataset": "the evaluation of a dataset",
    "benchmark": "--benchmark",
}


def mode_of(args: argparse.Namespace) -> Mode:
    """Return the mode that the flags of eval.py choose."""
    if args.benchmark or args.compare:
        return "benchmark"
    given: tuple[Mode, ...] = ("image", "images", "video")
    return next((mode for mode in given if getattr(args, mode)), "dataset")


def refuse_idle_flags(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse flags that have no effect.

    Raises:
        UsageError: two inputs, or a flag that has no effect in the mode.
    """
    mode = mode_of(args)
    inputs = [f"--{name}" for name in ("image", "images", "video") if getattr(args, name)]
    if len(inputs) > 1:
        raise UsageError(f"{' and '.join(inputs)} are two inputs: give one of them")
    if mode == "benchmark" and (args.image or args.images):
        raise UsageError("--benchmark takes the images of a --dataset, or the frames of a --video")
    flags = {action.dest: action.option_strings[0] for action in parser._actions}
    for modes, names in _ONLY_FOR.items():
        for name in names.split():
            is_given = getattr(args, name) != parser.get_default(name)
            if is_given and mode not in modes:
                *others, last = (_TOLD[each] for each in _TOLD if each in modes)
                where = f"{', '.join(others)} or {last}" if others else last
                raise UsageError(
                    f"{flags[name]} does nothing with {_TOLD[mode]}: it is for {where}"
                )


_NEEDED: Mapping[str, str] = {
    "seed": "shuffle",
    "bbox_det_file": "output_coco_json",
    "mask_det_file": "output_coco_json",
    "web_det_path": "output_web_json",
}
"""Flags that have an effect only with another one."""


def refuse_useless_pairs(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse flags that have no effect without another flag, or together with it.

    Raises:
        UsageError: such a pair is given.
    """
    flags = {action.dest: action.option_strings[0] for action in parser._actions}
    given = {name for name in flags if getattr(args, name, None) != parser.get_default(name)}
    for name, other in _NEEDED.items():
        if name in given and not getattr(args, other):
            raise UsageError(f"{flags[name]} does nothing without {flags[other]}")
    if args.shuffle and args.no_sort:
        raise UsageError("--shuffle and --no_sort are two orders: give one of them")
    if "save_labelme" in given and args.video:
        raise UsageError(
            "--save_labelme labels images: write the frames of the video as such first"
        )
    if "save_labelme" in given and needs_drawing(args):
        raise UsageError(
            "--save_labelme needs --no_picture, or the drawn pictures beside the labels would be "
            "taken for what they label"
        )
    saves = any(name.startswith("save_") for name in given)
    if args.no_picture and (args.images or args.video) and not (saves or args.json_lines):
        raise UsageError("--no_picture leaves nothing: add --save_json, --json or the like")
    for name in ("smooth_masks", "crop", "min_area", "save_masks", "save_cutouts", "mask_det_file"):
        if args.detect and name in given:
            raise UsageError(f"{flags[name]} does nothing with --detect, which finds boxes alone")

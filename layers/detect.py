"""Candidates from raw predictions: score filter, box decoding, non-maximum suppression."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from .boxes import decode_boxes
from .nms import (
    PADDING_SCORE,
    PRESELECT_COUNT,
    cross_class_nms,
    cross_class_nms_padded,
    fast_nms,
    fast_nms_padded,
    greedy_nms,
)
from .structures import Candidates, Predictions, fetch

Nms = Literal["fast", "cross_class", "greedy"]
Admit = Callable[[Tensor, Tensor], Tensor]
"""Takes scores and labels, and returns which of the (N,) detections count."""


class Settings(NamedTuple):
    """The arguments of `detect` after the predictions; see there."""

    score_threshold: float
    iou_threshold: float
    top_k: int
    max_detections: int
    nms: Nms
    admit: Admit | None


class _Raw(NamedTuple):
    """The predictions for one image."""

    class_logits: Tensor  # (P, C + 1)
    box_deltas: Tensor  # (P, 4)
    coefficients: Tensor  # (P, K)
    anchors: Tensor  # (P, 4)


class _PaddedCandidates(NamedTuple):
    """D slots for candidates: fixed shapes, which avoid waiting for a GPU."""

    candidates: Candidates
    valid: Tensor  # (D,) bool: which slots hold a detection
    is_final: Tensor  # () bool: the preselected anchors suffice; else all must be searched


def detect(
    predictions: Predictions,
    score_threshold: float = 0.05,
    iou_threshold: float = 0.5,
    top_k: int = 200,
    max_detections: int = 100,
    nms: Nms = "fast",
    admit: Admit | None = None,
) -> list[Candidates]:
    """Find the objects of each image, in float32.

    Waits for a GPU once, for any number of images and objects; and once more if more than
    `layers.nms.PRESELECT_COUNT` anchors of an image are above the threshold, but the best of these
    give too few objects.

    Args:
        predictions: raw outputs for B images.
        score_threshold: anchors whose best class scores at or below this are dropped.
        iou_threshold: overlap above which the worse of two boxes is suppressed.
        top_k: boxes per class ("fast") or in total ("cross_class") that enter suppression.
        max_detections: objects kept per image; "cross_class", as released, is limited only by
            top_k.
        nms: "fast" (YOLACT sec. 5), "cross_class" (the same over all classes at once), or
            "greedy" (exact greedy NMS, computed on the CPU).
        admit: selects the objects that count, after suppression; None for all.

    Returns:
        Candidates for each image, highest score first.

    Raises:
        ValueError: unknown `nms`.
    """
    if nms not in get_args(Nms):
        raise ValueError(f"nms={nms!r} is none of {', '.join(get_args(Nms))}")
    settings = Settings(score_threshold, iou_threshold, top_k, max_detections, nms, admit)
    logits, deltas, coefficients, anchors = (*predictions[:3], predictions.anchors)
    device = anchors.device
    if device.type != "cpu" and nms == "greedy":
        logits, deltas, coefficients, anchors = fetch(logits, deltas, coefficients, anchors)
    rows = zip(logits, deltas, coefficients, strict=True)
    images = [_Raw(*row, anchors) for row in rows]
    if anchors.device.type != "cpu":
        return detect_padded(images, settings)
    found = [_detect(image, settings) for image in images]
    return found if device.type == "cpu" else [candidates.to(device) for candidates in found]


def _detect(raw: _Raw, settings: Settings) -> Candidates:
    """Find the objects of an image on the CPU."""
    score_threshold, iou_threshold, top_k, max_detections, nms, admit = settings
    anchors, scores = _above_threshold(raw.class_logits.float(), score_threshold)
    boxes = decode_boxes(raw.box_deltas[anchors].float(), raw.anchors[anchors])
    if nms == "fast":
        kept = fast_nms(boxes, scores, iou_threshold, top_k, max_detections)
    elif nms == "cross_class":
        kept = cross_class_nms(boxes, scores, iou_threshold, top_k)
    else:
        kept = greedy_nms(boxes, scores, iou_threshold, score_threshold, max_detections)
    index, labels, kept_scores = kept
    coefficients = raw.coefficients[anchors[index]].float()
    found = Candidates(boxes[index], kept_scores, labels, coefficients)
    return found if admit is None else found[admit(kept_scores, labels)]


def _above_threshold(logits: Tensor, score_threshold: float) -> tuple[Tensor, Tensor]:
    """Return the (N,) anchors whose best class is above the threshold, and their (N, C) scores."""
    # The softmax over a class and background alone is an upper bound of its score: nearly all
    # anchors fail this cheap test and need no full softmax.
    bound = (logits[:, 1:].amax(dim=1) - logits[:, 0]).sigmoid()
    anchors = (bound > score_threshold * (1 - 1e-3)).nonzero().squeeze(1)  # sync: on the CPU only
    scores = torch.softmax(logits[anchors], dim=1)[:, 1:]
    keep = scores.amax(dim=1) > score_threshold
    return anchors[keep], scores[keep]  # sync: on the CPU only


def detect_padded(images: Sequence[_Raw], settings: Settings) -> list[Candidates]:
    """Find the objects of B images with operators of fixed shapes.

    So the only wait for a GPU is for the results of all images.
    """
    slots = [_detect_padded(image, settings, PRESELECT_COUNT) for image in images]
    chosen, is_final = _fetch_valid(slots)
    if unsure := [i for i, sure in enumerate(is_final) if not sure]:
        again = [_detect_padded(images[i], settings, None) for i in unsure]
        for i, slot, which in zip(unsure, again, _fetch_valid(again)[0], strict=True):
            slots[i], chosen[i] = slot, which
    return [slot.candidates[which] for slot, which in zip(slots, chosen, strict=True)]


def _detect_padded(raw: _Raw, settings: Settings, few: int | None) -> _PaddedCandidates:
    """Find the objects of an image among its best `few` anchors, or among all."""
    score_threshold, iou_threshold, top_k, max_detections, nms, admit = settings
    scores = torch.softmax(raw.class_logits.float(), dim=1)[:, 1:]  # (P, C)
    best = scores.amax(dim=1)
    passed = best > score_threshold
    best = best.masked_fill(~passed, PADDING_SCORE)
    scores = scores.masked_fill(~passed[:, None], PADDING_SCORE)
    boxes = decode_boxes(raw.box_deltas.float(), raw.anchors)
    if nms == "cross_class":
        index, labels, kept = cross_class_nms_padded(boxes, scores, iou_threshold, top_k)
        is_final = passed.new_ones(())
    else:
        left_out = best.new_full((), PADDING_SCORE)
        anchors = torch.arange(len(best), device=best.device)
        if few is not None and len(best) > few:
            ranked, anchors = best.topk(few + 1)
            left_out, anchors = ranked[-1], anchors[:-1].sort()[0]  # equal scores keep their order
        index, labels, kept = fast_nms_padded(
            boxes[anchors], scores[anchors], iou_threshold, top_k, max_detections
        )
        index = anchors[index]
        # Boxes suppress only worse ones: those left out change nothing if none of them passed, or
        # if better ones fill all slots.
        is_final = left_out == PADDING_SCORE
        if 0 < len(kept) == max_detections:
            is_final = is_final | (kept[-1] > left_out)
    valid = kept != PADDING_SCORE
    if admit is not None:
        valid = valid & admit(kept, labels)
    candidates = Candidates(boxes[index], kept, labels, raw.coefficients[index].float())
    return _PaddedCandidates(candidates, valid, is_final)


def _fetch_valid(slots: Sequence[_PaddedCandidates]) -> tuple[list[Tensor], list[bool]]:
    """Fetch the valid slots of each image, (D,) bool on the CPU, and which images are final."""
    if not slots:
        return [], []
    rows = [torch.cat((slot.valid, slot.is_final[None])) for slot in slots]
    (told,) = fetch(torch.stack(rows))  # the one wait for a GPU
    return list(told[:, :-1]), told[:, -1].tolist()  # sync: on the CPU

"""Candidates from raw predictions: score filter, box decoding, non-maximum suppression."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from .boxes import decode_boxes
from .nms import cross_class_nms, fast_nms, greedy_nms
from .structures import Candidates, Predictions

Nms = Literal["fast", "cross_class", "greedy"]


def detect(
    predictions: Predictions,
    score_threshold: float = 0.05,
    iou_threshold: float = 0.5,
    top_k: int = 200,
    max_detections: int = 100,
    nms: Nms = "fast",
) -> list[Candidates]:
    """Find the objects of each image, in float32.

    Args:
        predictions: raw outputs for B images.
        score_threshold: anchors whose best class scores at or below this are dropped.
        iou_threshold: overlap above which the worse of two boxes is suppressed.
        top_k: boxes per class ("fast") or in all ("cross_class") that enter suppression.
        max_detections: objects kept per image; "cross_class", as released, heeds only top_k.
        nms: "fast" (YOLACT sec. 5), "cross_class" (the same over all classes at once), or
            "greedy" (the exact classic).

    Returns:
        Candidates for each image, highest score first.

    Raises:
        ValueError: unknown `nms`.
    """
    if nms not in get_args(Nms):
        raise ValueError(f"nms={nms!r} is none of {', '.join(get_args(Nms))}")
    found = []
    for logits, deltas, coefficients in zip(
        predictions.class_logits, predictions.box_deltas, predictions.coefficients, strict=True
    ):
        anchors, scores = _above_threshold(logits.float(), score_threshold)
        boxes = decode_boxes(deltas[anchors].float(), predictions.anchors[anchors])
        if nms == "fast":
            kept = fast_nms(boxes, scores, iou_threshold, top_k, max_detections)
        elif nms == "cross_class":
            kept = cross_class_nms(boxes, scores, iou_threshold, top_k)
        else:
            kept = greedy_nms(boxes, scores, iou_threshold, score_threshold, max_detections)
        index, labels, kept_scores = kept
        found.append(
            Candidates(boxes[index], kept_scores, labels, coefficients[anchors[index]].float())
        )
    return found


def _above_threshold(logits: Tensor, score_threshold: float) -> tuple[Tensor, Tensor]:
    """Return the (N,) anchors whose best class is above the threshold, and their (N, C) scores."""
    # Against background alone a class scores at least as high as against all classes: what fails
    # that cheap test, which is nearly everything, needs no softmax.
    bound = (logits[:, 1:].amax(dim=1) - logits[:, 0]).sigmoid()
    anchors = (bound > score_threshold * (1 - 1e-3)).nonzero().squeeze(1)
    scores = torch.softmax(logits[anchors], dim=1)[:, 1:]
    keep = scores.amax(dim=1) > score_threshold
    return anchors[keep], scores[keep]

"""Scores of tracking in videos: identities, masks, and flicker."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from yolact.video.overlaps import Masks, Overlaps, mask_overlaps, match_pairs

MATCHED = 0.5
"""Minimum overlap of an object and a detection that counts as the same one."""


class TrackScores(NamedTuple):
    """Scores of a video, each in [0, 1] except for the switches.

    Attributes:
        idf1: share of objects and detections that agree under the best one-to-one assignment of
            tracks for the whole video; E. Ristani et al., Performance Measures and a Data Set for
            Multi-Target, Multi-Camera Tracking, ECCV Workshops 2016.
        mean_iou: mean IoU of every object in every frame with its detection; 0 if it is not found.
        switches: how often an object has another track than when it was last found.
        flicker: 1 - mean overlap of neighbouring frames' masks after motion compensation.
    """

    idf1: float
    mean_iou: float
    switches: int
    flicker: float


class TrackScorer:
    """Collects frame after frame of a video, or of several, and scores them together."""

    def __init__(self) -> None:
        self._pairs: dict[tuple[Hashable, Hashable], int] = defaultdict(int)
        self._last: dict[Hashable, Hashable] = {}
        self._overlaps: list[float] = []
        self._steadiness: list[float] = []
        self._found = self._switches = 0

    def add(
        self, truth_ids: Sequence[Hashable], found_ids: Sequence[Hashable], overlaps: Overlaps
    ) -> None:
        """Add a frame.

        Args:
            truth_ids: ids of M objects, which must differ between videos.
            found_ids: ids of N detections, which must differ between videos.
            overlaps: (M, N) intersection over union of their masks, see `mask_overlaps`.
        """
        self._found += len(found_ids)
        found_best = [float(overlaps[pair]) for pair in match_pairs(overlaps)]
        self._overlaps += found_best + [0.0] * (len(truth_ids) - len(found_best))
        for row, column in match_pairs(np.where(overlaps >= MATCHED, overlaps, 0.0)):
            truth, found = truth_ids[row], found_ids[column]
            self._switches += self._last.get(truth, found) != found
            self._last[truth] = found
        for row, column in np.argwhere(overlaps >= MATCHED):
            self._pairs[truth_ids[row], found_ids[column]] += 1

    def add_step(self, carried: Masks, masks: Masks) -> None:
        """Add the overlap of a frame and the next: detections that appear or vanish count as 0.

        Args:
            carried: (N, H, W), the masks of a frame, moved to their expected place in the next.
            masks: (M, H, W), the masks of the next frame.
        """
        overlaps = mask_overlaps(carried, masks)
        kept = [float(overlaps[pair]) for pair in match_pairs(overlaps)]
        self._steadiness += kept + [0.0] * (max(overlaps.shape) - len(kept))

    def summarize(self) -> TrackScores:
        """Score the added frames; NaN if there was nothing to score."""
        objects = len(self._overlaps)
        total = objects + self._found
        return TrackScores(
            2 * _agreeing(self._pairs) / total if total else np.nan,
            float(np.mean(self._overlaps)) if objects else np.nan,
            self._switches,
            1 - float(np.mean(self._steadiness)) if self._steadiness else np.nan,
        )


def _agreeing(counts: Mapping[tuple[Hashable, Hashable], int]) -> int:
    """Return the number of agreements of two sets of tracks under the best assignment."""
    rows = {truth: row for row, truth in enumerate(dict.fromkeys(pair[0] for pair in counts))}
    columns = {found: column for column, found in enumerate(dict.fromkeys(p[1] for p in counts))}
    table = np.zeros((len(rows), len(columns)))
    for (truth, found), count in counts.items():
        table[rows[truth], columns[found]] = count
    return int(sum(table[pair] for pair in match_pairs(table)))

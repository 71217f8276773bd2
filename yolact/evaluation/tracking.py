"""How well objects are followed through a video: identities, masks, and how steady they are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from yolact.video.overlaps import Masks, Overlaps, mask_overlaps, match_pairs

MATCHED = 0.5
"""Least overlap of an object and what counts as the same one."""


class TrackScores(NamedTuple):
    """Scores of a video, each in [0, 1] but for the switches.

    Attributes:
        idf1: share of objects and detections that agree under the best one-to-one assignment of
            tracks for the whole video; E. Ristani et al., Performance Measures and a Data Set for
            Multi-Target, Multi-Camera Tracking, ECCV Workshops 2016.
        mean_iou: of every object in every frame with its detection; 0 for one that is not found.
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
            truth_ids: of M objects; those of another video must differ.
            found_ids: of N detections; likewise.
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
        """Add what changes from a frame to the next: detections that come and go count as 0.

        Args:
            carried: (N, H, W), the masks of a frame, moved to where they should be in the next.
            masks: (M, H, W), those of the next.
        """
        overlaps = mask_overlaps(carried, masks)
        kept = [float(overlaps[pair]) for pair in match_pairs(overlaps)]
        self._steadiness += kept + [0.0] * (max(overlaps.shape) - len(kept))

    def summarize(self) -> TrackScores:
        """Score what was added; NaN where there was nothing to score."""
        objects = len(self._overlaps)
        total = objects + self._found
        return TrackScores(
            2 * _agreeing(self._pairs) / total if total else np.nan,
            float(np.mean(self._overlaps)) if objects else np.nan,
            self._switches,
            1 - float(np.mean(self._steadiness)) if self._steadiness else np.nan,
        )


def _agreeing(counts: Mapping[tuple[Hashable, Hashable], int]) -> int:
    """Return in how many frames two sets of tracks agree, under the best assignment."""
    rows = {truth: row for row, truth in enumerate(dict.fromkeys(pair[0] for pair in counts))}
    columns = {found: column for column, found in enumerate(dict.fromkeys(p[1] for p in counts))}
    table = np.zeros((len(rows), len(columns)))
    for (truth, found), count in counts.items():
        table[rows[truth], columns[found]] = count
    return int(sum(table[pair] for pair in match_pairs(table)))

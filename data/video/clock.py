"""Times of frames, out of the time stamps that a container or sender gives them."""

from __future__ import annotations

from collections import Counter

_SUSPICIOUS = (1.0, 0.1)  # seconds between two frames, and beside a damaged one
_CONSTANT, _ENOUGH = 0.95, 25  # of the frames; frames to tell by
_DISORDER = 1.0  # seconds that stamps may go back without a new beginning
_LONGEST_GAP = 24 * 3600.0


class Gaps:
    """Tells what is missing where all frames but a few follow each other at one rate."""

    def __init__(self) -> None:
        self._steps: Counter[int] = Counter()  # by milliseconds
        self._gaps, self._count, self._was_corrupt = 0.0, 0, False

    def note(self, seconds: float, is_corrupt: bool) -> None:
        """Take the time between two frames; tell whether the later one is known to be damaged."""
        near, self._was_corrupt = self._was_corrupt or is_corrupt, is_corrupt
        if seconds > _SUSPICIOUS[near]:
            self._gaps, self._count = self._gaps + seconds, self._count + 1
        else:
            self._steps[round(1000 * seconds)] += 1

    def lost_frames(self) -> int:
        """Return about how many frames are missing; 0 where their rate varies."""
        if not self._gaps or self._steps.total() < _ENOUGH:
            return 0
        usual, _ = self._steps.most_common(1)[0]
        near = sum(self._steps[step] for step in (usual - 1, usual, usual + 1))
        is_constant = usual > 0 and near >= _CONSTANT * self._steps.total()
        return round(1000 * self._gaps / usual) - self._count if is_constant else 0


class Clock:
    """Seconds since the first frame, which never go back.

    Stamps count as they are. Where they jump, because recordings were joined or a sender began
    anew, they are taken to go on from the frame before.

    Args:
        fps: frames per second, for frames without a stamp.
        end: seconds beyond which no stamp is believed; None where nobody knows.

    Attributes:
        start: stamp at which the video begins now, in seconds; None before the first one.
        seconds: of the latest frame.
    """

    def __init__(self, fps: float, end: float | None = None):
        self.start: float | None = None
        self.seconds = 0.0
        self._step, self._end = 1 / fps, end
        self._has_begun = False

    def advance(self, stamp: float | None, missed: int = 0) -> float:
        """Return the time of the next frame.

        Args:
            stamp: its seconds in the container; None without one.
            missed: frames without a time between it and the one before.
        """
        expected = self.seconds + (1 + missed) * self._step if self._has_begun else 0.0
        self._has_begun = True
        if stamp is None:
            self.seconds = expected
            return expected
        if self.start is None or not self._is_likely(stamp - self.start):
            self.start = stamp - expected
        self.seconds = max(self.seconds, stamp - self.start)
        return self.seconds

    def restart(self, seconds: float) -> None:
        """Let the next stamp be that of a frame at so many seconds."""
        self.start, self.seconds = None, max(self.seconds, seconds - self._step)

    def _is_likely(self, seconds: float) -> bool:
        ahead = seconds - self.seconds
        is_inside = self._end is None or seconds <= self._end
        return -_DISORDER <= ahead <= _LONGEST_GAP and is_inside

"""Names of the checkpoints of training runs, and a search for them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from yolact.hub.released import OFFICIAL_WEIGHTS


@dataclass(frozen=True)
class CheckpointName:
    """The parts of a checkpoint's file name."""

    run: str
    iteration: int
    interrupted: bool
    path: Path

    @classmethod
    def parse(cls, path: Path) -> CheckpointName | None:
        """Parse "<run>_<epoch>_<iteration>[_interrupt].pth"; return None for any other name."""
        match = re.fullmatch(r"(.+)_\d+_(\d+)(_interrupt)?\.pth", path.name)
        return match and cls(match[1], int(match[2]), bool(match[3]), path)


def checkpoint_path(
    folder: Path, name: str, epoch: int, iteration: int, interrupted: bool = False
) -> Path:
    """Return the file name of a run's checkpoint, as the original names it."""
    return folder / f"{name}_{epoch}_{iteration}{'_interrupt' if interrupted else ''}.pth"


def find_checkpoints(folder: Path, name: str | None, interrupted: bool | None = None) -> list[Path]:
    """Return the checkpoints of training runs in a folder, the last run and iteration at the end.

    Released files, which may be in the same folder under similar names, are left out.

    Args:
        folder: folder to search.
        name: name of the run; None for any.
        interrupted: True for only those saved by Ctrl-C, False for only the others, None for all.
    """
    released = {official.file_name for official in OFFICIAL_WEIGHTS.values()}
    paths = (path for path in folder.glob("*.pth") if path.name not in released)
    found = [
        n
        for path in paths
        if (n := CheckpointName.parse(path))
        and name in (None, n.run)
        and interrupted in (None, n.interrupted)
    ]
    times = {n.path: n.path.stat().st_mtime_ns for n in found}
    latest = {
        run: max(times[n.path] for n in found if n.run == run) for run in {n.run for n in found}
    }
    # By iteration within a run, as copying and restoring files changes their times.
    found.sort(key=lambda n: (latest[n.run], n.run, n.iteration, times[n.path]))
    return [n.path for n in found]

"""The record of a run: results.csv, its curves as results.png, and TensorBoard's events."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from yolact.drawing.plots import collect_curves, draw_curves, save_figure
from yolact.evaluation.metrics import CocoMetrics
from yolact.files import whole_file

logger = logging.getLogger(__name__)

Row = dict[str, float]

_AVERAGES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_DRAWN = {
    "mask_AP": "mask AP",
    "mask_AP50": "mask AP50",
    "mask_AP75": "mask AP75",
    "box_AP": "box AP",
}


class TensorBoard:
    """Scalars for TensorBoard, which is an optional extra.

    A disk that cannot be written to causes a warning and the loss of further scalars, but does not
    end the run.

    Args:
        folder: folder for the event files.
        iteration: iteration at which the run continues; later events of an earlier run are hidden.
        interval: steps between the losses that are written.

    Raises:
        ValueError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, iteration: int = 0, interval: int = 10) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError("TensorBoard is not installed: pip install tensorboard") from error
        self._interval, self._is_full = interval, False
        self._writer: Any = SummaryWriter(str(folder), purge_step=iteration + 1, flush_secs=30)

    def train(self, losses: Mapping[str, float], iteration: int, learning_rate: float) -> None:
        """Write the losses of a step, if its turn has come."""
        if iteration % self._interval == 0:
            with self._until_full():
                for name, value in losses.items():
                    self._writer.add_scalar(f"loss/{name}", value, iteration)
                self._writer.add_scalar("learning_rate", learning_rate, iteration)

    def validation(self, row: Mapping[str, float], iteration: int) -> None:
        """Write the average precisions of a line of results.csv."""
        with self._until_full():
            for name, value in row.items():
                kind, _, number = name.partition("_")
                if kind in ("box", "mask") and math.isfinite(value):
                    self._writer.add_scalar(f"{kind}/{number}", value, iteration)
            self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        with self._until_full():
            self._writer.close()

    @contextmanager
    def _until_full(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._is_full:  # its writer raises the same error for ever
                logger.warning("TensorBoard's events end here: %s", error)
            self._is_full = True


class RunFiles:
    """Writes the files that show the progress of a run; each file is complete at any time.

    Args:
        folder: folder for results.csv, with a line for each validation, and results.png.
        iteration: iteration at which the run begins or continues. Lines up to it are kept; later
            ones, of steps that were lost when the run was stopped, are replaced.
        tensorboard: gets the same numbers, if given.

    Example:
        >>> files = RunFiles(Path("logs/mine"), iteration=progress.iteration)
        >>> files.train(losses, iteration, learning_rate, seconds, images)  # after each step
        >>> files.validation(metrics, epoch, iteration)
    """

    def __init__(
        self, folder: Path, iteration: int = 0, tensorboard: TensorBoard | None = None
    ) -> None:
        self._csv, self._png = folder / "results.csv", folder / "results.png"
        self._rows = [row for row in read_results(self._csv) if row["iteration"] <= iteration]
        self._tensorboard = tensorboard
        self._begin()

    def train(
        self,
        losses: Mapping[str, float],
        iteration: int,
        learning_rate: float,
        seconds: float,
        images: int,
    ) -> None:
        """Count a step in the means of the next line.

        Args:
            losses: by name, already weighted.
            iteration: steps taken, this one included.
            learning_rate: the one in force.
            seconds: that the step took.
            images: that it saw.
        """
        for name, value in losses.items():
            total, steps = self._losses.get(name, (0.0, 0))
            is_sound = math.isfinite(value)
            self._losses[name] = (total + value, steps + 1) if is_sound else (total, steps)
        self._learning_rate = learning_rate
        self._seconds += seconds
        self._images += images
        if self._tensorboard is not None:
            self._tensorboard.train(losses, iteration, learning_rate)

    def validation(self, metrics: CocoMetrics, epoch: int, iteration: int) -> None:
        """Add a line, draw the curves, and begin new means.

        A disk that cannot be written to costs a warning, not the run; the next validation writes
        the line again.
        """
        row = self._row(metrics, epoch, iteration)
        self._rows = [row for row in self._rows if row["iteration"] < iteration] + [row]
        self._begin()
        if self._tensorboard is not None:
            self._tensorboard.validation(row, iteration)
        try:
            write_results(self._csv, self._rows)
            save_figure(draw_results(self._rows, self._csv.parent.name), self._png)
        except OSError as error:
            logger.warning("%s is not up to date: %s", self._csv, error)

    def close(self) -> None:
        """Finish TensorBoard's file; the others are finished."""
        if self._tensorboard is not None:
            self._tensorboard.close()

    def _begin(self) -> None:
        self._losses: dict[str, tuple[float, int]] = {}  # sum, and number of steps
        self._learning_rate, self._seconds, self._images = math.nan, 0.0, 0

    def _row(self, metrics: CocoMetrics, epoch: int, iteration: int) -> Row:
        losses = {
            f"loss_{name}": total / steps if steps else math.nan  # every step was infinite
            for name, (total, steps) in self._losses.items()
        }
        total = {"loss_total": math.fsum(losses.values())} if losses else {}
        kinds = {"box": metrics.box.coco, "mask": metrics.mask.coco}
        return {
            "epoch": epoch,
            "iteration": iteration,
            **losses,
            **total,
            "learning_rate": self._learning_rate,
            **{f"{kind}_{name}": kinds[kind][name] for kind in kinds for name in _AVERAGES},
            "seconds": self._seconds,
            "images_per_second": self._images / self._seconds if self._seconds else math.nan,
        }


def read_results(path: Path) -> list[Row]:
    """Read results.csv; what is undefined is NaN, and lines that make no sense are left out.

    Args:
        path: of the file, which need not exist.

    Returns:
        A row for each validation, in the order of the iterations.
    """
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="replace").replace("\0", "")
    try:
        rows = [row for line in csv.DictReader(text.splitlines()) if (row := _numbers(line))]
    except csv.Error as error:
        logger.warning("%s cannot be read, and will be written anew: %s", path, error)
        return []
    return sorted(rows, key=lambda row: row["iteration"])


def write_results(path: Path, rows: list[Row]) -> None:
    """Write results.csv; a column that some rows lack is empty there."""
    columns = dict.fromkeys(name for row in rows for name in row)
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows({name: _text(value) for name, value in row.items()} for row in rows)


def draw_results(rows: list[Row], title: str) -> Figure:
    """Draw the losses and the average precisions of a run over its iterations."""
    losses = ({name[5:]: row[name] for name in row if name.startswith("loss_")} for row in rows)
    averages = ({text: row.get(name) for name, text in _DRAWN.items()} for row in rows)
    iterations = [int(row["iteration"]) for row in rows]
    curves = collect_curves(iterations, losses), collect_curves(iterations, averages)
    return draw_curves(title, {"loss": curves[0], "AP (%)": curves[1]})


def _numbers(line: Mapping[str, str]) -> Row:
    """Return the numbers of a line, or nothing if it does not tell its iteration."""
    row = {name: _number(text) for name, text in line.items() if name}
    return row if math.isfinite(row.get("iteration", math.nan)) else {}


def _number(text: str) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):  # a line too short, or an empty cell
        return math.nan


def _text(value: float) -> str:
    if not math.isfinite(value):
        return ""
    return str(int(value)) if value == int(value) else f"{value:.6g}"

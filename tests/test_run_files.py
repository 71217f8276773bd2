from __future__ import annotations

import csv
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import cv2
import pytest
from support.coco_rectangles import TRUTH, detections, evaluated, ground_truth, perfect

from yolact.evaluation.metrics import CocoMetrics
from yolact.training.record import RunFiles, TensorBoard, read_results

LOSSES = {"box": 2.0, "mask": 4.0}


@pytest.fixture(scope="module")
def metrics() -> CocoMetrics:
    return evaluated(ground_truth(TRUTH), perfect() | {2: detections()}).summarize()


def go_on(files: RunFiles, metrics: CocoMetrics, first: int, last: int) -> None:
    """Train from one iteration to another, and validate after every fifth."""
    for iteration in range(first, last + 1):
        losses = {name: loss / iteration for name, loss in LOSSES.items()}
        files.train(losses, iteration, 1e-3 / iteration, seconds=0.5, images=8)
        if iteration % 5 == 0:
            files.validation(metrics, iteration // 5, iteration)


def lines(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_nothing_is_written_before_the_first_validation(tmp_path: Path) -> None:
    files = RunFiles(tmp_path / "run")
    files.train(LOSSES, 1, 1e-3, 0.5, 8)
    files.close()
    assert not list(tmp_path.iterdir())
    assert read_results(tmp_path / "results.csv") == []


def test_a_line_for_each_validation(tmp_path: Path, metrics: CocoMetrics) -> None:
    go_on(RunFiles(tmp_path), metrics, 1, 10)
    first, second = lines(tmp_path)
    assert list(first) == [
        *("epoch", "iteration", "loss_box", "loss_mask", "loss_total", "learning_rate"),
        *("box_AP", "box_AP50", "box_AP75", "box_APs", "box_APm", "box_APl"),
        *("mask_AP", "mask_AP50", "mask_AP75", "mask_APs", "mask_APm", "mask_APl"),
        *("seconds", "images_per_second"),
    ]
    assert (first["epoch"], first["iteration"], second["iteration"]) == ("1", "5", "10")
    means = [sum(2 / n for n in span) / 5 for span in (range(1, 6), range(6, 11))]
    assert [float(row["loss_box"]) for row in (first, second)] == pytest.approx(means, rel=1e-5)
    assert float(second["loss_total"]) == pytest.approx(3 * means[1], rel=1e-5)
    assert (first["learning_rate"], second["learning_rate"]) == ("0.0002", "0.0001")
    assert (first["seconds"], first["images_per_second"]) == ("2.5", "16")
    for name in ("AP", "AP50", "AP75", "APs", "APm", "APl"):
        for kind, values in (("box", metrics.box.coco), ("mask", metrics.mask.coco)):
            assert float(first[f"{kind}_{name}"]) == pytest.approx(values[name], rel=1e-5)
    assert cv2.imread(str(tmp_path / "results.png")).shape[0] > 300


@pytest.mark.parametrize("resumed_at", [10, 7, 0])  # 7: of an older checkpoint
def test_a_resumed_run_goes_on_in_the_same_file(
    tmp_path: Path, metrics: CocoMetrics, resumed_at: int
) -> None:
    go_on(RunFiles(tmp_path), metrics, 1, 10)
    before = lines(tmp_path)
    files = RunFiles(tmp_path, resumed_at)
    assert lines(tmp_path) == before  # nothing is lost by starting
    go_on(files, metrics, resumed_at + 1, 15)
    after = lines(tmp_path)
    assert [int(row["iteration"]) for row in after] == [5, 10, 15]
    kept = resumed_at // 5
    assert after[:kept] == before[:kept]


def test_lines_of_lost_steps_give_way(tmp_path: Path, metrics: CocoMetrics) -> None:
    go_on(RunFiles(tmp_path), metrics, 1, 10)
    files = RunFiles(tmp_path, 7)  # the best weights, say, and now validated less often
    files.validation(metrics, 3, 12)
    assert [row["iteration"] for row in lines(tmp_path)] == ["5", "12"]


def test_validating_twice_at_one_iteration_leaves_one_line(
    tmp_path: Path, metrics: CocoMetrics
) -> None:
    files = RunFiles(tmp_path)
    go_on(files, metrics, 1, 5)
    files.validation(metrics, 1, 5)
    assert [row["iteration"] for row in lines(tmp_path)] == ["5"]


def test_undefined_numbers_are_empty(tmp_path: Path, metrics: CocoMetrics) -> None:
    files = RunFiles(tmp_path)
    files.train({"box": math.nan, "mask": math.inf}, 1, 0.1, 0.0, 0)
    undefined = dict.fromkeys(metrics.box.coco, math.nan)
    files.validation(replace(metrics, box=replace(metrics.box, coco=undefined)), 0, 1)
    (row,) = lines(tmp_path)
    assert row["loss_box"] == row["loss_mask"] == row["loss_total"] == row["box_AP"] == ""
    assert row["images_per_second"] == ""
    assert float(row["mask_AP"]) > 0
    assert (tmp_path / "results.png").exists()


def test_other_losses_get_columns_of_their_own(tmp_path: Path, metrics: CocoMetrics) -> None:
    go_on(RunFiles(tmp_path), metrics, 1, 5)
    files = RunFiles(tmp_path, 5)
    files.train({"box": 1.0, "mask_iou": 0.5}, 6, 0.1, 1.0, 8)
    files.validation(metrics, 2, 6)
    first, second = lines(tmp_path)
    assert (first["loss_mask_iou"], second["loss_mask_iou"]) == ("", "0.5")
    assert second["loss_mask"] == ""


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (b"", 0),
        (b"\xff\xfe\x00\x00", 0),
        (b"epoch,iteration\n1\n", 0),
        (b"no,such,columns\n1,2,3\n", 0),
        (b"epoch,iteration\n1,5\n2,ten\n3,15,16,17\n4,", 2),
        (b"epoch,iteration\n" + b"1" * 200_000 + b"," + b"2" * 200_000, 0),
    ],
)
def test_a_file_of_something_else_does_not_stop_a_run(
    tmp_path: Path, metrics: CocoMetrics, content: bytes, kept: int
) -> None:
    (tmp_path / "results.csv").write_bytes(content)
    files = RunFiles(tmp_path, 100)
    files.validation(metrics, 20, 101)
    assert len(lines(tmp_path)) == kept + 1


def test_a_full_disk_costs_a_warning_and_no_line(
    tmp_path: Path, metrics: CocoMetrics, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    files = RunFiles(folder)
    folder.write_text("a file where the folder should be")
    go_on(files, metrics, 1, 5)
    assert "not up to date" in caplog.text
    folder.unlink()
    go_on(files, metrics, 6, 10)
    assert [row["iteration"] for row in lines(folder)] == ["5", "10"]


def test_tensorboard_is_asked_for_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="pip install tensorboard") as error:
        TensorBoard(tmp_path)
    assert len(str(error.value).splitlines()) == 1


def test_tensorboard_gets_the_numbers(tmp_path: Path, metrics: CocoMetrics) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for first, last in ((1, 15), (11, 20)):  # the second goes on from iteration 10
        files = RunFiles(tmp_path, first - 1, TensorBoard(tmp_path / "board", first - 1, 5))
        go_on(files, metrics, first, last)
        files.close()
    board = events.EventAccumulator(str(tmp_path / "board")).Reload()
    assert [event.step for event in board.Scalars("loss/box")] == [5, 10, 15, 20]
    assert board.Scalars("mask/AP50")[-1].value == pytest.approx(metrics.mask.coco["AP50"])


def test_a_full_disk_ends_the_events_of_tensorboard_alone(
    tmp_path: Path,
    metrics: CocoMetrics,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Full:
        def __getattr__(self, name: str) -> object:
            raise OSError(28, "No space left on device")

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = lambda *_, **__: Full()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    files = RunFiles(tmp_path, 0, TensorBoard(tmp_path / "board", 0, 1))
    go_on(files, metrics, 1, 5)
    go_on(files, metrics, 6, 10)
    files.close()
    assert caplog.text.count("events end here: [Errno 28] No space left on device") == 1
    assert [row["iteration"] for row in lines(tmp_path)] == ["5", "10"]

"""eval.py, run as a user would, with a tiny untrained network."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.evaluate import evaluate, main

from data.catalog import DataOptions
from data.classes import SHAPE_CLASSES
from yolact import get_config
from yolact.checkpoint import Checkpoint
from yolact.cli.evaluate import validation_set
from yolact.runs.provenance import as_text, provenance
from yolact.training.setup import open_training_data

pytestmark = pytest.mark.usefixtures("in_evaluation_place")

TILES = ["--tile=50", "--overlap=0.3", "--no_overview"]


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.lstrip().startswith(("box |", "mask |"))]


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--max_images=0"],
        ["--max_images=2", "--no_bar", "--per_class"],
        ["--shuffle", "--seed=3"],
        ["--no_sort", "--fast_nms=False"],
        ["--cross_class_nms=True"],
        ["--detect"],
        ["--detect", "--per_class"],
        ["--no_crop"],
        ["--smooth_masks"],
        ["--score_threshold=0.9"],
        ["--precision=bfloat16"],
        ["--cuda=False", "--set=detect.top_k=10"],
        ["--config=yolact_resnet18"],
        TILES,
    ],
)
def test_average_precision(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(*flags) == 0
    out = capsys.readouterr().out
    assert len(rows(out)) == 2 - ("--detect" in flags)
    assert "Average Precision" in out
    assert ("crescent" in out) == ("--per_class" in flags)
    kinds = ["box", "mask"][: 1 if "--detect" in flags else 2]
    titles = [line.split()[1:] for line in out.splitlines() if line.startswith("class ")]
    assert titles == [kinds] * ("--per_class" in flags)


@pytest.mark.parametrize(
    ("trained_on", "trained_val", "val", "told"),
    [
        ("alone", "", "", "alone: the AP is of images that the model learned"),
        ("other/../alone", "", "", "alone: the AP is of images that the model learned"),
        (
            "other",
            "0.5",
            "",
            "alone has no val split: if the model was trained on a part of it, add",
        ),
        ("other", "", "", ""),
        ("alone", "", "0.5", ""),
        ("alone", "0.5", "0.5", ""),
    ],
)
def test_an_ap_of_training_images_is_told(
    trained_on: str,
    trained_val: str,
    val: str,
    told: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shutil.copytree("scenes/val", "alone", dirs_exist_ok=True)
    shutil.copy("scenes/annotations/instances_val.json", "alone/labels.json")
    shapes = get_config("yolact_resnet18_shapes")
    trained = replace(shapes, dataset=trained_on, data=DataOptions(val=trained_val))
    dataset = validation_set(replace(shapes, dataset="alone", data=DataOptions(val=val)), trained)
    assert len(dataset) == (2 if val else 3)
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert "".join(warnings).startswith(told)
    assert bool(warnings) == bool(told)


@pytest.mark.parametrize(
    ("dataset", "val", "said"),
    [
        ("gone", "", "no dataset 'gone'.*of the checkpoint, relative to where .*--dataset=path"),
        ("scenes", "gone", "no dataset 'gone'.*of the checkpoint, relative"),
        ("typed", "", "no dataset 'typed'((?!checkpoint).)*$"),
    ],
)
def test_a_dataset_that_only_the_checkpoint_names(dataset: str, val: str, said: str) -> None:
    shapes = replace(get_config("yolact_resnet18_shapes"), data=DataOptions(val=val))
    trained = replace(shapes, dataset="scenes" if val else "gone")
    config = replace(shapes, dataset=dataset)
    with pytest.raises((FileNotFoundError, ValueError), match=said):
        validation_set(config, trained)
    with pytest.raises((FileNotFoundError, ValueError), match=said):
        open_training_data(config, Checkpoint(Path("a.pth"), {}, False, trained), True)


def test_more_objects_than_can_be_found_are_told(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree("scenes", "crowded", dirs_exist_ok=True)
    annotations = Path("crowded/annotations/instances_val.json")
    content = json.loads(annotations.read_text())
    first = content["annotations"][0]
    more = [{**first, "id": 10**6 + number} for number in range(400)]
    annotations.write_text(json.dumps({**content, "annotations": content["annotations"] + more}))
    assert evaluate("--dataset=crowded", "--max_detections=100") == 0
    assert caplog.text.count("1 of 3 images has more than 100 objects (up to 4") == 1
    assert "): detections beyond that are dropped or do not count; raise --max_det" in caplog.text
    out = capsys.readouterr().out
    assert out.count("maxDets=100 ]") == 2 * 10
    few = len(json.loads(Path("results/ap_data.json").read_text())["detections"])
    caplog.clear()
    assert evaluate("--dataset=crowded") == 0
    assert "objects: 500 detections are kept of each and count in an AP" in caplog.text
    out = capsys.readouterr().out
    assert out.count("maxDets=500 ]") == 2 * 10
    many = len(json.loads(Path("results/ap_data.json").read_text())["detections"])
    assert many > few == 300


@pytest.mark.parametrize(
    "flags", [["--report_threshold=0.2", "--shuffle", "--seed=3"], ["--detect", "--resume"], TILES]
)
def test_metrics_and_report_as_files(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--ap_data_file=kept.json") == 0
    capsys.readouterr()
    files = ["--json=out/ap.json", "--report=out/report", "--ap_data_file=kept.json"]
    assert evaluate(*files, *flags) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-2:] == ["out/ap.json", "out/report/index.html"]
    content = json.loads(Path("out/ap.json").read_text())
    assert content == json.loads(Path("out/report/metrics.json").read_text())
    assert (content["model"], content["dataset"]) == ("yolact_resnet18", "scenes")
    assert (content["weights"], content["images"]) == ("tiny.pth", 3)
    assert [row["name"] for row in content["per_class"]] == list(SHAPE_CLASSES.names)
    assert (content["mask"] is None) == ("--detect" in flags)
    assert content["made_by"] == {**provenance(), "seed": 0}
    assert content["settings"]["train"]["seed"] == 0
    assert as_text(content["made_by"]) in Path("out/report/index.html").read_text()
    assert content.get("order") == ("shuffled, seed 3" if "--shuffle" in flags else None)
    assert content.get("tiles") == ("50, overlap 0.3, no overview" if flags == TILES else None)
    assert json.loads(Path("kept.json").read_text())["made_by"] == provenance()
    assert f"{content['box']['AP'] / 100:.3f}" in out
    assert list(Path("out/report/viewer/large").iterdir())


def test_no_annotations_no_report(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree("scenes", "test_set")
    annotations = Path("test_set/annotations/instances_val.json")
    content = json.loads(annotations.read_text())
    del content["annotations"]
    annotations.write_text(json.dumps(content))
    assert evaluate("--dataset=test_set") == 0
    assert evaluate("--dataset=test_set", "--report=out/nothing") == 1
    assert "error: no annotations, so no AP" in capsys.readouterr().err
    assert not Path("out/nothing").exists()


def test_files_for_others(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--output_coco_json", "--output_web_json", "--web_det_path=web"]
    assert evaluate(*flags, "--bbox_det_file=b.json", "--mask_det_file=m.json") == 0
    assert capsys.readouterr().out.split() == ["b.json", "m.json", "web/yolact_resnet18.json"]
    boxes, masks = (json.loads(Path(name).read_text()) for name in ("b.json", "m.json"))
    assert len(boxes) == len(masks) > 0
    assert set(boxes[0]) == {"image_id", "category_id", "bbox", "score"}
    assert isinstance(masks[0]["segmentation"]["counts"], str)
    assert json.loads(Path("web/yolact_resnet18.json").read_text())["images"]


def test_boxes_alone_for_others() -> None:
    for file in Path("results").glob("*_detections.json"):
        file.unlink()
    assert evaluate("--detect", "--output_coco_json", "--bbox_det_file=b1.json") == 0
    assert json.loads(Path("b1.json").read_text())
    assert not list(Path("results").glob("mask_detections.json"))


def test_files_for_others_name_no_category_that_the_dataset_lacks(tmp_path: Path) -> None:
    content = json.loads(next(Path("scenes").rglob("*val*.json")).read_text())
    content["categories"] = content["categories"][2:4]
    known = {entry["id"] for entry in content["categories"]}
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] in known]
    (tmp_path / "few.json").write_text(json.dumps(content))
    (tmp_path / "images").symlink_to(Path("scenes/val").resolve())
    files = [f"--bbox_det_file={tmp_path}/b.json", f"--mask_det_file={tmp_path}/m.json"]
    assert evaluate("--output_coco_json", *files, f"--dataset={tmp_path}/few.json") == 0
    for name in ("b.json", "m.json"):
        found = json.loads((tmp_path / name).read_text())
        assert {part["category_id"] for part in found} == known


@pytest.mark.parametrize(
    "flags",
    [
        ["--compare=top_k=3"],
        ["--compare=nonsense"],
        ["--compare=video_multiframe=x"],
        ["--compare=video_multiframe=0"],
        ["--benchmark", "--batch_sizes=0"],
        ["--batch_sizes=2"],
        ["--json=a.json", "--image=scenes/val/000001.jpg"],
        ["--json=a.json", "--output_web_json"],
        ["--report=out", "--benchmark"],
        ["--report=out", "--video=clip.mp4"],
        ["--report=out", "--output_coco_json"],
        ["--report_threshold=0.3"],
        ["--report_images=9"],
        ["--report=out", "--report_images=-1"],
        ["--report=out", "--report_threshold=30"],
        ["--report=clip.mp4"],
        ["--max_detections=0"],
        ["--benchmark", "--image=scenes/val/000001.jpg"],
        ["--engine=x"],
        ["--engine=plain", "--smooth_masks"],
    ],
)
def test_what_does_not_go_together_is_wrong_usage(flags: list[str]) -> None:
    try:
        code = evaluate(*flags)
    except SystemExit as error:  # argparse
        code = int(error.code or 0)
    assert code == 2


@pytest.mark.parametrize(
    ("flags", "code", "expected"),
    [
        (["--config=yolact_bass"], 2, "did you mean"),
        (["--set=model.size=3"], 2, "model.size"),
        (["--video_multiframe=0", "--video=clip.mp4:o.mp4"], 2, "expected at least 1"),
        (["--keyframes=0", "--video=clip.mp4:o.mp4"], 2, "--keyframes=0: expected auto, off, or a"),
        (["--keyframes=all", "--video=clip.mp4:o.mp4"], 2, "--keyframes=all: expected auto"),
        (["--keyframes=4", "--engine=plain", "--video=clip.mp4"], 2, "not with --engine=plain"),
        (["--trained_model=latest"], 2, "no checkpoint of any run"),
        (["--trained_model="], 2, "--trained_model: expected a file or the name of a model"),
        (["--trained_model=nothing.pth"], 1, "no such checkpoint file"),
        (["--trained_model=clip.mp4"], 1, "not a readable checkpoint (damaged, no PyTorch file"),
        (["--config=yolact_resnet50"], 1, "does not fit this model"),
        (["--dataset=nowhere"], 1, "no dataset 'nowhere'"),
        (["--image=nothing.jpg"], 1, "nothing.jpg"),
        (["--image=clip.mp4"], 1, "clip.mp4"),
        (["--image=scenes/val/000001.jpg:out.xyz"], 1, "out.xyz"),
        (["--images=nothing"], 1, "nothing"),
        (["--video=nothing.mp4"], 1, "nothing.mp4"),
        (["--video=tiny.pth"], 1, "tiny.pth"),
        (["--video=97"], 1, "no camera 97"),
        (["--resume", "--ap_data_file=tiny.pth"], 1, "tiny.pth"),
    ],
)
def test_mistakes_are_one_line(
    flags: list[str], code: int, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(*flags) == code
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert expected in error


def test_help_tells_by_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_code:
        main(["--help"])
    assert exit_code.value.code == 0
    assert "--video=a.mp4:b.mp4" in capsys.readouterr().out

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.layouts import COCO, LABELME, VIA, YAML, places, write

from data.catalog import has_one_split, open_dataset, resolve_dataset
from data.classes import COCO_CLASSES, SHAPE_CLASSES

ROOT = Path(__file__).parents[1]


def touch(root: Path, *files: str) -> None:
    for file in files:
        path = root / file
        if file.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")


@pytest.mark.parametrize(
    ("name", "files", "expected"),
    [
        (
            "coco2017",
            ("coco/images/",),
            (
                "coco/images",
                "coco/annotations/instances_train2017.json",
                "coco/images",
                "coco/annotations/instances_val2017.json",
            ),
        ),
        (
            "coco2014",
            ("coco/train2014/", "coco/val2014/"),
            (
                "coco/train2014",
                "coco/annotations/instances_train2014.json",
                "coco/val2014",
                "coco/annotations/instances_val2014.json",
            ),
        ),
        (
            "coco2017_testdev",
            ("coco/images/", "coco/test2017/"),
            (None, None, "coco/test2017", "coco/annotations/image_info_test-dev2017.json"),
        ),
        (
            "coco2017_testdev",
            ("coco/images/",),
            (None, None, "coco/images", "coco/annotations/image_info_test-dev2017.json"),
        ),
        (
            "pascal_sbd",
            (),
            ("sbd/img", "sbd/pascal_sbd_train.json", "sbd/img", "sbd/pascal_sbd_val.json"),
        ),
    ],
)
def test_catalogued(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    files: tuple[str, ...],
    expected: tuple[str | None, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "data", *files)
    paths = resolve_dataset(name)
    assert paths.name == name
    assert places(paths) == tuple(part and Path("data") / part for part in expected)


TRAIN, VAL = "annotations/instances_train.json", "annotations/instances_val.json"


@pytest.mark.parametrize(
    ("files", "argument", "expected"),
    [
        ((TRAIN, VAL, "train/", "val/"), "", ("train", TRAIN, "val", VAL)),
        ((TRAIN, "train/"), "", ("train", TRAIN, None, None)),
        ((TRAIN, VAL, "images/"), "", ("images", TRAIN, "images", VAL)),
        (("annotations.json",), "", (".", "annotations.json", ".", "annotations.json")),
        (
            ("_annotations.coco.json", "images/"),
            "",
            ("images", "_annotations.coco.json", "images", "_annotations.coco.json"),
        ),
        (
            ("train/_annotations.coco.json", "valid/_annotations.coco.json"),
            "",
            ("train", "train/_annotations.coco.json", "valid", "valid/_annotations.coco.json"),
        ),
        ((TRAIN, VAL, "train/", "val/"), VAL, ("val", VAL, "val", VAL)),
        (("instances_val.json", "val/"), "instances_val.json", ("val", "instances_val.json") * 2),
        (("parts.json",), "parts.json", (".", "parts.json") * 2),
        ((VAL, "val/", "annotations/images/"), VAL, ("val", VAL) * 2),
    ],
)
def test_folders_and_files(
    tmp_path: Path, files: tuple[str, ...], argument: str, expected: tuple[str | None, ...]
) -> None:
    touch(tmp_path, *files)
    paths = resolve_dataset(str(tmp_path / argument))
    assert places(paths) == tuple(part and tmp_path / part for part in expected)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("coco2071", "did you mean 'coco2017'"),
        ("nowhere", "coco2017, coco2014, coco2017_testdev, pascal_sbd"),
        ("missing.json", "'missing.json'"),
    ],
)
def test_unknown(value: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        resolve_dataset(value)
    assert "\n" not in str(caught.value)


def test_names_of_the_original() -> None:
    assert resolve_dataset("coco2014_dataset") == resolve_dataset("coco2014")


def test_folder_without_annotations(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected annotations/instances_train\.json"):
        resolve_dataset(str(tmp_path))


@pytest.mark.parametrize(
    ("files", "argument", "kind", "expected"),
    [
        (
            {"data.yaml": YAML, "images/train/a": "", "images/val/a": ""},
            "",
            "yolo",
            ("images/train", "data.yaml", "images/val", "data.yaml"),
        ),
        (  # as Roboflow writes it
            {
                "data.yaml": f"train: ../train/images\nval: ../valid/images\n{YAML}",
                "train/images/a": "",
                "valid/images/a": "",
            },
            "",
            "yolo",
            ("train/images", "data.yaml", "valid/images", "data.yaml"),
        ),
        (  # written on another machine
            {
                "my.yml": f"path: D:\\\\x\ntrain: /content/x/a/b\n{YAML}",
                "a/b/c": "",
                "z.yaml": "a: 1",
            },
            "",
            "yolo",
            ("a/b", "my.yml", None, None),
        ),
        (
            {"data.yaml": f"path: here\n{YAML}", "b.yaml": YAML, "here/images/train/a": ""},
            "",
            "yolo",
            ("here/images/train", "data.yaml", None, None),
        ),
        (
            {"b.yaml": YAML, "c.yaml": YAML, "images/a": ""},
            "c.yaml",
            "yolo",
            ("images", "c.yaml") * 2,
        ),
        (
            {"classes.txt": "cat", "labels/a.txt": "", "images/a": ""},
            "",
            "yolo",
            ("images", "classes.txt") * 2,
        ),
        (
            {"train/a.json": LABELME, "valid/a.json": LABELME},
            "",
            "labelme",
            ("train", "train", "valid", "valid"),
        ),
        (
            {"train/a.json": LABELME, "validation/a.json": LABELME},
            "",
            "labelme",
            ("train", "train", "validation", "validation"),
        ),
        ({"a.json": LABELME, "b.json": COCO}, "", "labelme", (".", ".") * 2),
        (
            {"labels/a.json": LABELME, "images/a": ""},
            "",
            "labelme",
            ("images", "labels") * 2,
        ),
        (
            {
                "train/via_region_data.json": VIA,
                "val/project.json": '{"a": {"filename": "", "regions": []}}',
            },
            "",
            "via",
            ("train", "train/via_region_data.json", "val", "val/project.json"),
        ),
        (
            {"p.json": VIA, "images/a": "", "package.json": "{}"},
            "",
            "via",
            ("images", "p.json") * 2,
        ),
        ({"p.json": VIA, "q.json": VIA}, "q.json", "via", (".", "q.json") * 2),
        ({"annotations.json": VIA}, "", "via", (".", "annotations.json") * 2),
        ({"result.json": COCO, "images/a": ""}, "", "coco", ("images", "result.json") * 2),
        (
            {"annotations/instances_default.json": COCO, "images/default/a": ""},
            "",
            "coco",
            ("images/default", "annotations/instances_default.json") * 2,
        ),
    ],
)
def test_formats_are_recognised(
    tmp_path: Path,
    files: dict[str, str],
    argument: str,
    kind: str,
    expected: tuple[str | None, ...],
) -> None:
    write(tmp_path, files)
    paths = resolve_dataset(str(tmp_path / argument))
    assert {split.format for split in (paths.train, paths.val) if split} == {kind}
    assert places(paths) == tuple(part and tmp_path / part for part in expected)
    assert paths.is_shared == (expected[:2] == expected[2:])


@pytest.mark.parametrize(
    ("files", "argument", "message"),
    [
        (
            {"test/instances.json": COCO},
            "",
            "has a test split alone: give .*test/instances.json",
        ),
        (
            {"train/instances_val.json": COCO},
            "",
            "named after 'val', but in a folder named after 'train'",
        ),
        (
            {"instances_train.json": COCO, "instances_training.json": COCO},
            "",
            "several annotation files: instances_train.json, instances_training.json",
        ),
        ({"labels/a.txt": "0"}, "", r"labels but no data\.yaml"),
        ({"a.yaml": YAML, "b.yaml": YAML}, "", "several annotation files: a.yaml, b.yaml"),
        ({"data.yaml": YAML}, "", r"no such folder: images/train, train/images, images"),
        ({"data.yaml": f"train: images/train\n{YAML}", "images/a": ""}, "", "/images/train;"),
        ({"data.yaml": "names: 5"}, "", "cannot read 'names'"),
        ({"a.json": VIA, "b.json": COCO}, "", "several annotation files: a.json, b.json"),
        ({"train/a.json": VIA, "val/a.json": LABELME}, "", "via for training but labelme"),
        ({"a.json": LABELME}, "a.json", "give the folder"),
        ({"a.json": "[", "b.json": '"shapes"'}, "", "no annotations in"),
    ],
)
def test_formats_that_are_not_recognised(
    tmp_path: Path, files: dict[str, str], argument: str, message: str
) -> None:
    write(tmp_path, files)
    with pytest.raises(ValueError, match=message) as caught:
        resolve_dataset(str(tmp_path / argument))
    assert "\n" not in str(caught.value)


def test_generated_scenes_are_loaded_on_demand(tmp_path: Path) -> None:
    write(tmp_path, {"annotations.json": '{"images": [], "annotations": [], "categories": []}'})
    code = """
import sys
from data.catalog import open_dataset
assert len(open_dataset(sys.argv[1], "val")) == 0
assert "data.shapes" not in sys.modules
assert len(open_dataset("shapes", "val", length=3)) == 3
"""
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, check=True, timeout=60)


def test_generated_scenes_of_other_classes() -> None:
    assert open_dataset("shapes", "train", SHAPE_CLASSES).categories is SHAPE_CLASSES
    with pytest.raises(ValueError, match="'shapes' has other classes than the model's 80"):
        open_dataset("shapes", "train", COCO_CLASSES)
    assert not has_one_split("shapes")

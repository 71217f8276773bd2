from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from data.catalog import DatasetPaths, has_one_split, open_dataset, resolve_dataset
from data.classes import COCO_CLASSES, PASCAL_CLASSES, SHAPE_CLASSES, Categories
from data.formats.splits import split_of

ROOT = Path(__file__).parents[1]


def touch(root: Path, *files: str) -> None:
    for file in files:
        path = root / file
        if file.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")


def places(paths: DatasetPaths) -> tuple[Path | None, ...]:
    """Images and annotations for training, then for validation."""
    splits = (paths.train, paths.val)
    return tuple(place for split in splits for place in (split[1:3] if split else (None, None)))


def test_no_categories() -> None:
    empty = Categories.from_coco_json([])
    assert len(empty) == 0
    assert empty.label_of == {}


def test_known_classes() -> None:
    assert len(COCO_CLASSES) == 80
    assert COCO_CLASSES.label_of[1] == 0
    assert COCO_CLASSES.label_of[13] == COCO_CLASSES.names.index("stop sign") == 11
    assert COCO_CLASSES.label_of[90] == COCO_CLASSES.names.index("toothbrush") == 79
    assert PASCAL_CLASSES.category_ids == tuple(range(1, 21))
    assert PASCAL_CLASSES.names[14] == "person"


def test_categories_are_sorted_by_id() -> None:
    categories = Categories.from_coco_json([{"id": 7, "name": "b"}, {"id": 0, "name": "a"}])
    assert categories == Categories(("a", "b"), (0, 7))
    assert categories.label_of == {0: 0, 7: 1}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["cat"], "'id'"),
        ([{"name": "cat"}], "'id'"),
        ([{"id": "1", "name": "cat"}], "'id'"),
        ([{"id": 1}], "'name'"),
        ([{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}], "twice"),
    ],
)
def test_bad_categories(entries: list[object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Categories.from_coco_json(entries)


@pytest.mark.parametrize(
    ("own", "wanted", "ids", "labels"),
    [
        (Categories((), ()), Categories.from_names(["cat"]), (1,), {}),
        # by name, whatever the case and the order; the widget is unknown to the model
        (
            Categories(("Dog", "widget", "cat"), (3, 4, 9)),
            Categories.from_names(["cat", "horse", "dog"]),
            (9, 11, 3),
            {9: 0, 3: 2},
        ),
        # classes that differ in case
        (Categories(("cat", "Cat"), (1, 2)), Categories.from_names(["cat"]), (1,), {1: 0}),
        (Categories(("CAT", "Cat"), (1, 2)), Categories(("cat",), (9,)), (3,), {}),
        (
            Categories(("a", "A", "b"), (1, 2, 3)),
            Categories.from_names(["A", "a", "b", "B"]),
            (2, 1, 3, 7),
            {1: 1, 2: 0, 3: 2},
        ),
        # by id, since no name agrees
        (
            Categories(("Hund", "Katze"), (18, 17)),
            Categories(("cat", "dog"), (17, 18)),
            (17, 18),
            {18: 1, 17: 0},
        ),
    ],
)
def test_matched_to(
    own: Categories, wanted: Categories, ids: tuple[int, ...], labels: dict[int, int]
) -> None:
    assert own.matched_to(wanted) == (Categories(wanted.names, ids), labels)


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
    tmp_path: Path, name: str, files: tuple[str, ...], expected: tuple[str | None, ...]
) -> None:
    touch(tmp_path, *files)
    paths = resolve_dataset(name, root=tmp_path)
    assert paths.name == name
    assert places(paths) == tuple(part and tmp_path / part for part in expected)


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


LABELME, VIA, COCO = '{"shapes": []}', '{"_via_settings": {}}', '{"images": [], "annotations": []}'
YAML = "names: [cat]"


def write(root: Path, files: dict[str, str]) -> None:
    for file, text in files.items():
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


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


def layout(*files: str) -> dict[str, str]:
    """Files of COCO, and of labelme where they are called after an image."""
    return {
        file: LABELME if Path(file).stem == "a" else COCO if file.endswith(".json") else ""
        for file in files
    }


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (  # as CVAT names its tasks
            (
                *("annotations/instances_Train.json", "annotations/instances_Validation.json"),
                *("images/Train/a.png", "images/Validation/b.png"),
            ),
            ("images/Train", "annotations/instances_Train.json")
            + ("images/Validation", "annotations/instances_Validation.json"),
        ),
        (
            ("train/_annotations.coco.json", "val/_annotations.coco.json", "test/x_test.json"),
            ("train", "train/_annotations.coco.json", "val", "val/_annotations.coco.json"),
        ),
        (
            (
                "annotations/instances_train.json",
                "annotations/instances_valid.json",
                "images/a.jpg",
            ),
            ("images", "annotations/instances_train.json")
            + ("images", "annotations/instances_valid.json"),
        ),
        (
            (
                *("annotations_train2017.json", "annotations_val2017.json"),
                *("train2017/a.jpg", "val2017/a.jpg", "train_masks/a.png"),
            ),
            ("train2017", "annotations_train2017.json", "val2017", "annotations_val2017.json"),
        ),
        (
            ("TRAIN.json", "Dev.json", "images/training/a.jpg", "images/dev/b.jpg"),
            ("images/training", "TRAIN.json", "images/dev", "Dev.json"),
        ),
        (
            ("trn/Annotations/coco.json", "trn/Images/a.jpg", "validation/labels.json"),
            ("trn/Images", "trn/Annotations/coco.json", "validation", "validation/labels.json"),
        ),
        (
            (
                *("annotations/instances_train.json", "annotations/captions_train.json"),
                *("annotations/person_keypoints_train.json", "train/b.jpg"),
            ),
            ("train", "annotations/instances_train.json", None, None),
        ),
        (
            ("labels/Training/a.json", "labels/Valid/a.json", "images/Training/a.jpg")
            + ("images/Valid/a.jpg",),
            ("images/Training", "labels/Training", "images/Valid", "labels/Valid"),
        ),
        (
            ("train/images/b.jpg", "train/labels/a.json", "Test/labels/a.json"),
            ("train/images", "train/labels", None, None),
        ),
        (("instances_trainval.json", "images/b.jpg"), ("images", "instances_trainval.json") * 2),
    ],
)
def test_splits_in_every_spelling(
    tmp_path: Path, files: tuple[str, ...], expected: tuple[str | None, ...]
) -> None:
    write(tmp_path, layout(*files))
    assert places(resolve_dataset(str(tmp_path))) == tuple(p and tmp_path / p for p in expected)


@pytest.mark.parametrize("train", ["images/Train", "Training/images"])
@pytest.mark.parametrize("val", ["images/VALID", "dev/images"])
def test_splits_of_yolo_in_every_spelling(tmp_path: Path, train: str, val: str) -> None:
    write(tmp_path, {"data.yaml": YAML, f"{train}/a.jpg": "", f"{val}/a.jpg": ""})
    paths = resolve_dataset(str(tmp_path))
    assert places(paths)[::2] == (tmp_path / train, tmp_path / val)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("", None),
        ("instances_default", None),
        ("straining_valve_testament", None),
        ("trainval", None),
        ("train_val", None),
        ("instances_Train", "train"),
        ("train2017", "train"),
        ("TrainSet", "train"),
        ("my-validation-01", "val"),
        ("DEV", "val"),
        ("image_info_test-dev2017", "test"),
    ],
)
def test_names_of_splits(name: str, split: str | None) -> None:
    assert split_of(name) == split


@pytest.mark.parametrize("name", ["c03_layout_cvat", "c03_layout_val_ann"])
def test_splits_of_exports(cases_root: Path, name: str) -> None:
    train = open_dataset(str(cases_root / name), "train")
    val = open_dataset(str(cases_root / name), "val", train.categories)
    names = [[data.image_info(i)["file_name"] for i in range(3)] for data in (train, val)]
    assert names == [["s00.png", "s01.png", "s02.png"], ["s10.png", "s11.png", "s12.png"]]
    for data in (train, val):
        assert [len(data.sample(index).labels) for index in range(3)] == [2, 2, 2]


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


def test_splits() -> None:
    paths = resolve_dataset("coco2017_testdev", Path("root"))
    assert not paths.has("train")
    assert paths.has("val")
    with pytest.raises(ValueError, match="'coco2017_testdev' has no train split"):
        paths.split("train")
    assert paths.split("val").images == Path("root/coco/test2017")
    assert not paths.is_shared

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from matplotlib.path import Path as Outline
from numpy.typing import NDArray
from support.files_of_tools import TRIANGLE, cvat_entry, cvat_shape, write_cvat
from support.foreign_formats import HW, drawn, opened, write_images

from data.catalog import resolve_dataset
from data.formats.cvat import read_cvat
from data.problems import Problem


def read(folder: Path, *images: str) -> tuple[list[tuple[str, NDArray[Any]]], list[Problem]]:
    """Class and mask of every object."""
    write_images(folder / "images")
    content, problems = read_cvat(folder / "images", write_cvat(folder, *images))
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    found = content["annotations"]
    return [(names[a["category_id"]], drawn(a["segmentation"])) for a in found], problems


def filled(points: Any) -> NDArray[np.bool_]:
    """Tell which pixels have their centre in a polygon."""
    rows, columns = np.mgrid[: HW[0], : HW[1]] + 0.5
    centres = np.stack((columns.ravel(), rows.ravel()), axis=1)
    return Outline(np.reshape(points, (-1, 2))).contains_points(centres).reshape(HW)


def iou(mask: NDArray[Any], other: NDArray[Any]) -> float:
    return (mask & other).sum() / (mask | other).sum()


def test_no_objects(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing can be used: there are no objects"):
        read(tmp_path, cvat_entry("a.png"), cvat_entry("b.png"))


@pytest.mark.parametrize(
    ("tag", "attributes", "expected"),
    [
        ("polygon", f'points="{TRIANGLE}"', filled([10, 5, 50, 5, 10, 35])),
        ("box", 'xtl="5" ytl="6" xbr="25" ybr="16"', filled([5, 6, 25, 6, 25, 16, 5, 16])),
        (
            "box",
            'xtl="15" ytl="16" xbr="45" ybr="24" rotation="30.0"',
            filled(cv2.boxPoints(((30, 20), (30, 8), 30))),  # clockwise
        ),
        (
            "ellipse",
            'cx="30" cy="20" rx="18" ry="6" rotation="30"',
            filled(cv2.ellipse2Poly((30, 20), (18, 6), 30, 0, 360, 5)),
        ),
        (
            "mask",
            'rle="1, 2, 4, 1" left="58" top="30" width="2" height="4"',
            np.pad(np.reshape([0, 1, 1, 0, 0, 0, 0, 1], (4, 2)), ((30, 6), (58, 0))),
        ),
        (
            "mask",
            'rle="0, 4" left="0" top="0" width="2" height="2"',
            np.pad([[1] * 2] * 2, ((0, 38), (0, 58))),
        ),
    ],
)
def test_shapes(tmp_path: Path, tag: str, attributes: str, expected: NDArray[Any]) -> None:
    ((name, mask),), problems = read(tmp_path, cvat_entry("a.png", cvat_shape(tag, attributes)))
    assert (name, problems) == ("cat", [])
    assert iou(mask, expected) >= (1.0 if tag == "mask" else 0.93)


@pytest.mark.parametrize(
    ("tag", "attributes", "what"),
    [
        ("polyline", 'points="1,2;3,4"', "a polyline, which has no area"),
        ("points", 'points="1,2"', "a points, which has no area"),
        ("cuboid", 'xtl1="1"', "a cuboid, which has no area"),
        ("polygon", 'points="1,2;3,4"', "an outline of fewer than three points"),
        ("polygon", 'points="1,2;3,4;5"', "an outline without points"),
        ("polygon", 'points="1,2;3,4;5,x"', "a coordinate that is no number"),
        ("polygon", 'points="1,2;3,4;5,nan"', "a coordinate that is no number"),
        ("polygon", 'points="1,2;3,4;5,9999"', "an outline far outside the image"),
        ("box", 'xtl="1"', "a coordinate that is no number"),
        (
            "mask",
            'rle="1, 2" left="0" top="0" width="2" height="2"',
            "run lengths of the wrong sum",
        ),
        (
            "mask",
            'rle="-1, 5" left="0" top="0" width="2" height="2"',
            "run lengths of the wrong sum",
        ),
        ("mask", 'rle="" left="0" top="0" width="0" height="0"', "a coordinate that is no number"),
        ("mask", 'rle="0, 4" left="59" top="0" width="2" height="2"', "a mask outside the image"),
        ("mask", 'rle="1" left="0" top="0" width="99999" height="99999"', "of the wrong sum"),
        ("circle", "", "a shape of unknown type"),
    ],
)
def test_shapes_that_are_left_out(tmp_path: Path, tag: str, attributes: str, what: str) -> None:
    sound = cvat_shape("polygon", f'points="{TRIANGLE}"', "dog")
    objects, (problem,) = read(tmp_path, cvat_entry("a.png", sound, cvat_shape(tag, attributes)))
    assert [name for name, _ in objects] == ["dog"]
    assert what in problem.what
    assert problem.where.endswith(f"annotations.xml, a.png, {tag} 2")


def test_a_group_is_one_object_and_a_tag_none(tmp_path: Path) -> None:
    left, right = "1,1;9,1;9,9;1,9", "21,1;29,1;29,9;21,9"
    first, second = (
        cvat_shape("polygon", f'points="{points}" group_id="3"') for points in (left, right)
    )
    other = cvat_shape("polygon", f'points="{left}" group_id="3"', "dog")
    tag = '<tag label="cat" source="manual"></tag>'
    objects, problems = read(
        tmp_path, cvat_entry("a.png", tag, first, second, other), cvat_entry("b.png", tag)
    )
    assert not problems
    assert [(name, mask.sum()) for name, mask in objects] == [("cat", 128), ("dog", 64)]
    dataset = opened(tmp_path, "train")
    assert dataset.categories.names == ("cat", "dog")
    assert [len(dataset.annotations(index)) for index in range(2)] == [2, 0]


@pytest.mark.parametrize("name", ["night/cam 1/a.png", "night\\cam 1\\a.png", "/data/cam 1/a.png"])
def test_images_in_folders(tmp_path: Path, name: str) -> None:
    write_images(tmp_path / "images" / "night" / "cam 1", ("a.png",))
    write_cvat(tmp_path, cvat_entry(name, cvat_shape("polygon", f'points="{TRIANGLE}"')))
    dataset = opened(tmp_path, "train")
    assert dataset.image_info(0)["file_name"] == "night/cam 1/a.png"


@pytest.mark.parametrize("layout", ["folders", "files", "one file"])
def test_several_tasks(tmp_path: Path, layout: str) -> None:
    """Ids of images begin at 0 in each; an image of two tasks is one."""
    one = cvat_entry("a.png", cvat_shape("polygon", f'points="{TRIANGLE}"'))
    two = cvat_entry("b.png", cvat_shape("polygon", f'points="{TRIANGLE}"', "dog"))
    both = cvat_entry("a.png", cvat_shape("box", 'xtl="1" ytl="1" xbr="5" ybr="5"', "dog"))
    if layout == "folders":
        for task, entry in (("task_1", one), ("task_2", two)):
            write_images(tmp_path / task / "images")
            write_cvat(tmp_path / task, entry)
    else:
        write_images(tmp_path / "images")
        if layout == "files":
            write_cvat(tmp_path, one, name="task_1.xml")
            write_cvat(tmp_path, two, both, name="task_2.xml")
        else:
            write_cvat(tmp_path, one, two, both)
    dataset = opened(tmp_path, "train")
    counts = [len(dataset.annotations(index)) for index in range(len(dataset))]
    assert counts == ([1, 1] if layout == "folders" else [2, 1])
    assert dataset.sample(1).image.shape == (*HW, 3)


def test_subsets_of_a_project_are_splits(tmp_path: Path) -> None:
    write_images(tmp_path / "images", ("a.png", "b.png", "c.png", "d.png"))
    triangle = cvat_shape("polygon", f'points="{TRIANGLE}"')
    names = {"a": "Train", "b": "Validation", "c": "Test"}
    entries = [cvat_entry(f"{n}.png", triangle, more=f'subset="{s}"') for n, s in names.items()]
    file = write_cvat(tmp_path, *entries, cvat_entry("d.png", triangle))
    for name in (tmp_path, file):
        assert opened(name, "train").image_info(0)["file_name"] == "a.png"
        assert opened(name, "val").image_info(0)["file_name"] == "b.png"
    content, (problem,) = read_cvat(tmp_path / "images", file, "train")
    assert len(content["images"]) == 1
    assert problem.what == "an image of no split"
    write_cvat(tmp_path, cvat_entry("a.png", triangle, more='subset="default"'))
    assert resolve_dataset(str(tmp_path)).is_shared


def test_splits_in_folders(tmp_path: Path) -> None:
    for split, name in (("train", "a.png"), ("val", "b.png")):
        write_images(tmp_path / split / "images", (name,))
        write_cvat(
            tmp_path / split, cvat_entry(name, cvat_shape("polygon", f'points="{TRIANGLE}"'))
        )
        assert opened(tmp_path, split).image_info(0)["file_name"] == name


def test_a_track_of_a_video(tmp_path: Path) -> None:
    track = '<track id="0" label="cat"><polygon frame="0" outside="0" points="1,1"/></track>'
    _, (problem,) = read(
        tmp_path, track, cvat_entry("a.png", cvat_shape("polygon", f'points="{TRIANGLE}"'))
    )
    assert problem.what == "a track of a video"


def test_an_image_that_is_not_there(tmp_path: Path) -> None:
    triangle = cvat_shape("polygon", f'points="{TRIANGLE}"')
    _, (problem,) = read(
        tmp_path, cvat_entry("a.png", triangle), cvat_entry("../../etc/x.png", triangle)
    )
    assert problem.what == "a missing image"


LAUGHS = '<!DOCTYPE annotations [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>\n'
OUTSIDE = '<!DOCTYPE annotations [<!ENTITY a SYSTEM "file:///etc/passwd">]>\n'


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "no element found"),
        ("<annotations><image", "unclosed token"),
        ("<annotations></image>", "mismatched tag"),
        (f"{LAUGHS}<annotations>&b;</annotations>", "declares an entity, a"),
        (f"{OUTSIDE}<annotations>&a;</annotations>", "declares an entity, a"),
        ("<annotations>&a;</annotations>", "undefined entity"),
        ('<?xml version="1.0" encoding="no-such"?><annotations/>', "unknown encoding"),
        ("<annotations>" + "<a>" * 100_000, "no element found"),
    ],
)
def test_files_that_are_no_xml(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(ValueError, match=f"a.xml is not valid XML: .*{what}") as caught:
        read_cvat(tmp_path, tmp_path / "a.xml")
    assert "\n" not in str(caught.value)


def test_other_xml_is_not_cvat_s(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<annotation><filename>a.png</filename></annotation>")
    with pytest.raises(ValueError, match="no annotations in"):
        resolve_dataset(str(tmp_path))

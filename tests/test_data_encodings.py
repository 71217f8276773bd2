from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.foreign_formats import TRIANGLE, opened, two_images, write_images, write_yolo

from data.checks.dataset import check_dataset
from data.files import decode_text, read_json, read_text_of


@pytest.mark.parametrize(
    ("text", "encoding", "told"),
    [
        ("", "ascii", "utf-8"),
        ("cat", "ascii", "utf-8"),
        ("Käfer 猫", "utf-8", "utf-8"),
        ("猫", "utf-8-sig", "utf-8-sig"),
        ("猫 cat", "utf-16", "utf-16"),
        ('{"a": "é"}', "utf-16-be", "utf-16-be"),
        ('{"a": "é"}', "utf-32", "utf-32"),
        ('{"a": "猫和狗", "b": "cat"}', "gb2312", "gb18030"),
        ('{"a": "喆"}', "gb18030", "gb18030"),
        ('{"a": "Käfer"}', "latin-1", "cp1252"),
        ('{"a": "„Übergröße“"}', "cp1252", "cp1252"),
        ("\x81 \x8d", "latin-1", "latin-1"),
    ],
)
def test_encodings(tmp_path: Path, text: str, encoding: str, told: str) -> None:
    assert decode_text(text.encode(encoding)) == (text, told)
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    assert read_text_of(tmp_path / "a.txt") == (text, told)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for name in ("gone.json", "a\0.json"):
        with pytest.raises(ValueError, match="cannot read"):
            read_json(tmp_path / name)


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("gb2312", "细胞核"), ("latin-1", "Käfer"), ("utf-16", "猫"), ("utf-8-sig", "猫")],
)
@pytest.mark.parametrize("tool", ["coco", "labelme", "via", "yolo"])
def test_names_in_old_encodings(tmp_path: Path, encoding: str, name: str, tool: str) -> None:
    write_images(tmp_path)
    content = two_images()
    content["categories"][1]["name"] = name
    points = [TRIANGLE[i : i + 2] for i in range(0, 6, 2)]
    via = {"name": "polygon", "all_points_x": TRIANGLE[::2], "all_points_y": TRIANGLE[1::2]}
    regions = [{"shape_attributes": via, "region_attributes": {"class": name}}]
    files = {
        "coco": {"annotations.json": content},
        "labelme": {"a.json": {"shapes": [{"label": name, "points": points}]}},
        "via": {"via.json": {"a.png": {"filename": "a.png", "regions": regions}}},
    }
    for file, value in files.get(tool, {}).items():
        (tmp_path / file).write_bytes(json.dumps(value, ensure_ascii=False).encode(encoding))
    if tool == "yolo":
        write_images(tmp_path / "images" / "train")
        write_yolo(content, tmp_path)
        (tmp_path / "data.yaml").unlink()
        (tmp_path / "classes.txt").write_bytes(f"cat\n{name}\n".encode(encoding))
    dataset = opened(tmp_path, "train")
    assert name in dataset.categories.names
    assert not any("draw" in problem.mend for problem in check_dataset(str(tmp_path))["train"])

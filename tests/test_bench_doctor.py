"""The script that spoils labels: what it spoils, and what counts as found."""

from __future__ import annotations

import json
import random
import runpy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.tiny import make_dataset

from data.catalog import open_dataset

BENCH = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "bench_doctor.py"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("scenes"), train=60, val=60)


def test_what_is_spoilt(source: Path, tmp_path: Path) -> None:
    name = open_dataset(str(source), "train").categories.names[0]
    spoilt = BENCH["spoil"](str(source), tmp_path, name, 8, random.Random(0))
    kinds = Counter(each.kind for each in spoilt)
    assert kinds == BENCH["COUNTS"]
    before = sum(len(open_dataset(str(source), split)) for split in ("train", "val"))
    after = [
        json.loads((tmp_path / "annotations" / f"instances_{split}.json").read_text())
        for split in ("train", "val")
    ]
    assert sum(len(content["images"]) for content in after) == before + kinds["copied"]
    for content, split in zip(after, ("train", "val"), strict=True):
        numbers = {part["id"]: part for part in content["annotations"]}
        gone = {
            each.annotation_id for each in spoilt if (each.kind, each.split) == ("deleted", split)
        }
        assert not gone & set(numbers)


def test_a_class_that_the_dataset_lacks_is_named(source: Path, tmp_path: Path) -> None:
    with pytest.raises(BENCH["UsageError"], match=f"--class=nope: not in {source}, whose classes"):
        BENCH["spoil"](str(source), tmp_path, "nope", 8, random.Random(0))


def suggestion(**changes: Any) -> dict[str, Any]:
    return {"split": "val", "file_name": "a.jpg", "annotation_id": 7, "seen": None} | changes


@pytest.mark.parametrize(
    ("kind", "found", "expected"),
    [
        ("swapped", suggestion(), True),
        ("swapped", suggestion(annotation_id=8), False),
        ("swapped", suggestion(split="train"), False),
        ("shifted", suggestion(annotation_id=None, seen={"box": [10, 10, 21, 20]}), True),
        ("deleted", suggestion(annotation_id=None, seen={"box": [10, 10, 21, 20]}), True),
        ("deleted", suggestion(annotation_id=None, seen={"box": [40, 10, 21, 20]}), False),
        ("deleted", suggestion(), False),
        ("copied", suggestion(of="b.jpg"), True),
        ("copied", suggestion(file_name="b.jpg", of="a.jpg"), True),
        ("copied", suggestion(file_name="b.jpg", of="c.jpg"), False),
    ],
)
def test_what_counts_as_found(kind: str, found: dict[str, Any], expected: bool) -> None:
    spoilt = BENCH["Spoilt"](kind, "val", "a.jpg", 7, (10, 10, 30, 30))
    assert BENCH["hits"](found, spoilt) is expected

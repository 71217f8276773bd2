"""docs/dependencies.md tells what pyproject.toml tells pip."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENT = re.compile(r"([\w.-]+)(?:\[\w+\])?(?:>=([\d.]+))?")
ROW = re.compile(r"\| ([\w.-]+) \| (\w+) \| ([\d.]*) ?\| [^|]+ \| ([^|]+) \|")
PERMISSIVE = re.compile(
    r"(MIT|MIT-CMU|PSF|Apache-2\.0|BSD-[23]-Clause|MPL-2\.0|MPL-2\.0 and MIT)(;.*)?"
)

Bound = tuple[str, str, str]
"""A package, what it is for ("all" or an extra), and its oldest version."""


def declared(text: str) -> set[Bound]:
    """The requirements of a pyproject.toml; whatever is no name with a lower bound is refused."""
    project = text.partition("\n[project]\n")[2].partition("\n[project.scripts]")[0]
    lists = re.findall(r"^([\w-]+) = \[((?:[^\"\]]|\"[^\"]*\")*)\]", project, re.MULTILINE)
    bounds = set()
    for extra, items in lists:
        for item in re.findall(r'"([^"]+)"', items) if extra != "license-files" else ():
            parts = REQUIREMENT.fullmatch(item)
            assert parts, f"{item}: expected a name and >=, see docs/dependencies.md"
            name = "all" if extra == "dependencies" else extra
            bounds.add((parts[1], name, parts[2] or ""))
    return bounds


def rows(text: str) -> list[tuple[str, ...]]:
    """The rows of the table: a bound, and the licence."""
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    found = [ROW.fullmatch(line) for line in lines]
    assert all(found), [line for line, row in zip(lines, found, strict=True) if not row]
    return [row.groups() for row in found if row]


def test_the_table_is_what_pip_reads() -> None:
    told = rows((ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8"))
    assert {row[:3] for row in told} == declared((ROOT / "pyproject.toml").read_text())
    assert len(told) == len({row[:2] for row in told}) > 40


def test_every_licence_is_permissive() -> None:
    told = rows((ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8"))
    assert [row for row in told if not PERMISSIVE.fullmatch(row[3])] == []


@pytest.mark.parametrize("wrong", ["numpy<3", "numpy==1.26", "numpy>=1.26,<3", "numpy @ https://x"])
def test_other_bounds_need_a_reason(wrong: str) -> None:
    text = f'x\n[project]\ndependencies = [\n    "{wrong}",\n]\n[project.scripts]\n'
    with pytest.raises(AssertionError, match="expected a name and >="):
        declared(text)
    assert declared(text.replace(wrong, "numpy>=2.1")) == {("numpy", "all", "2.1")}

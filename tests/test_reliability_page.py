"""docs/reliability.md: every row names a test that there is."""

from __future__ import annotations

import ast
import re
from itertools import dropwhile, takewhile
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "reliability.md"
ROW = re.compile(r"\|[^|]+\|[^|]+\|[^|]+\| `(\w+\.py)::(\w+)` \|")


def missing(text: str) -> list[str]:
    """Return the rows of a page that are malformed, or name no test."""
    return [
        row
        for row in rows_of(text)
        if not (named := ROW.fullmatch(row)) or not is_test(*named.groups())
    ]


def rows_of(text: str) -> list[str]:
    """Return the rows of the first table of a page; others hold measurements."""
    lines = dropwhile(lambda line: not line.startswith("|"), text.splitlines())
    return list(takewhile(lambda line: line.startswith("|"), lines))[2:]


def is_test(file: str, name: str) -> bool:
    path = TESTS / file
    if not path.exists():
        return False
    functions = ast.parse(path.read_text(encoding="utf-8")).body
    return name in {node.name for node in functions if isinstance(node, ast.FunctionDef)}


def test_every_row_is_proven() -> None:
    assert missing(PAGE.read_text(encoding="utf-8")) == []


def test_no_row_is_told_twice() -> None:
    faults = [row.split("|")[1] for row in rows_of(PAGE.read_text(encoding="utf-8"))]
    assert len(set(faults)) == len(faults) >= 60


def test_a_row_without_its_test_is_found() -> None:
    head = "| fault | seen | kept | test |\n| --- | --- | --- | --- |\n"
    for row in ("| a | b | c | `test_nms.py::test_gone` |", "| a | b | c |", "| a | b | c | d |"):
        assert missing(head + row) == [row]
    assert missing(f"{head}| a | b | c | `{Path(__file__).name}::test_every_row_is_proven` |") == []

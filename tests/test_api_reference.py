"""docs/api.md is what the docstrings say today."""

from __future__ import annotations

import runpy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from yolact.cli.common import run_command

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts/api_reference.py"))


def test_the_page_is_up_to_date(script: dict[str, Any]) -> None:
    same = (ROOT / "docs/api.md").read_text() == script["reference"]()
    assert same, "run: python scripts/api_reference.py"


def test_the_page_is_written(script: dict[str, Any], tmp_path: Path) -> None:
    page = tmp_path / "new" / "page.md"
    assert run_command(script["main"], [f"--out={page}"]) == 0
    assert page.read_text() == script["reference"]()


class Shape:
    """Has corners.

    Args:
        corners: how many,
            so counted: once.
        name: its own.

    Example:
        >>> shape = Shape(3)
        >>> for each in shape:
        ...     print(each)
    """

    side: int

    def __init__(self, corners: int, name: str | None = None) -> None: ...

    def __len__(self) -> int:
        """Count them."""
        return 0

    def __bool__(self) -> bool:
        return True

    def scaled(self, factor: float = 1.0, *, about: str = "a: 'b'", **more: int) -> Shape:
        """Make another.

        Returns:
            A new one.

        Raises:
            ValueError: no such factor,
                or none.
        """
        return self

    @property
    def area(self) -> float:
        """In pixels."""
        return 0.0

    def _hidden(self) -> None: ...


SHAPE = """## Shape

```py
Shape(corners: int, name: str | None = None)
```

Has corners.

Args:

- `corners`: how many, so counted: once.
- `name`: its own.

```python
shape = Shape(3)
for each in shape:
    print(each)
```

### Shape.__len__

```py
__len__() -> int
```

Count them.

### Shape.scaled

```py
scaled(factor: float = 1.0, *, about: str = "a: 'b'", **more: int) -> Shape
```

Make another.

Returns: A new one.

Raises:

- `ValueError`: no such factor, or none.

### Shape.area

```py
area: float
```

In pixels."""


@dataclass
class Part:
    """A part."""

    size: int = 3


@dataclass
class Whole(Part):
    """A whole.

    Attributes:
        names: of all.
    """

    names: tuple[str, ...] = ("a name that is repeated",) * 5
    part: Part = field(default_factory=Part)


WHOLE = """# Whole

A whole.

- `size: int = 3`
- `names: tuple[str, ...] = ('a name that is repeated', 'a name that is ...`: of all.
- `part: Part`

## Part

A part.

- `size: int = 3`"""


@pytest.mark.parametrize(
    ("item", "heading", "expected"), [(Shape, "##", SHAPE), (Whole, "#", WHOLE)]
)
def test_what_is_told_of_a_class(
    item: type, heading: str, expected: str, script: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(script["members"].__globals__, "PACKAGES", (__name__,))
    assert "\n\n".join(script["described"](item.__name__, item, heading)) == expected


def test_a_long_call_has_a_line_for_each_parameter(script: dict[str, Any]) -> None:
    def long(first: tuple[int, int], *, second: str = "x" * 90) -> None: ...

    lines = script["signature"]("long", long).split("\n")
    second = f"    second: str = '{'x' * 90}',"
    assert lines == ["long(", "    first: tuple[int, int],", "    *,", second, ") -> None"]

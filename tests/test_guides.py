"""The guides run as they stand: every block of bash and Python, in order."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.guides import ROOT, Block, blocks, commands, furnish, run_page

DOCS = ROOT / "docs"
NOT_RUN = {
    *("code", "speed", "recipes", "results", "mask_rcnn"),  # reports of measurements
    *("training", "distributed", "install"),  # hours, many GPUs, a network
    "serve",  # it never ends; tests/test_serve_page.py runs its example
    "api",  # generated; its examples are for reading
}
PAGES = sorted(page for page in DOCS.glob("*.md") if page.stem not in NOT_RUN)
SLOW = {
    "checkpoints",
    "doctor",
    "evaluate",
    "export",
    "large_images",
    "outputs",
    "own_data",
    "preannotate",
    "video",
    "video_examples",
}
"""Pages that take more than four seconds, of which only `make test-all` makes the round."""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with no display: what would be shown is written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["yolact"])
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] if page.stem in SLOW else [], id=page.stem)
        for page in PAGES
    ],
)
def test_a_guide_runs(page: Path, desk: Path) -> None:
    furnish(desk)
    run_page(page)


def test_names_of_pages_are_there() -> None:
    pages = {page.stem for page in DOCS.glob("*.md")}
    assert pages >= SLOW


PAGE = """# A guide

```bash
yolact --version  # a comment
# a line of it
A=1 yolact \\
    --help

touch made.txt
```

1. In a list:

   ```python
   import this_one

   def f():
       pass
   ```
```text
yolact nothing
```
"""


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("", []),
        ("text ```not a block``` text", []),
        ("```\n```", [Block("", 2, "")]),
        (
            PAGE,
            [
                Block("bash", 4, PAGE.partition("```bash\n")[2].partition("\n```")[0]),
                Block("python", 15, "import this_one\n\ndef f():\n    pass"),
                Block("text", 21, "yolact nothing"),
            ],
        ),
    ],
)
def test_the_blocks_of_a_page(page: str, expected: list[Block]) -> None:
    assert list(blocks(page)) == expected


def test_a_block_without_end_is_refused() -> None:
    with pytest.raises(ValueError, match="line 2: this block has no end"):
        list(blocks("\n```bash\nyolact"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("\n# nothing\n", []),
        (
            next(blocks(PAGE)).text,
            [
                (4, "yolact --version  # a comment"),
                (6, "A=1 yolact \\\n    --help"),
                (9, "touch made.txt"),
            ],
        ),
    ],
)
def test_the_commands_of_a_block(text: str, expected: list[tuple[int, str]]) -> None:
    assert [tuple(c)[1:] for c in commands(Block("bash", 4, text))] == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "```text\nno program\n```\n```console\n$ no program\n```",
        "```bash\nyolact --version\n```",
        "```bash\necho 1 > a.txt\ntest -s a.txt && test ! -s b.txt\n```",
        "```python\nx = 1\n```\n```python\nassert x == 1\n```",
    ],
)
def test_a_page_without_mistakes_passes(text: str, desk: Path) -> None:
    page = desk / "page.md"
    page.write_text(text)
    run_page(page)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("```bash\n\nyolact nothing  # so\n```", "page.md:3: SystemExit: exit code 2"),
        ("```bash\nyolact train --nothing\n```", "page.md:2: SystemExit: 2"),
        ("```bash\nyolact \\\n  nothing\n```", "page.md:2: SystemExit: exit code 2"),
        ("```bash\ntrue\nfalse | cat\n```", "page.md:3: SystemExit: exit code 1"),
        ("```bash\npython eval.py\n```", "page.md:2: SystemExit: exit code 2"),
        ("\n```python\n\nassert 1 == 2, 'no'\n```", "page.md:3: AssertionError: no"),
        ("```python\nx =\n```", "page.md:2: SyntaxError: "),
        ("```python\nx\n```", "page.md:2: NameError: "),
    ],
)
def test_a_mistake_is_told_with_its_line_and_text(text: str, problem: str, desk: Path) -> None:
    page = desk / "page.md"
    page.write_text(text)
    with pytest.raises(AssertionError) as failure:
        run_page(page)
    first, _, block = str(failure.value).partition("\n")
    assert problem in first
    assert block.strip() and block.strip() in text

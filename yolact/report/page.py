"""The page of a report: HTML with the numbers in it, and scripts beside it that show the images."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from html import escape as escape_marks
from pathlib import Path
from string import Template
from typing import NamedTuple

from data.problems import writable

from .tables import Cell, Table

ASSETS = Path(__file__).parent / "assets"
STYLE = Path(__file__).parents[1] / "style"
"""What all pages have alike."""
FOLDER = "viewer"
"""What the page needs beside it."""

STYLES = ("common.css", "base.css", "viewer.css", "numbers.css")
DATA = "data.js"
SCRIPTS = ("matching.js", "drawing.js", "gallery.js", "enlarged.js", "main.js")


class Picture(NamedTuple):
    """A picture beside the page: its file, and what stands for it."""

    file: str
    alt: str


class Section(NamedTuple):
    """A part of the page: text, pictures and a table, which may be missing."""

    title: str
    text: str
    picture: Picture | None = None
    table: Table | None = None
    bars: Sequence[str] = ()  # columns of percents that are drawn as bars, too
    examples: Sequence[Picture] = ()  # small ones, with what stands for them below


class Page(NamedTuple):
    """The content of a page.

    Attributes:
        title: of the page.
        subtitle: beside it.
        kind: "mask" or "box", whose overlaps count.
        note: what to know of the images.
        about: what was evaluated, on what, when.
        numbers: the few that matter most, in percent.
        sections: in order.
        settings: of the model, shown on request.
        files: names of files beside the page.
    """

    title: str
    subtitle: str
    kind: str
    note: str
    about: Mapping[str, str | int]
    numbers: Mapping[str, float]
    sections: Sequence[Section]
    settings: Mapping[str, object]
    files: Sequence[str]


def render_page(page: Page) -> str:
    """Return a page as HTML; every text is escaped."""
    template = Template((ASSETS / "page.html").read_text(encoding="utf-8"))
    style, script = '<link rel="stylesheet" href="{}">', '<script src="{}"></script>'
    facts, cards = page.about.items(), page.numbers.items()
    return template.substitute(
        title=escape(page.title),
        headline=escape(page.title).replace("_", "_<wbr>"),  # where a phone may break it
        subtitle=escape(page.subtitle),
        kind=escape(page.kind.title()),
        note=escape(page.note),
        facts="".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in facts),
        cards="".join(f"<div><b>{shown_number(v)}</b>{escape(k)}</div>" for k, v in cards),
        sections="\n".join(map(_section, page.sections)),
        settings=escape(json.dumps(page.settings, indent=1)),
        files=", ".join(f'<a href="{escape(name)}">{escape(name)}</a>' for name in page.files),
        styles="\n".join(style.format(f"{FOLDER}/{name}") for name in STYLES),
        scripts="\n".join(script.format(f"{FOLDER}/{name}") for name in (DATA, *SCRIPTS)),
    )


def render_single(
    title: str, subtitle: str, cards: Mapping[str, int], parts: Sequence[Section]
) -> str:
    """Return a page that needs nothing beside it, if its pictures are `embedded`.

    Args:
        title: of the page.
        subtitle: beside it.
        cards: the few numbers that matter most.
        parts: of the page, in order.
    """
    template = Template((ASSETS / "single.html").read_text(encoding="utf-8"))
    styles = STYLE / "common.css", ASSETS / "base.css", ASSETS / "numbers.css"
    return template.substitute(
        title=escape(title),
        headline=escape(title).replace("_", "_<wbr>"),
        subtitle=escape(subtitle),
        mark=embedded((STYLE / "mark.svg").read_bytes(), "svg+xml"),
        style="".join(file.read_text(encoding="utf-8") for file in styles),
        cards="".join(f"<div><b>{shown_number(v)}</b>{escape(k)}</div>" for k, v in cards.items()),
        sections="\n".join(map(_section, parts)),
    )


def escape(text: str) -> str:
    """Return a text for HTML, without the controls that HTML cannot hold."""
    return escape_marks(writable(text))


def embedded(content: bytes, kind: str) -> str:
    """Return an address that is the picture itself; `kind` is jpeg, png or svg+xml."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.title)}</h2>"]
    if section.text:
        parts.append(f"<p>{escape(section.text)}</p>")
    if section.picture is not None:
        parts.append(f"<figure>{_image(section.picture)}</figure>")
    if section.examples:
        parts.append(f'<div class="examples">{"".join(map(_example, section.examples))}</div>')
    if section.table is not None and section.table.rows:
        parts.append(_table(section.table, section.bars))
    return "\n".join(parts)


def _image(picture: Picture) -> str:
    name, text = map(escape, picture)
    if name.startswith("data:"):  # it is here already, and no page that could be opened
        return f'<img src="{name}" alt="{text}">'
    return f'<a href="{name}"><img loading="lazy" src="{name}" alt="{text}"></a>'


def _example(picture: Picture) -> str:
    name, text = map(escape, picture)
    return f'<figure><img src="{name}" alt=""><figcaption>{text}</figcaption></figure>'


def _table(table: Table, bars: Sequence[str]) -> str:
    first = zip(table.columns, table.rows[0], strict=True)
    kinds = [(escape(column), ' class="text"' * isinstance(cell, str)) for column, cell in first]
    head = "".join(f"<th{kind}>{column}</th>" for column, kind in kinds)
    rows = []
    for row in table.rows:
        cells = [_cell(c, n in bars) for c, n in zip(row, table.columns, strict=True)]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    body = "\n".join(rows)
    return f'<div class="scroll" tabindex="0"><table>\n<tr>{head}</tr>\n{body}\n</table></div>'


def _cell(cell: Cell, bar: bool) -> str:
    if isinstance(cell, str):
        return f'<td class="text">{escape(cell)}</td>'
    if bar and math.isfinite(cell):
        return f'<td class="share" style="--share: {cell:.1f}%">{shown_number(cell)}</td>'
    return f"<td>{shown_number(cell)}</td>"


def shown_number(value: float) -> str:
    """Return a number as the page shows it; a dash for one that is missing."""
    if isinstance(value, int):
        return str(value)
    return "–" if math.isnan(value) else f"{value:.1f}".replace("inf", "∞")

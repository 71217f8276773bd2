"""The page of an evaluation report: one HTML file, and nothing from the net."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from .tables import Cell, Table

_CSS = """
:root { color-scheme: light dark; --rule: #8884; --soft: #8881; --quiet: #777; --bar: #1e80f040; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1140px; margin: 0 auto;
padding: 2rem 1rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; }
p { max-width: 46rem; margin: .5rem 0; } .quiet, figcaption { color: var(--quiet); }
.numbers { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0; }
.numbers div { background: var(--soft); border-radius: 8px; padding: .6rem 1rem; }
.numbers b { display: block; font-size: 1.6rem; line-height: 1.2; }
.numbers b, td { font-variant-numeric: tabular-nums; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1.2rem; }
dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid var(--rule); }
th { font-weight: 600; } th:first-child, td:first-child { text-align: left; padding-left: 0; }
td.text { text-align: left; } td.bar { background:
linear-gradient(90deg, var(--bar) var(--share), transparent var(--share)) no-repeat; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; background: #fff; border-radius: 8px; }
img.picture { padding: 8px; } pre { font-size: .85rem; overflow-x: auto; }
"""


class Picture(NamedTuple):
    """A picture beside the page: its file, what stands for it, and what is written under it."""

    file: str
    alt: str
    caption: str = ""


class Section(NamedTuple):
    """A part of the page: text, pictures and a table, each of which may be missing."""

    title: str
    text: str
    pictures: Sequence[Picture] = ()
    table: Table | None = None
    bars: Sequence[str] = ()  # columns of percents that are drawn as bars, too


def render_page(
    title: str,
    about: Mapping[str, str | int],
    numbers: Mapping[str, float],
    sections: Sequence[Section],
    settings: Mapping[str, object],
    files: Sequence[str],
) -> str:
    """Return the page as HTML; every text is escaped.

    Args:
        title: of the page.
        about: what was evaluated, on what, when.
        numbers: the few that matter most, in percent.
        sections: in order.
        settings: of the model, shown on request.
        files: names of files beside the page.
    """
    facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in about.items())
    cards = "".join(f"<div><b>{_number(v)}</b>{escape(k)}</div>" for k, v in numbers.items())
    links = ", ".join(f'<a href="{escape(name)}">{escape(name)}</a>' for name in files)
    body = "\n".join(map(_section, sections))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_CSS}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<div class="numbers">{cards}</div>
<dl>{facts}</dl>
{body}
<h2>Settings and files</h2>
<details><summary>All settings of the model</summary>
<pre>{escape(json.dumps(settings, indent=1))}</pre></details>
<p>{links}</p>
</body>
</html>
"""


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.title)}</h2>", f"<p>{escape(section.text)}</p>"]
    for file, alt, caption in section.pictures:
        name, text = escape(file), escape(alt)
        image = (
            f'<a href="{name}"><img class="picture" loading="lazy" src="{name}" alt="{text}"></a>'
        )
        parts.append(f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>")
    if section.table is not None:
        parts.append(_table(section.table, section.bars))
    return "\n".join(parts)


def _table(table: Table, bars: Sequence[str]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = []
    for row in table.rows:
        cells = [_cell(c, n in bars) for c, n in zip(row, table.columns, strict=True)]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    body = "\n".join(rows)
    return f'<div class="scroll"><table>\n<tr>{head}</tr>\n{body}\n</table></div>'


def _cell(cell: Cell, bar: bool) -> str:
    if isinstance(cell, str):
        return f'<td class="text">{escape(cell)}</td>'
    if bar and math.isfinite(cell):
        return f'<td class="bar" style="--share: {cell:.1f}%">{_number(cell)}</td>'
    return f"<td>{_number(cell)}</td>"


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return "–" if math.isnan(value) else f"{value:.1f}".replace("inf", "∞")

"""The findings as one page of HTML that needs nothing beside it."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, groupby
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from data.images import Image
from data.problems import Problem, some_of
from yolact.drawing.plots import in_style
from yolact.drawing.side_by_side import jpeg_of
from yolact.files import write_text
from yolact.report.page import Picture, Section, embedded, render_single
from yolact.report.tables import Table

from .findings import Findings
from .notices import HELD, SMALLEST, held_at
from .pictures import caption, pictures

_ROWS = 50  # of a table
_EXAMPLES = 6  # of each kind of notice
_CLASSES = 20  # of the figure


def write_page(findings: Findings, path: Path) -> Path:
    """Write the page, in place of an earlier one."""
    datasets = findings.splits.values()
    problems = sum(map(len, findings.problems.values()))
    notices = sum(map(len, findings.notices.values()))
    cards = {"problems": problems, "worth a look": notices}
    if findings.shared:
        cards["labels that the model contradicts"] = len(findings.suspects)
    cards |= {f"images in {split}": len(dataset) for split, dataset in findings.splits.items()}
    cards |= {f"objects in {split}": len(found) for split, found in findings.objects.items()}
    classes = {name for dataset in datasets for name in dataset.categories.names}
    parts = [
        *_problems(findings),
        *_suspects(findings),
        *_notices(findings),
        *_histograms(findings),
    ]
    title = f"Check of {Path(findings.name).name}"
    subtitle = f"{len(classes)} classes"
    return write_text(path, render_single(title, subtitle, cards, parts))


def _problems(findings: Findings) -> Iterator[Section]:
    found = _by_kind(findings.problems)
    if not found:
        yield Section("Problems", "None: everything can be used as it is.")
    for what, rows in found:
        yield Section(f"Problem: {what} ({len(rows)})", "", table=_table(rows))


def _notices(findings: Findings) -> Iterator[Section]:
    for what, rows in _by_kind(findings.notices):
        every = chain.from_iterable(findings.notices.values())
        places = [place for each in every if each.what == what for place in each.places]
        shown = [
            Picture(_embed(image), f"{findings.info(place)['file_name']} ({place.split})")
            for place, image in pictures(findings, places[:_EXAMPLES])
        ]
        title = f"Worth a look: {what} ({len(rows)})"
        yield Section(title, "", table=_table(rows), examples=shown)


def _suspects(findings: Findings) -> Iterator[Section]:
    if not findings.shared:
        return
    text = (
        f"It knows {some_of(findings.shared, 10)}. The likeliest mistakes come first; the score "
        "ranks them, and is no probability. Swapped: of another class. Shifted: in another place. "
        "Missing: seen by the model only. Spurious: seen by the annotator only."
    )
    shown = [
        Picture(_embed(image), f"{number}  {caption(findings, suspect)}")
        for number, suspect in enumerate(findings.suspects, start=1)
        for _, image in pictures(findings, [suspect])
    ]
    title = f"Labels that the model contradicts ({len(findings.suspects)})"
    yield Section(title, text, examples=shown)


def _histograms(findings: Findings) -> Iterator[Section]:
    every = list(chain.from_iterable(findings.objects.values()))
    if not every:
        return
    text = (
        f"The input is {findings.image_size} x {findings.image_size}. From {held_at(every)} px on "
        f"{HELD:.0%} of all objects cover more than {SMALLEST} x {SMALLEST} px, a cell of the "
        "finest features."
    )
    with io.BytesIO() as content:
        draw_histograms(findings).savefig(content, format="png", dpi=110)
        source = embedded(content.getvalue(), "png")
    yield Section("Objects", text, Picture(source, "objects of each class, and of each size"))


@in_style
def draw_histograms(findings: Findings) -> Figure:
    """Draw how many objects there are of each class and of each size, for each split."""
    figure = Figure(figsize=(13, 5.2), layout="constrained")
    classes, sizes = figure.subplots(1, 2)
    counts = {
        split: Counter(found.name for found in objects)
        for split, objects in findings.objects.items()
    }
    total = sum(counts.values(), Counter[str]())
    names = [name for name, _ in total.most_common(_CLASSES)]
    height = 0.8 / max(len(counts), 1)
    for number, (split, count) in enumerate(counts.items()):
        places = np.arange(len(names)) + number * height
        classes.barh(places, [count[name] for name in names], height, label=split)
        sides = [max(1.0, findings.image_size * found.side) for found in findings.objects[split]]
        edges = np.geomspace(1, findings.image_size, 25)
        sizes.hist(sides, edges.tolist(), label=split, alpha=0.6)
    classes.set_yticks(np.arange(len(names)) + 0.4 - height / 2, [name[:24] for name in names])
    classes.invert_yaxis()
    rest = len(total) - len(names)
    classes.set(title="objects of each class" + (f"; {rest} more classes" if rest > 0 else ""))
    sizes.axvline(SMALLEST, color="#222222", linestyle="--", linewidth=1)
    ticks = [side for side in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512) if side < findings.image_size]
    sizes.set_xscale("log")
    sizes.set_xticks(ticks, list(map(str, ticks)))
    sizes.minorticks_off()
    sizes.set(title="objects of each size", xlabel="square root of the area, px of the input")
    classes.legend()
    sizes.legend()
    return figure


def _by_kind(
    problems: Mapping[str, Sequence[Problem]],
) -> list[tuple[str, list[tuple[str, Problem]]]]:
    """Group problems of all parts by their kind, the most frequent first."""
    pairs = [(part, problem) for part, found in problems.items() for problem in found]
    pairs.sort(key=lambda pair: pair[1].what)
    kinds = [(what, list(rows)) for what, rows in groupby(pairs, lambda pair: pair[1].what)]
    return sorted(kinds, key=lambda kind: -len(kind[1]))


def _table(rows: Sequence[tuple[str, Problem]]) -> Table:
    cells = [(part, problem.where, problem.mend) for part, problem in rows[:_ROWS]]
    if len(rows) > _ROWS:
        cells.append(("", f"and {len(rows) - _ROWS} more", ""))
    return Table(("split", "where", "mend"), cells)


def _embed(picture: Image) -> str:
    return embedded(jpeg_of(picture), "jpeg")

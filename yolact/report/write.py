"""The full report of an evaluation: tables, curves, pictures, and one page that shows them all.

It uses the evaluation's detections and the ground truth: the network is not run again, and images
are read only for the pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from data.problems import counted
from data.sample import Dataset
from yolact.config import Config
from yolact.drawing.plots import save_figure
from yolact.evaluation.coco import CocoEvaluator
from yolact.evaluation.confusion import (
    Outcome,
    SizeRecall,
    best_threshold,
    match_outcome,
    recall_by_size,
)
from yolact.evaluation.metrics import CocoMetrics, plain_metrics
from yolact.files import write_json, write_text
from yolact.runs.provenance import as_text, provenance

from .evaluation_data import EvaluationData
from .figures import draw_confusion, draw_precision_recall, draw_sizes
from .page import Page, Picture, Section, render_page, shown_number
from .tables import (
    Table,
    class_table,
    confusion_table,
    frequent_confusions,
    image_table,
    size_table,
    summary_table,
    write_csv,
)
from .viewer import ViewerData, write_viewer

_NUMBERS = (
    "COCO's numbers by pycocotools, in percent. AP is averaged over overlaps of .5 to .95; AP50 "
    "and AP75 are those at .5 and .75; s, m and l those of objects below 32 x 32 pixels, to 96 x "
    "96, and above. {} are the recall of so many detections in each image."
)
_MATCHING = (
    "Within a class pycocotools decides what is found, at an overlap of half or more; of what is "
    "then left over, pairs of two classes that overlap by half are confusions."
)
_KINDS = (
    "A wrong class counts as missed and as false. A poor mask or box lies on an object of its "
    "class, and overlaps it too little. Crowds, and what is detected in them, are left out."
)
MAX_SHOWN = 500
"""Default number of images that a report shows, those with most errors; it counts all images."""


@dataclass(frozen=True)
class _Evaluation:
    """The subject of an evaluation, and its results."""

    metrics: CocoMetrics
    outcome: Outcome
    sizes: list[SizeRecall]
    names: tuple[str, ...]
    files: dict[int, str]  # image id -> file name
    masks: bool

    @property
    def kind(self) -> str:
        return "mask" if self.masks else "box"


def write_report(
    folder: Path,
    evaluator: CocoEvaluator,
    dataset: Dataset,
    config: Config,
    about: Mapping[str, str],
    masks: bool = True,
    score_threshold: float | None = None,
    max_images: int = MAX_SHOWN,
) -> Path:
    """Write the report of an evaluation into a folder, replacing an earlier one.

    Args:
        folder: folder for index.html and the files that it shows.
        evaluator: evaluator with the detections.
        dataset: the images.
        config: configuration of the model, with the class names of the labels.
        about: further facts about the model and the evaluation, such as weights and date.
        masks: False to report on boxes.
        score_threshold: minimum score of detections in the confusion matrix and the pictures; by
            default that of the highest F1.
        max_images: maximum number of images to show, those with most errors.

    Returns:
        The path of index.html.
    """
    names = config.model.names
    metrics = evaluator.summarize()
    matches = metrics.main(masks).matches
    threshold = best_threshold(matches) if score_threshold is None else score_threshold
    data = EvaluationData(evaluator.results, evaluator.ground_truth(), masks)
    outcome = match_outcome(matches, threshold, data.overlaps)
    files = {i: str(dataset.coco.imgs[i].get("file_name", i)) for i in evaluator.results.images}
    evaluation = _Evaluation(metrics, outcome, recall_by_size(outcome), names, files, masks)
    tables = _write_tables(folder, evaluation)
    _write_figures(folder, evaluation)
    viewer_data = ViewerData(data, matches, outcome, names, files)
    write_viewer(folder, viewer_data, dataset, max_images)
    write_json(folder / "metrics.json", to_record(evaluator, config, about, masks), indent=1)
    facts = {
        **_facts(evaluator, config, about),
        "objects": len(outcome.objects),
        "classes": len(names),
        "score threshold": f"{threshold:.2f}{' (best F1)' if score_threshold is None else ''}",
        "made by": as_text(provenance(config.train.seed)),
    }
    page = Page(
        title=f"{config.name} on {Path(config.dataset).name}",
        subtitle=_subtitle(evaluation),
        kind=evaluation.kind,
        note=_note(viewer_data, max_images),
        about=facts,
        numbers=_headline(evaluation),
        sections=_sections(evaluation, tables),
        settings=config.to_dict(),
        files=["metrics.json", *(f"{name}.csv" for name in tables)],
    )
    return write_text(folder / "index.html", render_page(page))


def to_record(
    evaluator: CocoEvaluator, config: Config, about: Mapping[str, str], masks: bool = True
) -> dict[str, object]:
    """Return an evaluation as plain values for JSON: dataset, model, and `plain_metrics`."""
    metrics = plain_metrics(evaluator.summarize(), config.model.names, masks)
    made = {"made_by": provenance(config.train.seed), "settings": config.to_dict()}
    return {**_facts(evaluator, config, about), **made, **metrics}


def _facts(
    evaluator: CocoEvaluator, config: Config, about: Mapping[str, str]
) -> dict[str, str | int]:
    images = len(evaluator.results.images)
    return {"model": config.name, "dataset": config.dataset, "images": images, **about}


def _subtitle(evaluation: _Evaluation) -> str:
    counts = {"image": len(evaluation.files), "object": len(evaluation.outcome.objects)}
    kinds = reversed(evaluation.metrics.kinds(evaluation.masks).items())
    return " · ".join(
        [counted(count, name) for name, count in counts.items()]
        + [f"{kind} AP {shown_number(scores.coco['AP'])}" for kind, scores in kinds]
    )


def _note(viewer_data: ViewerData, max_images: int) -> str:
    images, least = len(viewer_data.files), viewer_data.least_score
    notes = [_KINDS]
    if least:
        notes.append(f"So are detections that score below {least:.2f}.")
    if images > max_images:
        notes.append(f"Shown are the {max_images:,} images with most errors; all {images:,} count.")
    return " ".join(notes)


def _write_tables(folder: Path, evaluation: _Evaluation) -> dict[str, Table]:
    metrics, outcome, names = evaluation.metrics, evaluation.outcome, evaluation.names
    tables = {
        "summary": summary_table(metrics, evaluation.masks),
        "per_class": class_table(metrics, outcome, names, evaluation.masks),
        "sizes": size_table(evaluation.sizes),
        "confusion": confusion_table(outcome, names),
        "images": image_table(outcome, evaluation.files),
    }
    for name, table in tables.items():
        write_csv(folder / f"{name}.csv", table)
    return tables


def _write_figures(folder: Path, evaluation: _Evaluation) -> None:
    metrics, outcome, names = evaluation.metrics, evaluation.outcome, evaluation.names
    matches = metrics.main(evaluation.masks).matches
    figures = {
        "precision_recall": draw_precision_recall(matches.precision, names),
        "confusion": draw_confusion(outcome.confusion, names),
        "sizes": draw_sizes(metrics, evaluation.sizes, outcome.score_threshold, evaluation.masks),
    }
    for name, figure in figures.items():
        save_figure(figure, folder / f"{name}.png")


def _headline(evaluation: _Evaluation) -> dict[str, float]:
    metrics = evaluation.metrics
    values = metrics.main(evaluation.masks).coco
    titles = {"AP": "AP", "AP50": "AP50", "AP75": "AP75"}
    titles |= {"APs": "AP small", "APm": "AP medium", "APl": "AP large"}
    numbers = {f"{evaluation.kind} {title}": values[name] for name, title in titles.items()}
    return numbers | {"box AP": metrics.box.coco["AP"]}


def _sections(evaluation: _Evaluation, tables: Mapping[str, Table]) -> list[Section]:
    outcome, kind = evaluation.outcome, evaluation.kind
    score = f"a score of {outcome.score_threshold:.2f} or more"
    right = f"{outcome.is_correct.sum()} of {len(outcome.detections)} detections are right"
    found = f"{outcome.is_found.sum()} of {len(outcome.objects)} objects are found"
    return [
        Section(
            "Average precision",
            _NUMBERS.format(f"AR1, AR10 and {list(evaluation.metrics.box.coco)[8]}"),
            table=tables["summary"],
        ),
        Section(
            "Precision and recall",
            f"Of {kind} overlap (IoU), as pycocotools accumulates them.",
            Picture("precision_recall.png", "precision over recall"),
        ),
        Section(
            "By size",
            "Recall counts the objects that are found by a detection of their class.",
            Picture("sizes.png", "AP and recall by the size of the objects"),
        ),
        Section(
            f"Confusion at {score}",
            f"{right}; {found}. {_MATCHING}",
            Picture("confusion.png", "confusion matrix"),
            frequent_confusions(outcome, evaluation.names),
        ),
        Section(
            "Classes",
            f"In percent; detected, right, precision and recall are those at {score}.",
            table=tables["per_class"],
            bars=(f"{kind} AP",),
        ),
    ]

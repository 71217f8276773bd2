"""docs/tour.ipynb runs from top to bottom, and is stored without what came out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from support.guides import ROOT

TOUR = ROOT / "docs/tour.ipynb"


@pytest.fixture
def tour() -> Any:
    return nbformat.read(TOUR, as_version=4)


def cells(tour: Any, kind: str) -> list[Any]:
    return [cell for cell in tour.cells if cell.cell_type == kind]


def test_it_is_stored_without_outputs(tour: Any) -> None:
    nbformat.validate(tour)
    assert set(tour.metadata) == {"kernelspec", "language_info"}
    for cell in cells(tour, "code"):
        assert (cell.outputs, cell.execution_count, cell.metadata) == ([], None, {})


def test_its_links_lead_somewhere(tour: Any) -> None:
    text = "\n".join(cell.source for cell in cells(tour, "markdown"))
    links = re.findall(r"\]\(([^)#]+)", text)
    assert links
    assert [link for link in links if not (TOUR.parent / link).exists()] == []


def test_its_code_runs(tour: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for number, cell in enumerate(cells(tour, "code"), start=1):
        exec(compile(cell.source, f"cell {number}", "exec"), names)


@pytest.mark.slow
def test_it_runs_in_jupyter(tour: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    client = NotebookClient(
        tour, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    shown = [out.get("data", {}) for cell in cells(tour, "code") for out in cell.outputs]
    assert sum("image/png" in data for data in shown) >= 4

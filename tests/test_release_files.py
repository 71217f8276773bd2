"""What a release says of itself: the changelog and the citation agree with the version."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from yolact import __version__

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
VERSION = re.compile(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$", re.MULTILINE)


@pytest.fixture(scope="module")
def changelog() -> str:
    return (ROOT / "CHANGELOG.md").read_text()


@pytest.fixture(scope="module")
def citation() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    return content


def test_the_changelog_is_of_its_form(changelog: str) -> None:
    first, *parts = re.split(r"^## ", changelog, flags=re.MULTILINE)
    assert first.startswith("# Changelog\n")
    assert parts[0].startswith("[Unreleased]\n")
    for part in parts:
        headings = re.findall(r"^### (.+)$", part, re.MULTILINE)
        assert set(headings) <= SECTIONS and len(headings) == len(set(headings))
        assert all(re.match(r"\n*- ", text) for text in re.split(r"^### .+$", part, flags=re.M)[1:])


def test_the_latest_version_is_this_one(changelog: str, citation: dict[str, Any]) -> None:
    releases = VERSION.findall(changelog)
    assert len(releases) == changelog.count("\n## ") - 1  # and Unreleased
    assert releases == sorted(releases, key=lambda r: [int(n) for n in r[0].split(".")])[::-1]
    assert releases[0] == (citation["version"], citation["date-released"])
    assert citation["version"] == __version__
    assert f'\nversion = "{__version__}"\n' in (ROOT / "pyproject.toml").read_text()


def test_the_citation_names_the_papers(citation: dict[str, Any]) -> None:
    assert citation["cff-version"] == "1.2.0"
    assert {"title", "message", "authors", "license"} <= citation.keys()
    titles = {reference["title"]: reference["authors"] for reference in citation["references"]}
    assert set(titles) == {
        "YOLACT: Real-time Instance Segmentation",
        "YOLACT++: Better Real-time Instance Segmentation",
        "Mask R-CNN",
    }
    bibliography = (ROOT / "docs/results.md").read_text().replace(r"\'a", "á")
    for authors in titles.values():
        assert all(f"{a['given-names']} {a['family-names']}" in bibliography for a in authors)

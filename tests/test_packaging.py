"""What builds the package elsewhere: the workflows of GitHub, and the image for Docker."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_wheel import NEEDED

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
INSTRUCTIONS = {"ARG", "FROM", "RUN", "ENV", "COPY", "USER", "WORKDIR", "ENTRYPOINT", "CMD"}


def workflow(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text())
    return content


def steps(content: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in content["jobs"].values() for step in job["steps"]]


def setting(name: str) -> str:
    """The value of a line of pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text()
    (value,) = re.findall(rf"^{name} = (.*)$", text, re.MULTILINE)
    return str(value)


def test_the_workflows_are_found() -> None:
    assert [path.name for path in WORKFLOWS] == ["test.yml", "wheels.yml"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_have_a_version_and_little_permission(path: Path) -> None:
    content = workflow(path.name)
    assert content["permissions"] == {"contents": "read"}
    actions = [step["uses"] for step in steps(content) if "uses" in step]
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@v\d+(\.\d+)*", action) for action in actions)
    assert len(actions) > 1


def test_what_is_tested_is_what_is_built() -> None:
    """From the oldest Python that is allowed to the newest."""
    oldest = re.findall(r"[\d.]+", setting("requires-python"))[0]
    built = [f"3.{minor}" for minor in re.findall(r"cp3(\d+)-\*", setting("build"))]
    tested = workflow("test.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert (built[0], tested[0], tested[-1]) == (oldest, oldest, built[-1])
    assert set(tested) <= set(built)
    assert {"make lint", "make test"} <= {step.get("run") for step in steps(workflow("test.yml"))}


def test_only_a_tag_publishes() -> None:
    jobs = workflow("wheels.yml")["jobs"]
    publish = jobs.pop("publish")
    assert publish["if"] == "startsWith(github.ref, 'refs/tags/v')"
    assert set(publish["needs"]) == set(jobs)
    assert publish["permissions"] == {"id-token": "write"}
    assert not any("permissions" in job or "environment" in job for job in jobs.values())
    assert "password" not in str(publish)


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile and what follows each."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = filter(None, re.sub(r"\\\n\s*", "", text).splitlines())
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def test_the_image_runs_the_command_and_not_as_root() -> None:
    found = instructions()
    assert {name for name, _ in found} <= INSTRUCTIONS
    last = {name: rest for name, rest in found if name != "RUN"}
    assert json.loads(last["ENTRYPOINT"]) == ["yolact"]
    assert json.loads(last["CMD"]) == ["--help"]
    assert int(last["USER"]) > 0
    names = [name for name, _ in found]
    assert "RUN" not in names[names.index("USER") :]
    assert {rest.split()[0] for name, rest in found if name == "FROM"} == {"${BASE}"}
    arguments = {rest.partition("=")[0] for name, rest in found if name == "ARG"}
    assert arguments == {"BASE", "TORCH_INDEX", "EXTRAS"}


def test_the_image_is_built_from_what_the_wheel_needs() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines.index("*") < min(i for i, line in enumerate(lines) if line.startswith("!"))
    assert {line[1:] for line in lines if line.startswith("!")} == set(NEEDED)

"""The fuzzers of scripts/fuzz: every parser on damaged files, and that they find what is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

FUZZ = Path(__file__).parents[1] / "scripts" / "fuzz"
sys.path.insert(0, str(FUZZ))

import kernels as attacks  # noqa: E402
import mutations  # noqa: E402
import oracle  # noqa: E402
from parser import Parser  # noqa: E402
from parsers import MODULE_OF, make_parser  # noqa: E402

from data.annotations import images  # noqa: E402
from layers.native import load_kernels  # noqa: E402


@pytest.fixture
def parser(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Parser:
    # Which parsers of datasets replace: it comes back.
    monkeypatch.setattr(images, "ThreadPoolExecutor", images.ThreadPoolExecutor)
    return make_parser(request.param, tmp_path)


def explored(parser: Parser, examples: int, is_shrunk: bool = False) -> None:
    """Let hypothesis choose the damage; if every step of it, which takes long, a small one."""

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=not is_shrunk))
    def check(random: Random) -> None:
        content = random.choice(parser.seeds)
        for _ in range(random.randrange(1, 4)):
            content = parser.mutate(content, random)
        assert oracle.outcome(parser, content) == ("", "")

    check()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("parser", MODULE_OF, indirect=True)
def test_damaged_files_are_read_or_refused(parser: Parser) -> None:
    """Those that are whole are read."""
    for content in parser.seeds:
        parser.read(content)
    explored(parser, 12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("parser", MODULE_OF, indirect=True)
def test_many_damaged_files_are_read_or_refused(parser: Parser) -> None:
    explored(parser, 1000, is_shrunk=True)


def planted(read: Any, megabytes: int = 64) -> Parser:
    return Parser([b"a"], read, mutations.damaged, megabytes=megabytes)


def refuse(content: bytes) -> None:
    raise ValueError("bad.json: expected a list; export it again")


def refuse_in_lines(content: bytes) -> None:
    raise ValueError("bad.json:\nexpected a list")


def let_through(content: bytes) -> None:
    int("x")


def derive(content: bytes) -> None:
    raise UnicodeError("bad.json: a text")


def take_memory(content: bytes) -> None:
    np.ones(400 << 20, np.uint8)


def hide_memory(content: bytes) -> None:
    try:
        raise MemoryError
    except MemoryError as error:
        raise ValueError("bad.json: cannot be read") from error


@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (len, ""),
        (refuse, ""),
        (refuse_in_lines, "ValueError-test_fuzz"),
        (let_through, "ValueError-test_fuzz"),
        (derive, "UnicodeError-test_fuzz"),
        (take_memory, "memory"),
        (hide_memory, "ValueError-test_fuzz"),
    ],
)
def test_what_a_parser_must_not_do(read: Any, kind: str) -> None:
    found, told = oracle.outcome(planted(read), b"a")
    assert found.startswith(kind) and bool(found) == bool(kind) == bool(told)


PLANTED = """
import os, signal
from pathlib import Path
from mutations import damaged
from parser import Parser

def image(folder):
    def read(content):
        if b"b" not in content:
            {}["b"]
        if content != b"abc" and not (folder / "crashed").exists():
            (folder / "crashed").touch()
            os.kill(os.getpid(), signal.SIGNAL)
    return Parser([b"abc"], read, damaged)
"""


@pytest.mark.parametrize(("signal", "kind"), [("SIGSEGV", "crash-SIGSEGV-"), ("SIGPROF", "hang-")])
def test_planted_bugs_are_found(tmp_path: Path, signal: str, kind: str) -> None:
    """An error, and a crash, after which it goes on."""
    for file in FUZZ.glob("*.py"):
        (tmp_path / file.name).write_text(file.read_text())
    (tmp_path / "labels.py").write_text(PLANTED.replace("SIGNAL", signal))
    command = [sys.executable, "run.py", "image", "--executions=100", "--out=out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    found = sorted((tmp_path / "out" / "image").iterdir())
    assert [file.name.startswith(("KeyError-labels-", kind)) for file in found] == [True, True]
    last = done.stdout.splitlines()[-1]
    assert last.startswith("image: 1") and kind in last and "KeyError-labels-" in last
    again = [*command, f"--input={found[0]}"]
    assert subprocess.run(again, cwd=tmp_path, capture_output=True).returncode == 1


@pytest.mark.skipif(load_kernels() is None, reason="the kernels are not compiled")
@pytest.mark.parametrize("name", attacks.KERNELS)
def test_kernels_return_or_refuse(name: str) -> None:
    outcomes = attacks.attack(load_kernels(), name, 300, seed=0)
    assert outcomes.total() == 300
    assert outcomes["returned"] > 100 and outcomes["ValueError"] > 5


@pytest.mark.slow
def test_kernels_under_sanitizers() -> None:
    """Skipped where the compiler has none."""
    command = [sys.executable, "scripts/sanitize.py", "--executions=3000"]
    done = subprocess.run(command, cwd=FUZZ.parents[1], capture_output=True, text=True)
    if "install GCC" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("3,000 executions") == len(attacks.KERNELS)

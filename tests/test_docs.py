"""Whatever the documentation names is there: links, headings, commands, flags, settings, files."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from torch.distributed.run import get_args_parser as torchrun_parser

from yolact import get_config, list_configs

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted(f"scripts/{p.name}" for p in (ROOT / "scripts").glob("*.py"))
PARSERS = ["train.py", "eval.py", *SCRIPTS]
MAX_README_LINES = 150

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
SETTING = re.compile(r"(model|loss|train|augment|detect)\.\w+=\S+")
OUR_FILE = re.compile(r"((layers|data|yolact|scripts|tests|docs|weights)/[\w/]*(\.\w+|/)|\w+\.py)")
SHELL = ("python ", "torchrun ", "make ", "pip ", "yolact ", "docker ")


class Page:
    """A page of Markdown."""

    def __init__(self, path: Path, text: str | None = None) -> None:
        self.path = path
        self.text = path.read_text() if text is None else text
        self.prose = FENCE.sub("", self.text)
        self.spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", self.prose)]

    def fences(self, language: str) -> list[str]:
        return [body for kind, body in FENCE.findall(self.text) if kind == language]

    @cached_property
    def anchors(self) -> set[str]:
        """The names that GitHub gives to the headings."""
        headings = re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}

    @property
    def commands(self) -> list[str]:
        """Shell commands of code blocks, one a line, and of inline code."""
        blocks = "\n".join(self.fences("bash")).replace("\\\n", " ")
        lines = [line for line in blocks.split("\n") if line.strip()]
        return lines + [span for span in self.spans if span.startswith(SHELL)]


PAGES = [
    Page(ROOT / name)
    for name in (
        "README.md",
        "SECURITY.md",
        "weights/README.md",
        *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
    )
]


class Found(BaseException):
    """The parser of a command line, and its arguments; no `except Exception` stops it."""


class Command(NamedTuple):
    parser: argparse.ArgumentParser
    arguments: list[str]


def command_of(main: Callable[[], object], arguments: list[str]) -> Command:
    """Run a command line until it begins to parse.

    Raises:
        SystemExit: it ends before.
    """

    def stop(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> None:
        raise Found(self, sys.argv[1:] if args is None else list(args))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        patch.setattr(sys, "argv", ["program", *arguments])
        try:
            raise SystemExit(main())
        except Found as found:
            return Command(*found.args)


@cache
def main_of(script: str) -> Callable[[], object]:
    main: Callable[[], object] = runpy.run_path(str(ROOT / script))["main"]
    return main


@cache
def names_in(section: str) -> dict[str, str]:
    """The keys of a section of pyproject.toml, and the first line of their values."""
    text = (ROOT / "pyproject.toml").read_text().partition(f"\n[{section}]\n")[2]
    return dict(re.findall(r"^([\w-]+) = (.*)$", text.partition("\n[")[0], re.MULTILINE))


@cache
def known_flags() -> set[str]:
    parsers = [command_of(main_of(script), []).parser for script in PARSERS]
    return {flag for p in [*parsers, torchrun_parser()] for flag in p._option_string_actions}


def wrong_links(page: Page) -> Iterator[str]:
    pages = {other.path: other for other in PAGES} | {page.path: page}
    for link in LINK.findall(re.sub(r"`[^`]+`", "", page.prose)):
        name, _, anchor = link.partition("#")
        if link.startswith("https://"):
            continue
        target = (page.path.parent / name).resolve() if name else page.path
        if not (target.is_relative_to(ROOT) and target.exists()):
            yield f"{link}: no such file"
        elif anchor and anchor not in pages[target].anchors:
            yield f"{link}: no such heading"


def wrong_commands(page: Page) -> Iterator[str]:
    for line in page.commands:
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"\w+=\S*", words[0]):  # variables of the environment
            del words[0]
        words = list(takewhile(lambda word: word not in (">", "|"), words))
        if words and (reason := wrong_command(*words)):
            yield f"{line}: {reason}"


def wrong_command(program: str, *arguments: str) -> str | None:
    """Return what is wrong with a command, None for nothing."""
    if program == "torchrun":
        options = torchrun_parser().parse_args(arguments)
        return wrong_command("python", options.training_script, *options.training_script_args)
    if program == "python":
        script, *rest = arguments
        return wrong_arguments(main_of(script), rest) if script in PARSERS else "no such script"
    if program == "yolact":
        module, _, name = names_in("project.scripts").get("yolact", "").strip('"').partition(":")
        if not name:
            return "the package has no such command"
        return wrong_arguments(getattr(importlib.import_module(module), name), list(arguments))
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return None if set(arguments) <= set(targets) else "no such target"
    if program == "pip":
        extras = set(re.findall(r"(?<=[\[,])\w+(?=[\],])", " ".join(arguments)))
        known = names_in("project.optional-dependencies").keys()
        return None if extras <= known else "no such extra"
    if program == "docker":
        return wrong_docker(*arguments)
    return None if program == "source" else "unknown program"


def wrong_docker(verb: str, *arguments: str) -> str | None:
    """Check the arguments of our Dockerfile, and the command that our image runs."""
    if verb == "run":
        image = next(i for i, word in enumerate(arguments) if re.fullmatch(r"yolact(:\w+)?", word))
        return wrong_command("yolact", *arguments[image + 1 :])
    known = set(re.findall(r"^ARG (\w+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    given = {word.partition("=")[0] for word in arguments if re.match(r"[A-Z_]+=", word)}
    return None if given <= known else "no such build argument"


def wrong_arguments(main: Callable[[], object], arguments: list[str]) -> str | None:
    """Let the program's own parser judge, and the configuration the names and settings."""
    try:
        command = command_of(main, arguments)
        args = vars(command.parser.parse_args(command.arguments))
    except SystemExit as ended:
        return f"exit code {ended.code}" if ended.code else None  # --help ends with 0
    for name in ("config", "weights", "trained_model"):
        value = str(args.get(name) or "latest")
        is_place = value.startswith("hf:") or value.endswith(("/", ".pth", ".xml", ".onnx"))
        if not is_place and value not in (*list_configs(), "latest"):
            return f"--{name}: no such preset"
    return wrong_settings(args.get("config") or "yolact_base", *args.get("set") or [])


def wrong_settings(preset: str, *settings: str) -> str | None:
    try:
        get_config(preset).override(*settings)
    except (KeyError, ValueError) as error:
        return str(error)
    return None


def wrong_spans(page: Page) -> Iterator[str]:
    """Check files, settings and flags in inline code."""
    for span in page.spans:
        if OUR_FILE.fullmatch(span) and not (ROOT / span).exists():
            yield f"{span}: no such file"
        if SETTING.fullmatch(span) and (reason := wrong_settings("yolact_base", span)):
            yield reason
        if (flag := re.match(r"--[\w-]+", span)) and flag[0] not in known_flags():
            yield f"{span}: no such flag"


def wrong_names(page: Page) -> Iterator[str]:
    """Check what is said to be in a file: "`file`, `name`" and "`name` in `file`"."""
    after = re.findall(r"`([\w/]+\.py)`, `([\w.]+)`(?:\s+and\s+`(\w+)`)?", page.prose)
    before = re.findall(r"`(\w+)`(?:\s+and\s+`(\w+)`)?\s+in\s+`([\w/]+\.py)`", page.prose)
    for file, *names in [*after, *((file, *names) for *names, file in before)]:
        for name in filter(None, names):
            parts = [] if OUR_FILE.fullmatch(name) else name.split(".")
            missing = set(parts) - defined_in(file)
            if missing:
                yield f"{file}: has no {name}"


@cache
def defined_in(file: str) -> set[str]:
    names: set[str] = set()
    text = (ROOT / file).read_text() if (ROOT / file).exists() else ""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def wrong_python(page: Page) -> Iterator[str]:
    """Check that examples are Python, and import what is there."""
    for block in page.fences("python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                missing = [each.name for each in node.names if not hasattr(module, each.name)]
                yield from (f"{node.module} has no {name}" for name in missing)


CHECKS = (wrong_links, wrong_commands, wrong_spans, wrong_names, wrong_python)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.path.relative_to(ROOT)))
def test_what_a_page_names_is_there(page: Page) -> None:
    assert [problem for check in CHECKS for problem in check(page)] == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", None),
        ("[page](docs/no.md)", "docs/no.md: no such file"),
        ("[outside](../other)", "../other: no such file"),
        ("![picture](docs/no.png)", "docs/no.png: no such file"),
        ("# A head, long\n[here](#a-head-long)", None),
        ("[here](#a-head)", "#a-head: no such heading"),
        ("[there](docs/recipes.md#none)", "docs/recipes.md#none: no such heading"),
        ("```bash\nA=1 python eval.py --top_k=2 \\\n  --image=a:b  # so\n```", None),
        ("```bash\npython eval.py --nothing\n```", "exit code 2"),
        ("```bash\nyolact eval --json > ap.json\n```", None),
        ("```bash\nyolact eval --nothing | head\n```", "exit code 2"),
        ("```bash\npython train.py --batch_size=few\n```", "exit code 2"),
        ("```bash\npython scripts/anchors.py\n```", "exit code 2"),
        ("```bash\npython scripts/nothing.py\n```", "no such script"),
        ("```bash\nsudo eval.py\n```", "unknown program"),
        ("`python eval.py --nothing`", "exit code 2"),
        ("`python train.py --config=yolact_bass`", "--config: no such preset"),
        ("`python train.py --set train.speed=1`", "train.speed"),
        ("`torchrun --nproc-per-node=2 train.py --nothing`", "exit code 2"),
        ("`make nothing`", "no such target"),
        ("`pip install .[nothing]`", "no such extra"),
        ("`yolact nothing`", "yolact nothing"),
        ("`docker run --rm yolact nothing`", "yolact nothing"),
        ("`docker build --build-arg NOTHING=1 .`", "no such build argument"),
        ("`--nothing`", "--nothing: no such flag"),
        ("`loss.box_loss=iou`", "loss.box_loss"),
        ("`yolact/nothing.py` `nothing.py` `data/nothing/`", "yolact/nothing.py: no such file"),
        ("`eval.py`, `nothing`", "eval.py: has no nothing"),
        ("`nothing.py`, `main`", "nothing.py: no such file"),
        ("`main` and `nothing` in `eval.py`", "eval.py: has no nothing"),
        ("```python\nfrom yolact import nothing\n```", "yolact has no nothing"),
    ],
)
def test_a_mistake_is_found(text: str, problem: str | None) -> None:
    page = Page(ROOT / "README.md", text)
    found = [problem for check in CHECKS for problem in check(page)]
    assert (found == []) if problem is None else (problem in found[0])


def test_the_front_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MAX_README_LINES


def test_the_network_is_shown_as_it_is() -> None:
    """The README's `forward` is that of `yolact/models/yolact.py`."""
    (shown,) = ast.parse(PAGES[0].fences("python")[1]).body
    tree = ast.parse((ROOT / "yolact/models/yolact.py").read_text())
    network = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Network")
    real = next(n for n in network.body if isinstance(n, ast.FunctionDef) and n.name == "forward")
    del real.body[0]  # the docstring
    assert ast.dump(shown) == ast.dump(real)


def test_the_tree_names_every_module() -> None:
    table = (ROOT / "docs/code.md").read_text()
    rows = re.findall(r"^\| `([\w/]+)/` \| ([\w, ]+) \|", table, re.MULTILINE)
    told = {f"{folder}/{name}.py" for folder, names in rows for name in names.split(", ")}
    paths = [
        path for package in ("layers", "data", "yolact") for path in (ROOT / package).rglob("*.py")
    ]
    real = {str(path.relative_to(ROOT)) for path in paths if path.stem != "__init__"}
    assert (told - real, real - told) == (set(), set())

"""Write docs/api.md, the reference of the public names, from their signatures and docstrings."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

from yolact import __all__ as public_names
from yolact import __getattr__ as public_item
from yolact.cli.common import make_parser, run_command
from yolact.files import write_text

PAGE = Path(__file__).resolve().parent.parent / "docs" / "api.md"
HEAD = """# Reference

The names of `from yolact import ...`, as their docstrings tell them. How they are used is in
[use.md](use.md). This page is made by `python scripts/api_reference.py`.
"""
PACKAGES = ("layers", "data", "yolact")
MEMBERS = (FunctionType, classmethod, staticmethod, property)
WIDTH = 96
SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Example):\n", re.MULTILINE)
ITEM = re.compile(r"^(\w[\w, ]*): ", re.MULTILINE)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page and print its path."""
    parser = make_parser("api_reference.py", __doc__)
    parser.add_argument("--out", type=Path, default=PAGE, help="page to write")
    print(write_text(parser.parse_args(argv).out, reference()))


def reference() -> str:
    """Return the page."""
    public = {name: public_item(name) for name in public_names}
    contents = [f"- [{name}](#{name.lower()}): {summary(item)}" for name, item in public.items()]
    parts = [part for name, item in public.items() for part in described(name, item, "##")]
    return "\n\n".join([HEAD.strip(), "\n".join(contents), *parts]) + "\n"


def summary(item: object) -> str:
    """Return the first paragraph of a docstring, in one line."""
    return " ".join((inspect.getdoc(item) or "").partition("\n\n")[0].split())


def described(name: str, item: Any, heading: str) -> Iterator[str]:
    """Yield the Markdown blocks of a function, a property, or a class with its members."""
    yield f"{heading} {name}"
    sections = split(inspect.getdoc(item) or "")
    if is_dataclass(item):
        sections.pop("Attributes", None)
        yield from markdown(sections)
        yield described_fields(item)
    else:
        yield f"```py\n{signature(name, item)}\n```"
        yield from markdown(sections)
    if inspect.isclass(item):
        for key, member in members(item):
            yield from described(f"{name}.{key}", member, f"{heading}#")
    for part in parts(item):
        yield from described(part.__name__, part, f"{heading}#")


def parts(item: Any) -> Iterator[Any]:
    """Yield the dataclasses that a dataclass has as fields, as `Config` has `ModelConfig`."""
    for field in fields(item) if is_dataclass(item) else ():
        if is_dataclass(field.default_factory):
            yield field.default_factory


def signature(name: str, item: Any) -> str:
    """Write how something is called; each parameter in a line of its own where that is long."""
    name = name.rpartition(".")[2]
    function: Any = item.fget if isinstance(item, property) else item
    shown = inspect.signature(function)
    if isinstance(item, property):
        return f"{name}: {shown.return_annotation}"
    parameters = []
    for key, parameter in shown.parameters.items():
        if key in ("self", "cls"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parameters:
            parameters.append("*")
        # Annotations are strings here: without their quotes.
        parameters.append(re.sub(r"^(\*{0,2}\w+: )'(.*?)'(?= = |$)", r"\1\2", str(parameter)))
    ending = "" if inspect.isclass(item) else f" -> {shown.return_annotation}"
    line = f"{name}({', '.join(parameters)}){ending}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"{name}(", *(f"    {p}," for p in parameters), f"){ending}"])


def members(owner: type) -> Iterator[tuple[str, Any]]:
    """Yield the documented methods and properties of a class, also what it has from our others."""
    seen = set(vars(object)) | {"__init__", "__post_init__"}
    for base in owner.__mro__:
        if base.__module__.partition(".")[0] not in PACKAGES:
            continue
        for name, value in vars(base).items():
            public = not name.startswith("_") or (name.startswith("__") and value.__doc__)
            if name not in seen and public and isinstance(value, MEMBERS):
                yield name, getattr(owner, name)
            seen.add(name)


def described_fields(owner: Any) -> str:
    """List the fields of a dataclass, with what it and those above it tell of them."""
    told: dict[str, str] = {}
    for base in reversed(owner.__mro__):
        told.update(items(split(vars(base).get("__doc__") or "").get("Attributes", "")))
    points = []
    for field in fields(owner):
        default = "" if field.default is MISSING else f" = {field.default!r}"
        short = textwrap.shorten(f"{field.name}: {field.type}{default}", 80, placeholder=" ...")
        points.append(f"- `{short}`" + (f": {told[field.name]}" if field.name in told else ""))
    return "\n".join(points)


def split(docstring: str) -> dict[str, str]:
    """Return the sections of a docstring by name, dedented; the text before them under ""."""
    text, *rest = SECTION.split(inspect.cleandoc(docstring))
    names, bodies = rest[::2], rest[1::2]
    return {"": text.strip()} | {
        name: textwrap.dedent(body).strip() for name, body in zip(names, bodies, strict=True)
    }


def items(section: str) -> dict[str, str]:
    """Return the texts of "name: text" by name, in one line each."""
    _, *rest = ITEM.split(section)
    return {n: " ".join(text.split()) for n, text in zip(rest[::2], rest[1::2], strict=True)}


def markdown(sections: dict[str, str]) -> Iterator[str]:
    """Yield the sections of a docstring as blocks."""
    for name, body in sections.items():
        if name == "Example":
            yield "```python\n" + re.sub(r"^(>>>|\.\.\.) ?", "", body, flags=re.MULTILINE) + "\n```"
        elif name == "Returns":
            yield f"Returns: {body}"
        elif name:
            points = [f"- `{key}`: {text}" for key, text in items(body).items()]
            yield f"{name}:\n\n" + "\n".join(points)
        elif body:
            yield body


if __name__ == "__main__":
    raise SystemExit(run_command(main))

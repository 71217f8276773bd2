"""Guides as programs: their blocks of bash and Python, run as a reader would paste them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import matplotlib
import numpy as np

from data.images import read_image
from data.video.writer import VideoWriter
from yolact.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
PORTRAIT = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"


class Block(NamedTuple):
    """A fenced block, or a command of one.

    Attributes:
        language: what stands behind the fence.
        line: of the page, from 1, where the text begins.
        text: dedented by as much as the fence.
    """

    language: str
    line: int
    text: str


def blocks(page: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page.

    Raises:
        ValueError: a block has no end.
    """
    lines = enumerate(page.splitlines(), start=1)
    for number, opening in lines:
        fence = re.fullmatch(r"( *)```(\w*).*", opening)
        if not fence:
            continue
        indent, language = fence.groups()
        body = []
        for _, line in lines:
            if line.strip() == "```":
                break
            body.append(line.removeprefix(indent))
        else:
            raise ValueError(f"line {number}: this block has no end")
        yield Block(language, number + 1, "\n".join(body))


def commands(block: Block) -> Iterator[Block]:
    """Yield the commands of a block of bash: lines, joined where they end in a backslash."""
    for match in re.finditer(r"^(?:.*\\\n)*.+$", block.text, re.MULTILINE):
        line = block.line + block.text.count("\n", 0, match.start())
        if not re.match(r"\s*(#|$)", match[0]):
            yield Block(block.language, line, match[0])


def run_page(path: Path) -> None:
    """Run the bash and the Python of a page, in order, in the working folder.

    Raises:
        AssertionError: a block failed; it says where, why, and shows the text.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(path.read_text()):
        for part in commands(block) if block.language == "bash" else [block]:
            try:
                if part.language == "bash":
                    run_command(part.text)
                elif part.language == "python":
                    # Empty lines before it, so that a traceback shows the lines of the page.
                    code = "\n" * (part.line - 1) + part.text
                    exec(compile(code, path, "exec"), names)
            except (Exception, SystemExit) as error:
                reason = f"{type(error).__name__}: {error}"
                raise AssertionError(f"{path}:{part.line}: {reason}\n{part.text}") from error


def run_command(text: str) -> None:
    """Run a line of bash; plain calls of `yolact` in this process, which is much faster.

    Raises:
        SystemExit: the exit code is not 0.
    """
    lexer = shlex.shlex(text.replace("\\\n", " "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    program, *arguments = words = list(lexer)
    needs_shell = "$" in text or any(set(word) <= set("();<>|&") for word in words if word)
    if program == "yolact" and not needs_shell:
        code = main(arguments)
    else:
        binaries = Path(sys.executable).parent
        path = os.pathsep.join((str(binaries), os.environ["PATH"]))
        env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
        shell = ["bash", "-euo", "pipefail", "-c", text]
        code = subprocess.run(shell, env=env, check=False, timeout=120).returncode
    if code:
        raise SystemExit(f"exit code {code}")


def furnish(folder: Path) -> None:
    """Put there what a guide may use: photo.jpg, three images in photos/, a second of clip.mp4."""
    portrait = read_image(PORTRAIT)
    shutil.copyfile(PORTRAIT, folder / "photo.jpg")
    pictures = {
        "portrait.jpg": cv2.resize(portrait, (256, 300), interpolation=cv2.INTER_AREA),
        "mirrored.jpg": cv2.resize(portrait[:, ::-1], (205, 240), interpolation=cv2.INTER_AREA),
        "more/close.jpg": portrait[100:400, 100:400],
    }
    for name, picture in pictures.items():
        file = folder / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    with VideoWriter(folder / "clip.mp4", fps=12, image_hw=(480, 400)) as writer:
        for x in range(0, 96, 8):
            writer.write(np.ascontiguousarray(portrait[60:540, x : x + 400]))

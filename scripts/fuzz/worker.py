"""The process in which run.py lets a parser read: worker.py PARSER EXECUTIONS SEED OUT NOTE."""

from __future__ import annotations

import faulthandler
import importlib.util
import logging
import mmap
import os
import resource
import signal
import struct
import sys
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from parser import Parser

_GUIDED_BY = ["data", "yolact", "PIL", "yaml"]  # packages; all of torch would take minutes
_ADDRESSES = 6 << 30  # bytes that a process may reserve beyond what it has when it begins
_LARGEST = 1 << 20  # bytes of a content


class Note:
    """What a worker is about to read, in a file that outlives it.

    Args:
        file: is made anew.

    Attributes:
        kinds: a file with the kinds of findings.
        trace: a file with where it was when it crashed.
    """

    _head = struct.Struct("QQ")  # executions, and the length of the content that follows

    def __init__(self, file: Path, is_new: bool = True) -> None:
        self.file = file
        self.kinds, self.trace = file.with_name("kinds"), file.with_name("trace")
        if is_new:
            file.write_bytes(bytes(self._head.size + _LARGEST))
            self.kinds.touch()
            self.trace.write_text("")
        with file.open("r+b") as stream:
            self._bytes = mmap.mmap(stream.fileno(), 0)

    def write(self, count: int, content: bytes) -> None:
        """Note an execution before it begins."""
        content = content[:_LARGEST]
        self._bytes[: self._head.size] = self._head.pack(count, len(content))
        self._bytes[self._head.size : self._head.size + len(content)] = content

    def read(self) -> tuple[int, bytes]:
        """Return how many executions began, and the content of the last one."""
        count, length = self._head.unpack(self._bytes[: self._head.size])
        return count, self._bytes[self._head.size : self._head.size + length]


def keep(folder: Path, kind: str, content: bytes) -> bool:
    """Keep a content under the name of what it does; tell whether it is the first of its kind."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / kind).exists():
        return False
    (folder / kind).write_bytes(content)
    return True


def main(name: str, executions: int, seed: int, out: Path, note: Note) -> None:
    """Let a parser read so many contents; what it must not do is told and kept."""
    is_guided = importlib.util.find_spec("atheris") is not None
    trace = note.trace.open("w")
    os.dup2(trace.fileno(), 2)  # what libraries say of every broken file, and errors at the start
    with ExitStack() as stack:
        if is_guided:
            import atheris

            stack.enter_context(atheris.instrument_imports(include=_GUIDED_BY))
        from oracle import SECONDS, outcome
        from parsers import make_parser

        folder = note.file.with_name("files")
        folder.mkdir(exist_ok=True)
        parser = make_parser(name, folder)
    kinds = set(note.kinds.read_text().split())
    count = 0

    def one(content: bytes) -> None:
        nonlocal count
        content, count = bytes(content), count + 1
        note.write(count, content)
        signal.setitimer(signal.ITIMER_PROF, 2 * SECONDS)
        kind, told = outcome(parser, content)
        if kind and kind not in kinds:
            kinds.add(kind)
            note.kinds.write_text(" ".join(kinds))
            keep(out / name, kind, content)
            print(f"{name}: {kind}: {told}", flush=True)

    _prepare(trace)
    run = _guided if is_guided else at_random
    run(one, parser, executions, seed, note.file.with_name("corpus"))


def at_random(
    one: Callable[[bytes], None], parser: Parser, executions: int, seed: int, _: object = None
) -> None:
    """Damage valid contents up to four times."""
    random = Random(seed)
    for seen in range(executions):
        content = random.choice(parser.seeds) if seen >= len(parser.seeds) else parser.seeds[seen]
        for _ in range(random.randrange(1, 5) if seen >= len(parser.seeds) else 0):
            content = parser.mutate(content, random)
        one(content)


def _guided(
    one: Callable[[bytes], None], parser: Parser, executions: int, seed: int, corpus: Path
) -> None:
    """Let libFuzzer choose, through atheris, what is worth to be damaged further."""
    import atheris

    corpus.mkdir(exist_ok=True)
    for number, content in enumerate(parser.seeds):
        (corpus / str(number)).write_bytes(content)

    def mutate(content: bytes, most: int, seed: int) -> bytes:
        return parser.mutate(bytes(content), Random(seed))[:most]

    flags = [f"-atheris_runs={executions}", f"-seed={seed}", "-rss_limit_mb=0", "-max_len=20000"]
    flags += [f"-artifact_prefix={corpus.parent}/", "-report_slow_units=1000", "-keep_seed=1"]
    flags += [f"-handle_{name}=0" for name in ("segv", "abrt", "bus", "ill", "fpe")]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], one, custom_mutator=mutate)
    atheris.Fuzz()


def _prepare(trace: TextIO) -> None:
    """Bound the memory, note crashes, and silence what libraries say of every broken file."""
    with Path("/proc/self/statm").open() as file:
        most = int(file.read().split()[0]) * mmap.PAGESIZE + _ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    trace.truncate(0)
    faulthandler.enable(trace)
    faulthandler.register(signal.SIGPROF, trace, chain=True)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


if __name__ == "__main__":
    main(
        sys.argv[1],
        int(sys.argv[2]),
        int(sys.argv[3]),
        Path(sys.argv[4]),
        Note(Path(sys.argv[5]), False),
    )

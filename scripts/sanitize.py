"""Build the compiled kernels with AddressSanitizer and UBSan, and attack them.

The attack is scripts/fuzz/kernels.py. Needs GCC with its libasan and libubsan; installs nothing.
Exit code 0 means that nothing was reported.

Examples:
  python scripts/sanitize.py
  python scripts/sanitize.py --executions=1000000 --seed=2
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

from yolact.cli.common import add_flags, flag, make_parser, run_command

ROOT = Path(__file__).resolve().parents[1]
_FLAGS = (
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"),
    *("-O1", "-g", "-ffp-contract=off", "-fPIC", "-shared", "-w"),
)
# Python keeps its memory to the end; too large allocations return NULL, as without sanitizers.
_OPTIONS = "detect_leaks=0:allocator_may_return_null=1:halt_on_error=1:abort_on_error=1"


def main(argv: Sequence[str] | None = None) -> None:
    """Build, and run every kernel so often."""
    parser = make_parser("sanitize.py", __doc__)
    add_flags(
        parser,
        "options",
        (
            flag("--executions", "calls of each kernel", int, 100_000),
            flag("--seed", "seed of the arguments", int, 1),
        ),
    )
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        kernels = build(Path(folder))
        attack = [sys.executable, str(ROOT / "scripts" / "fuzz" / "kernels.py")]
        attack += [f"--executions={args.executions}", f"--seed={args.seed}", f"--kernels={kernels}"]
        done = subprocess.run(attack, env=os.environ | environment(), check=False)
    if done.returncode:
        raise ValueError(f"a sanitizer reported, see above; exit code {done.returncode}")


def build(folder: Path) -> Path:
    """Compile layers/kernels.pyx with sanitizers.

    Raises:
        ValueError: the compiler or Cython is not there, or refuses.
    """
    source = folder / "kernels.c"
    library = folder / f"kernels{sysconfig.get_config_var('EXT_SUFFIX')}"
    include = sysconfig.get_paths()["include"]
    _run(sys.executable, "-m", "cython", "layers/kernels.pyx", "-o", str(source))
    _run(_compiler(), *_FLAGS, f"-I{include}", str(source), "-o", str(library))
    return library


def environment() -> dict[str, str]:
    """Return what a process needs to load such a library: the sanitizers come before all others."""
    found = (_run(_compiler(), f"-print-file-name={name}").strip() for name in _LIBRARIES)
    libraries = [name for name in found if Path(name).is_absolute()]
    if len(libraries) < len(_LIBRARIES):
        raise ValueError(
            f"{_compiler()} has no {' and '.join(_LIBRARIES)}: install GCC's sanitizers"
        )
    return {
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": _OPTIONS,
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "PYTHONMALLOC": "malloc",  # so that arrays have borders of their own
    }


_LIBRARIES = ("libasan.so", "libubsan.so")


def _compiler() -> str:
    return os.environ.get("CC", "gcc")


def _run(*command: str) -> str:
    try:
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    except FileNotFoundError:
        raise ValueError(f"{command[0]}: not found; install GCC, or name it by CC") from None
    except subprocess.CalledProcessError as error:
        raise ValueError(f"{' '.join(command)}: {error.stderr[-300:]}") from None


if __name__ == "__main__":
    raise SystemExit(run_command(main))

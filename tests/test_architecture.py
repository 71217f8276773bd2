"""The house rules, read from the syntax trees of the packages."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Each may import those before it.
PACKAGES = ("layers", "data", "yolact")
PACKAGE_FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
SCRIPTS = sorted([*ROOT.glob("*.py"), *(ROOT / "scripts").rglob("*.py")])
FILES = PACKAGE_FILES + SCRIPTS
KERNELS = "layers.kernels"  # compiled, and perhaps absent: imported by name at run time
LAYERS_MAY_IMPORT = sys.stdlib_module_names | {"torch", "torchvision", "numpy"}
MAX_FILE, MAX_FUNCTION = 400, 60


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


class Import(NamedTuple):
    """One imported module; `level` counts the leading dots."""

    module: str
    level: int
    line: int

    @property
    def top(self) -> str:
        return self.module.split(".")[0]


def imports(path: Path) -> Iterator[Import]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, 0, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield Import(node.module or "", node.level, node.lineno)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            argument = node.args[0]
            module = str(argument.value) if isinstance(argument, ast.Constant) else "?"
            level = len(module) - len(module.lstrip("."))
            if module != KERNELS or path.parent.name != "layers":
                yield Import(module.lstrip("."), level, node.lineno)


files = pytest.mark.parametrize("path", FILES, ids=name_of)
package_files = pytest.mark.parametrize("path", PACKAGE_FILES, ids=name_of)


def test_the_files_are_found() -> None:
    names = {name_of(path) for path in FILES}
    assert {
        "layers/boxes.py",
        "data/coco.py",
        "yolact/model.py",
        "yolact/backbones/resnet.py",
    } <= names
    assert "train.py" in names
    assert any(name.startswith("scripts/") for name in names)


@package_files
def test_imports_go_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    forbidden = {*PACKAGES[PACKAGES.index(package) + 1 :], "scripts", "tests"}
    forbidden |= {script.stem for script in ROOT.glob("*.py")} | {"train", "eval"}
    wrong = [item for item in imports(path) if item.level == 0 and item.top in forbidden]
    assert not wrong


@package_files
def test_relative_inside_a_package_and_absolute_across(path: Path) -> None:
    parts = path.relative_to(ROOT).parts
    for item in imports(path):
        assert item.level or item.top != parts[0], item  # inside: relative
        assert item.level < len(parts), item  # relative: never beyond the package
        assert item.level or item.module not in PACKAGES, item  # `from layers.boxes import ...`


@pytest.mark.parametrize("path", sorted((ROOT / "layers").rglob("*.py")), ids=name_of)
def test_layers_stand_on_torch_and_numpy_alone(path: Path) -> None:
    wrong = [
        item for item in imports(path) if item.level == 0 and item.top not in LAYERS_MAY_IMPORT
    ]
    assert not wrong


@files
def test_no_file_is_too_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_FILE


@files
def test_no_function_is_too_long(path: Path) -> None:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert not {name: length for name, length in lengths.items() if length > MAX_FUNCTION}


@package_files
def test_no_file_runs_or_changes_anything_when_imported(path: Path) -> None:
    """At the top level stand definitions, not calls, loops or deletions."""
    allowed = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef, ast.Assign, ast.AnnAssign)
    for node in ast.parse(path.read_text()).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        assert docstring or isinstance(node, allowed), f"line {node.lineno}"
        targets = node.targets if isinstance(node, ast.Assign) else []
        assert all(isinstance(target, (ast.Name, ast.Tuple)) for target in targets)


@package_files
def test_no_global_statement(path: Path) -> None:
    nodes = ast.walk(ast.parse(path.read_text()))
    assert not [node.lineno for node in nodes if isinstance(node, ast.Global)]


def test_the_public_names_and_nothing_else() -> None:
    body = ast.parse((ROOT / "yolact" / "__init__.py").read_text()).body
    docstring, *rest = body
    assert isinstance(docstring, ast.Expr)
    imported: set[str] = set()
    assigned: dict[str, object] = {}
    for node in rest:
        if isinstance(node, ast.ImportFrom):
            imported |= {alias.asname or alias.name for alias in node.names}
            continue
        assert isinstance(node, ast.Assign), ast.unparse(node)
        assigned[ast.unparse(node.targets[0])] = ast.literal_eval(node.value)
    assert set(assigned) == {"__version__", "__all__"}
    assert assigned["__all__"] == sorted(imported)


PROBE = """
import logging, os, random, sys
import cv2, numpy, pycocotools, torch, torchvision, tqdm

def state():
    return (
        dict(os.environ), random.getstate(), torch.get_rng_state().tolist(),
        torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype(),
        cv2.getNumThreads(), list(sys.path),
        list(logging.getLogger().handlers), torch.cuda.is_initialized(),
    )

before = state()
import yolact
for old, new in zip(before, state()):
    assert old == new, (old, new)
assert not torch.cuda.is_initialized()
assert not {"train", "eval", "scripts", "tests"} & set(sys.modules)
"""


def test_importing_has_no_side_effect(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-B", "-c", PROBE],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_layers_import_alone() -> None:
    modules = [f"layers.{p.stem}" for p in (ROOT / "layers").glob("*.py") if p.stem != "__init__"]
    outside = "{'data', 'yolact', 'cv2'} & set(sys.modules)"
    code = f"import sys, {', '.join(modules)}\nprint(sorted({outside}))"
    result = subprocess.run(
        [sys.executable, "-B", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stdout) == (0, "[]\n"), result.stderr

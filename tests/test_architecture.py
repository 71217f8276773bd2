"""The house rules, read from the syntax trees of the packages."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

import yolact

ROOT = Path(__file__).resolve().parent.parent
# Each may import those before it.
PACKAGES = ("layers", "data", "yolact")
PACKAGE_FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
SCRIPTS = sorted([*ROOT.glob("*.py"), *(ROOT / "scripts").rglob("*.py")])
FILES = PACKAGE_FILES + SCRIPTS
LAYERS_MAY_IMPORT = sys.stdlib_module_names | {"torch", "torchvision", "numpy"}
MAX_FILE, MAX_FUNCTION, MAX_MODULES = 400, 60, 14


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
            for alias in node.names:
                inside = f"{node.module}.{alias.name}" if node.module else alias.name
                is_module = not node.module or (ROOT / f"{inside.replace('.', '/')}.py").exists()
                yield Import(inside if is_module else node.module, node.level, node.lineno)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            argument = node.args[0]
            module = str(argument.value) if isinstance(argument, ast.Constant) else "?"
            level = len(module) - len(module.lstrip("."))
            yield Import(module.lstrip("."), level, node.lineno)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def absolute(item: Import, path: Path) -> str:
    """Resolve a relative import; inside packages it never leaves the folder."""
    folder = ".".join(path.parent.relative_to(ROOT).parts)
    return f"{folder}.{item.module}" if item.level else item.module


def room_of(module: str) -> str:
    """A top-level module of a package, or a folder with all that is in it."""
    return ".".join(module.split(".")[:2])


def test_the_files_are_found() -> None:
    names = {name_of(path) for path in FILES}
    assert {"layers/boxes.py", "data/annotations/coco.py", "train.py"} <= names
    assert any(name.startswith("scripts/") for name in names)


def test_imports_go_one_way() -> None:
    outside = {"scripts", "tests", *(script.stem for script in ROOT.glob("*.py"))}
    wrong = []
    for path in PACKAGE_FILES:
        package = path.relative_to(ROOT).parts[0]
        forbidden = {*PACKAGES[PACKAGES.index(package) + 1 :], *outside}
        wrong += [
            (name_of(path), item)
            for item in imports(path)
            if item.level == 0 and item.top in forbidden
        ]
    assert not wrong


def test_relative_inside_a_folder_and_absolute_across() -> None:
    """Across folders only `from x.y import z`, which the wheel's build can rewrite."""
    wrong = []
    for path in FILES:
        folder = ".".join(path.parent.relative_to(ROOT).parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                bad = any(alias.name.split(".")[0] in PACKAGES for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                module = node.module or ""
                same = folder.split(".")[0] in PACKAGES and module.rpartition(".")[0] == folder
                bad = module in ("layers", "data") or same
            elif isinstance(node, ast.Call):
                strings = [a.value for a in node.args[:1] if isinstance(a, ast.Constant)]
                by_name = ast.unparse(node.func).endswith(("import_module", "__import__"))
                bad = by_name and str(*strings).split(".")[0] in PACKAGES
            else:
                bad = isinstance(node, ast.ImportFrom) and (node.level > 1 or not folder)
            if bad:
                wrong.append((name_of(path), ast.unparse(node)))
    assert not wrong


def test_no_module_and_no_room_imports_in_a_circle() -> None:
    """Imports inside of functions count, too."""
    modules = {module_of(path) for path in PACKAGE_FILES}
    of_modules: dict[str, set[str]] = {}
    of_rooms: dict[str, set[str]] = {}
    for path in PACKAGE_FILES:
        module = module_of(path)
        targets = {absolute(item, path) for item in imports(path)} & modules - {module}
        of_modules[module] = targets
        # A package's own front, which collects public names, is no room below the others.
        others = {room_of(target) for target in targets} - {room_of(module)}
        if module not in PACKAGES:
            of_rooms.setdefault(room_of(module), set()).update(others)
    TopologicalSorter(of_modules).prepare()  # raises CycleError
    TopologicalSorter(of_rooms).prepare()


def test_layers_stand_on_torch_and_numpy_alone() -> None:
    wrong = [
        (name_of(path), item)
        for path in (ROOT / "layers").rglob("*.py")
        for item in imports(path)
        if item.level == 0 and item.top not in LAYERS_MAY_IMPORT
    ]
    assert not wrong


def test_sizes() -> None:
    """A file, a function, a folder is no longer than a reader's patience."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    wrong = []
    for path in FILES:
        text = path.read_text()
        if len(text.splitlines()) > MAX_FILE:
            wrong.append(name_of(path))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, kinds) and (node.end_lineno or 0) - node.lineno >= MAX_FUNCTION:
                wrong.append(f"{name_of(path)}: {node.name}")
    folders = {path.parent for path in PACKAGE_FILES}
    for folder in folders:
        if len([path for path in folder.glob("*.py") if path.stem != "__init__"]) > MAX_MODULES:
            wrong.append(name_of(folder))
    assert not wrong


def for_type_checkers(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports_alone(node: ast.stmt) -> bool:
    """Tell a `with` block of nothing but imports."""
    return isinstance(node, ast.With) and all(
        isinstance(inner, (ast.Import, ast.ImportFrom)) for inner in node.body
    )


def test_no_file_runs_or_changes_anything_when_imported() -> None:
    """At the top level stand definitions, not calls, loops or deletions; nothing is global."""
    functions = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    allowed = (ast.Import, ast.ImportFrom, *functions, ast.Assign, ast.AnnAssign)
    wrong = []
    for path in PACKAGE_FILES:
        tree = ast.parse(path.read_text())
        for node in tree.body:
            docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            targets = node.targets if isinstance(node, ast.Assign) else []
            named = all(isinstance(target, (ast.Name, ast.Tuple)) for target in targets)
            harmless = docstring or for_type_checkers(node) or imports_alone(node)
            if not (named and (harmless or isinstance(node, allowed))):
                wrong.append((name_of(path), node.lineno))
        nodes = ast.walk(tree)
        wrong += [(name_of(path), n.lineno) for n in nodes if isinstance(n, ast.Global)]
    assert not wrong


def test_the_public_names_and_nothing_else() -> None:
    """What type checkers read in yolact/__init__.py is what `__getattr__` gives."""
    tree = ast.parse((ROOT / "yolact" / "__init__.py").read_text())
    (block,) = filter(for_type_checkers, tree.body)
    imported = {
        alias.name: getattr(import_module(f"{'yolact.' * node.level}{node.module}"), alias.name)
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert yolact.__all__ == sorted(imported)
    assert {name: getattr(yolact, name) for name in yolact.__all__} == imported
    assert set(yolact.__all__) < set(dir(yolact))
    with pytest.raises(AttributeError, match="module 'yolact' has no attribute 'predictors'"):
        yolact.predictors  # noqa: B018


LAYERS = [f"layers.{path.stem}" for path in (ROOT / "layers").glob("*.py")]
PROBE = f"import sys, {', '.join(LAYERS)}"
PROBE += """
assert not {"data", "yolact", "cv2"} & set(sys.modules), "layers import more than torch"
import logging, os, random
import cv2, httpx2, numpy, pycocotools, torch, torchvision, tqdm

def state():
    return (
        dict(os.environ), random.getstate(), torch.get_rng_state().tolist(),
        torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype(),
        cv2.getNumThreads(), list(sys.path),
        list(logging.getLogger().handlers), torch.cuda.is_initialized(),
    )

before, others = state(), set(sys.modules)  # some torchvisions load av
import yolact
for name in set(yolact.__all__) - {"VideoWriter"}:  # who asks for it wants videos
    getattr(yolact, name)
for old, new in zip(before, state()):
    assert old == new, (old, new)
assert not torch.cuda.is_initialized()
assert not {"train", "eval", "scripts", "tests"} & set(sys.modules)
print(*set(sys.modules) - others)
"""
# What running a model on an image does not need.
NOT_LOADED = (
    *("av", "matplotlib", "nncf", "onnx", "openvino", "pycocotools.cocoeval", "tensorboard"),
    *("data.annotations.coco", "data.annotations.reader", "data.augment", "data.checks"),
    *("data.formats", "data.loader"),
    *("data.catalog", "data.shapes", "data.video"),
    *(
        "yolact.cli",
        "yolact.doctor",
        "yolact.drawing",
        "yolact.evaluation",
        "yolact.report",
        "yolact.training",
    ),
    *("fastapi", "yolact.engines.openvino", "yolact.serve", "yolact.tiles", "yolact.video"),
)


def test_importing_has_no_side_effect_and_loads_little(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-B", "-c", PROBE],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []
    loaded = result.stdout.split()
    assert {"yolact.predictor", "data.images"} < set(loaded)
    folders = tuple(f"{name}." for name in NOT_LOADED)
    assert [name for name in loaded if f"{name}.".startswith(folders)] == []

"""The wheel, built from a copy of the checkout and installed beside packages of other people."""

import ast
import os
import shutil
import site
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import matplotlib
import pytest

import yolact
from layers.native import load_kernels
from yolact.checkpoint import BUNDLED
from yolact.cli.main import COMMANDS, CONVERT_DATASET, SCRIPTS

ROOT = Path(__file__).resolve().parent.parent
NEEDED = (
    *("pyproject.toml", "setup.py", "README.md", "LICENSE", "train.py", "eval.py"),
    *("layers", "data", "yolact", "scripts"),
    f"weights/{BUNDLED}.pth",
)
PORTRAIT = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
HOSTILE = "raise SystemExit('somebody else is imported')\n"
PREFIX, INFO = "yolact/", f"yolact-{yolact.__version__}.dist-info/"


def run(*command: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program without a network; the checkout is on no path."""
    nowhere = {"HTTPS_PROXY": "http://127.0.0.1:9", "PIP_NO_INDEX": "1"}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **nowhere, **variables}
    environment.setdefault("PYTHONPATH", "")
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True
    )


def pip(*arguments: str | Path, cwd: Path, **variables: str) -> None:
    done = run(sys.executable, "-m", "pip", "-q", *arguments, cwd=cwd, **variables)
    assert done.returncode == 0, done.stdout + done.stderr


def copy_checkout(folder: Path) -> Path:
    for name in NEEDED:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            built = shutil.ignore_patterns("__pycache__", "*.so", "*.c")
            shutil.copytree(source, target, ignore=built)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    return folder


def build(source: Path, cwd: Path, **variables: str) -> Path:
    options = ("--no-build-isolation", "--no-deps", "--wheel-dir", cwd / "dist")
    pip("wheel", *options, source, cwd=cwd, **variables)
    (wheel,) = (cwd / "dist").glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    source = copy_checkout(folder / "yolact")
    built = f"lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
    for name in (built, "lib"):  # left by an earlier build
        stale = source / "build" / name / "data"
        stale.mkdir(parents=True)
        (stale / "__init__.py").touch()
    return build(source, folder, CFLAGS="-O0")  # fast to compile


class Environment:
    """A virtual environment that sees the libraries of this one, and not the checkout."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        self.folder = folder
        self.python = folder / "bin" / "python"
        (self.packages,) = folder.glob("lib/python*/site-packages")
        libraries = [path for path in site.getsitepackages() if Path(path).is_dir()]
        (self.packages / "libraries.pth").write_text("\n".join(libraries))
        for name in ("data", "layers", "weights"):
            (self.packages / name).mkdir()
            (self.packages / name / "__init__.py").write_text(HOSTILE)

    def pip(self, *arguments: str | Path) -> None:
        pip("--python", self.python, *arguments, cwd=self.folder)

    def files(self) -> set[tuple[str, bytes]]:
        """Everything in it but compiled modules."""
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return {(str(path), path.read_bytes()) for path in found if path.suffix != ".pyc"}


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("environment"))
    environment.pip("install", "--no-deps", wheel)
    return environment


@pytest.fixture
def working(tmp_path: Path) -> Path:
    """A folder with a photograph, and with packages that nobody may import."""
    for name in ("data", "layers"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(HOSTILE)
    shutil.copyfile(PORTRAIT, tmp_path / "photo.jpg")
    return tmp_path


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def modules_of_the_checkout() -> set[str]:
    packages = [f for name in ("layers", "data", "yolact") for f in (ROOT / name).rglob("*.py")]
    modules = {str(file.relative_to(ROOT)).removeprefix(PREFIX) for file in packages}
    return {PREFIX + module for module in modules} | {
        f"yolact/scripts/{script}.py" for script in (*SCRIPTS.values(), CONVERT_DATASET)
    }


def test_the_wheel_holds_one_package(wheel: Path) -> None:
    names = names_in(wheel)
    assert {name for name in names if not name.startswith((PREFIX, INFO))} == set()
    assert {name for name in names if name.endswith(".py")} == modules_of_the_checkout()
    typed = {f"{PREFIX}{folder}py.typed" for folder in ("", "layers/", "data/")}
    assert typed | {f"yolact/weights/{BUNDLED}.pth"} < names
    for folder in ("style", "report/assets", "serve/page"):
        files = (ROOT / "yolact" / folder).rglob("*.*")
        assert {str(path.relative_to(ROOT)) for path in files} < names
    assert [name for name in names if name.endswith(".pth")] == [f"yolact/weights/{BUNDLED}.pth"]
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(f"{INFO}top_level.txt").split() == [b"yolact"]
        entry_points = archive.read(f"{INFO}entry_points.txt").decode()
    assert "yolact = yolact.cli.main:main" in entry_points


def test_no_import_of_the_checkout_is_left(wheel: Path) -> None:
    wrong = []
    with zipfile.ZipFile(wheel) as archive:
        for name in filter(lambda name: name.endswith(".py"), archive.namelist()):
            for node in ast.walk(ast.parse(archive.read(name))):
                modules = []
                if isinstance(node, ast.ImportFrom) and node.level == 0:
                    modules = [node.module or ""]
                elif isinstance(node, ast.Import):
                    modules = [alias.name for alias in node.names]
                tops = {module.split(".")[0] for module in modules}
                if tops & {"layers", "data", "scripts", "train", "eval"}:
                    wrong.append((name, ast.unparse(node)))
    assert not wrong


def test_the_command_answers_without_torch(installed: Environment, working: Path) -> None:
    command, variables = installed.folder / "bin" / "yolact", {"PYTHONPATH": str(working)}
    done = run(command, "--version", cwd=working, **variables)
    assert (done.returncode, done.stdout) == (0, f"yolact {yolact.__version__}\n"), done.stderr
    probe = (
        "import sys, yolact; from yolact.cli.main import main; main(['--help'])\n"
        "print(yolact.__file__, 'torch' in sys.modules)"
    )
    done = run(installed.python, "-c", probe, cwd=working, **variables)
    *usage, last = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert usage[0] == "usage: yolact COMMAND ..."
    assert last == f"{installed.packages / 'yolact' / '__init__.py'} False"


@pytest.mark.skipif(load_kernels() is None, reason="nothing compiles here")
def test_the_kernels_moved_along(installed: Environment, working: Path) -> None:
    probe = "from yolact.layers import kernels as k; print(k.__name__, k.fast_nms, k.__file__)"
    done = run(installed.python, "-c", probe, cwd=working, PYTHONPATH=str(working))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("yolact.layers.kernels <cyfunction fast_nms")
    assert str(installed.packages / "yolact" / "layers") in done.stdout


@pytest.mark.slow
def test_predicts_in_a_folder_with_nothing_but_a_photograph(
    installed: Environment, working: Path
) -> None:
    empty = working / "empty"
    empty.mkdir()
    (working / "photo.jpg").rename(empty / "photo.jpg")
    command = installed.folder / "bin" / "yolact"
    variables = {"PYTHONPATH": str(working), "DISPLAY": "", "WAYLAND_DISPLAY": ""}
    done = run(command, "predict", "photo.jpg", cwd=empty, **variables)
    assert done.returncode == 0, done.stderr
    person, *_, written = done.stdout.splitlines()
    assert person.startswith("person\t") and written == "results/photo.png"
    assert str(installed.packages / "yolact" / "weights" / f"{BUNDLED}.pth") in done.stderr
    assert load_kernels() is None or "not compiled" not in done.stderr
    found = {str(path.relative_to(empty)) for path in empty.rglob("*")}
    assert found == {"photo.jpg", "results", "results/photo.png"}


OF_NAMES = """
from yolact import Predictor
print(Predictor.from_checkpoint("yolact_lite2_person", engine="eager")("photo.jpg").names())
for name in ("yolact_resnet18_shapes", "yolact_base"):
    try:
        Predictor.from_checkpoint(name)
    except OSError as error:
        print(error)
"""


@pytest.mark.slow
def test_models_by_name(installed: Environment, working: Path) -> None:
    """The bundled one is there; of the others it is told why not, and nothing is left behind."""
    before = set(working.rglob("*"))
    done = run(installed.python, "-c", OF_NAMES, cwd=working, PYTHONPATH=str(working))
    assert done.returncode == 0, done.stderr
    found, absent, failed = done.stdout.splitlines()
    assert found.startswith("['person'")
    assert "yolact_resnet18_shapes: in the repository, not in the wheel; here are" in absent
    assert "cannot download https://" in failed
    assert set(working.rglob("*")) == before


@pytest.mark.slow
def test_every_subcommand_is_there(installed: Environment, working: Path) -> None:
    probe = (
        "from yolact.cli.main import COMMANDS, main\n"
        "for command in COMMANDS:\n"
        "    try: main([command, '--help'])\n"
        "    except SystemExit as end: assert end.code in (0, None), end\n"
    )
    done = run(installed.python, "-c", probe, cwd=working, PYTHONPATH=str(working))
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert f"usage: yolact {command} " in done.stdout
    assert "python " not in done.stdout.replace("torchrun", "")


def others_wheel(folder: Path) -> Path:
    """Write a wheel of somebody else, with packages called like the folders of the checkout."""
    info, path = "others-1.0.dist-info", folder / "others-1.0-py3-none-any.whl"
    files = {f"{name}/__init__.py": HOSTILE for name in ("data", "layers", "scripts", "tests")}
    files[f"{info}/METADATA"] = "Metadata-Version: 2.1\nName: others\nVersion: 1.0\n"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def test_nothing_of_others_is_overwritten_or_deleted(wheel: Path, tmp_path: Path) -> None:
    """Neither what lies there, nor what was installed."""
    environment = Environment(tmp_path / "environment")
    shutil.rmtree(environment.packages / "layers")
    environment.pip("install", "--no-deps", "--no-compile", others_wheel(tmp_path))
    before = environment.files()
    assert any(path.endswith("layers/__init__.py") for path, _ in before)
    environment.pip("install", "--no-deps", "--no-compile", wheel)
    assert before < environment.files()
    environment.pip("uninstall", "--yes", "yolact")
    assert environment.files() == before


@pytest.mark.slow
def test_built_from_its_source_archive_without_a_compiler(wheel: Path, tmp_path: Path) -> None:
    source = copy_checkout(tmp_path / "yolact")
    backend = "from setuptools import build_meta; build_meta.build_sdist('..')"
    assert run(sys.executable, "-c", backend, cwd=source).returncode == 0
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as content:
        sources = {name.partition("/")[2] for name in content.getnames()}
    kernels = {f"layers/{name}" for name in ("kernels.pyx", "depthwise.pxi", "mask_pixels.pxi")}
    assert kernels < sources  # for those with a compiler
    names = names_in(build(archive, tmp_path, CC="false"))
    compiled = {name for name in names_in(wheel) if name.endswith((".so", ".pyd"))}
    assert len(compiled) == 1
    assert names == names_in(wheel) - compiled

"""The wheel holds the package yolact alone, so `layers` and `data` move into it as it is built.

pyproject.toml says where each folder goes (`package-dir`); here the built copies get the imports
that fit. An editable install puts the checkout itself on the path, where both stay what they are.
"""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

SCRIPTS = (
    "train.py",
    "eval.py",
    "scripts/export.py",
    "scripts/check_dataset.py",
    "scripts/anchors.py",
    "scripts/convert_checkpoint.py",
    "scripts/convert_dataset.py",
)
"""What the command `yolact` runs."""

IMPORT = re.compile(r"^(\s*from )(layers|data)\.", re.MULTILINE)


class BuildPy(build_py):
    """Copies the modules, with `from layers.x import` made `from yolact.layers.x import`."""

    def run(self) -> None:
        """Start from an empty folder: a wheel takes all that it finds there."""
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """List (package, module, file)."""
        if package == "yolact.scripts":
            return [(package, Path(file).stem, file) for file in SCRIPTS]
        return super().find_package_modules(package, package_dir)

    def build_module(self, module: str, module_file: str, package: str) -> tuple[str, bool]:
        """Copy one module; return where to, and whether that was needed."""
        built, copied = super().build_module(module, module_file, package)
        text = Path(built).read_text(encoding="utf-8")
        Path(built).write_text(IMPORT.sub(r"\1yolact.\2.", text), encoding="utf-8")
        return built, copied


setup(
    packages=[
        "yolact.scripts",
        "yolact.weights",
        *find_packages(include=["yolact*"]),
        *(f"yolact.{package}" for package in find_packages(include=["layers*", "data*"])),
    ],
    cmdclass={"build_py": BuildPy},
)

"""Odd locales, clocks and homes, and a loader that is killed: nothing wrong, nothing lost."""

from __future__ import annotations

import json
import locale
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import torch
from support.tiny import make_dataset, train_flags

import train
from layers.structures import Predictions
from yolact.checkpoint import read_checkpoint
from yolact.cli.common import run_command
from yolact.engines.exported import write_openvino
from yolact.engines.openvino import OpenVinoNetwork, convert, convert_cached, read_network
from yolact.runs.names import find_checkpoints
from yolact.training.log import read_log

ROOT = Path(__file__).resolve().parents[1]
PORTRAIT = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
YOLACT = [sys.executable, "-c", "import sys; from yolact.cli.main import main; sys.exit(main())"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("scenes"))


def make_locale(name: str, folder: Path) -> None:
    """Make a locale, which few machines have, for processes whose LOCPATH is the folder."""
    command = ["localedef", "-i", name, "-f", "UTF-8", folder / f"{name}.UTF-8"]
    if not shutil.which("localedef") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip(f"no locale {name}, nor a way to make it")


@pytest.fixture(scope="module")
def german(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A locale with decimal commas."""
    folder = tmp_path_factory.mktemp("locales")
    make_locale("de_DE", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCPATH", str(folder))
        yield "de_DE.UTF-8"


@pytest.fixture(params=[".", ","])
def point(request: pytest.FixtureRequest) -> Iterator[str]:
    """A program that has set its user's locale, as those with windows do."""
    before = locale.setlocale(locale.LC_ALL)
    if request.param == ",":
        locale.setlocale(locale.LC_ALL, request.getfixturevalue("german"))
    yield request.param
    locale.setlocale(locale.LC_ALL, before)


class Normalised(torch.nn.Module):
    """As a network; its result depends on a number that files hold as a text."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3, eps=0.5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (*(self.norm(x) + number for number in range(4)), torch.nn.functional.elu(x, 0.25))


def through_cache(model: Any, network: torch.nn.Module, folder: Path) -> OpenVinoNetwork:
    convert_cached(network, 8)
    return OpenVinoNetwork(convert_cached(network, 8), "float32")


def through_pickle(model: Any, network: torch.nn.Module, folder: Path) -> OpenVinoNetwork:
    pickled: OpenVinoNetwork = pickle.loads(pickle.dumps(OpenVinoNetwork(model, "float32")))
    return pickled


def through_file(model: Any, network: torch.nn.Module, folder: Path) -> OpenVinoNetwork:
    write_openvino(model, "{}", folder / "model.xml")
    return OpenVinoNetwork(read_network(folder / "model.xml"), "float32")


@pytest.mark.parametrize("way", [through_cache, through_pickle, through_file])
def test_files_hold_numbers_with_points(
    way: Callable[[Any, torch.nn.Module, Path], OpenVinoNetwork],
    point: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert locale.localeconv()["decimal_point"] == point
    network, x = Normalised().eval(), torch.linspace(-2, 2, 192).reshape(1, 3, 8, 8)
    found: Predictions = way(convert(network, 8), network, tmp_path)(x)
    with torch.no_grad():
        for result, expected in zip(found, network(x), strict=False):
            torch.testing.assert_close(result, expected)
    assert locale.localeconv()["decimal_point"] == point


@pytest.mark.slow
@pytest.mark.parametrize(
    "surroundings",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},  # names in ASCII
        {"LC_ALL": "tr_TR.UTF-8"},
        {"HOME": "/dev/null"},  # nothing can be written there, be it by root
        {"HOME": "/nowhere", "HF_HOME": "/dev/null", "TORCH_HOME": "/dev/null"},
        {"HOME": "", "MPLCONFIGDIR": "/dev/null"},
        {},
    ],
)
def test_commands_work_in_odd_surroundings(tmp_path: Path, surroundings: dict[str, str]) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(PORTRAIT, tmp_path / "in" / "Möwe ı.jpg")
    hidden = ("HOME", "HF_HOME", "TORCH_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
    environment = {name: text for name, text in os.environ.items() if name not in hidden}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **surroundings}
    if "tr" in surroundings.get("LC_ALL", ""):
        make_locale("tr_TR", tmp_path)
        environment["LOCPATH"] = str(tmp_path)
    done = subprocess.run(
        [*YOLACT, "predict", "in:out", "--save_json", "--save_csv"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    files = {path.name for path in (tmp_path / "out").rglob("[!.]*.*")}
    assert files == {"Möwe ı.png", "Möwe ı.json", "detections.csv"}
    found = json.loads((tmp_path / "out" / "json" / "Möwe ı.json").read_text(encoding="utf-8"))
    assert [each["name"] for each in found["objects"]] == ["person"]


@pytest.mark.slow
def test_a_clock_that_is_wrong_and_runs_backwards(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 2242 back to before 1970, a century with each look."""
    now = iter(range(2**33, -(2**40), -3_155_760_000))
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: float(next(now)))
        for iterations, more in ((1, []), (2, ["--resume=latest"]), (3, ["--resume=latest"])):
            flags = train_flags(dataset, tmp_path, iterations, *more)
            assert run_command(train.main, flags) == 0
            for path in tmp_path.glob("*.pth"):
                os.utime(path, ns=(stamp := 10**9 * next(now), stamp))
    last = find_checkpoints(tmp_path, None)[-1]
    assert read_checkpoint(last).training["iteration"] == 3
    sessions = [record["session"] for record in read_log(tmp_path / "yolact_resnet18.log")]
    assert sessions == sorted(sessions)
    assert set(sessions) == {0, 1, 2}


@pytest.mark.slow
def test_a_loader_that_is_killed(
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As the system does where memory runs out."""
    step, taken = train.train_step, []

    def killing(*arguments: Any) -> Any:
        taken.append(1)
        if len(taken) == 2:
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGKILL)
        return step(*arguments)

    monkeypatch.setattr(train, "train_step", killing)
    flags = train_flags(dataset, tmp_path, 40, "--num_workers=1")
    assert run_command(train.main, flags) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert error.count("error: DataLoader worker (pid") == 1
    assert "fewer --num_workers, and go on by --resume=interrupt" in error
    (saved,) = tmp_path.glob("*_interrupt.pth")
    assert read_checkpoint(saved).training["iteration"] >= 1
    monkeypatch.setattr(train, "train_step", step)
    flags = train_flags(dataset, tmp_path, 3, "--resume=interrupt")
    assert run_command(train.main, flags) == 0

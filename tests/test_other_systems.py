"""What Windows, macOS and lean builds of PyTorch do otherwise, by doubles on any system."""

from __future__ import annotations

import errno
import mimetypes
import ntpath
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from support.evaluate import evaluate
from support.odd_masks import odd_detections
from support.tiny import make_dataset, train_flags
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import train
from data import files
from data.annotations import paths
from data.annotations.locate import ImageFinder
from data.annotations.paths import relative_name, shared_folder
from data.formats.cvat import read_cvat
from data.formats.yolo import read_yolo
from data.video import camera
from data.video.writer import VideoWriter
from yolact.cli import process
from yolact.cli.main import main as run
from yolact.cli.train_flags import parse_arguments
from yolact.engines import pytorch
from yolact.engines.names import Engine
from yolact.engines.pytorch import inference_copy, memory_format_of
from yolact.errors import OptionError
from yolact.files import write_text
from yolact.training import setup
from yolact.training.optim import gradient_scaler
from yolact.training.setup import Session, set_up

ROOT = Path(__file__).resolve().parents[1]
MPS = torch.device("mps")
WINDOWS = SimpleNamespace(platform="win32")
MAC = SimpleNamespace(platform="darwin")
HELD = PermissionError(errno.EACCES, "The process cannot access the file")


@pytest.fixture
def session(tmp_path: Path) -> Session:
    flags = train_flags(make_dataset(tmp_path / "scenes"), tmp_path / "run", 2, "--no_log")
    return set_up(*parse_arguments(None, flags))


# --- files of Windows ----------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux which files are open")
@pytest.mark.usefixtures("in_evaluation_place")
@pytest.mark.parametrize("flags", [(), ("--image=scenes/val/000001.jpg:out.png", "--save_csv")])
def test_no_file_is_deleted_that_is_open(
    flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unlink, replace = Path.unlink, Path.replace

    def refuse(path: Path) -> None:
        opened = Path("/proc/self/fd").iterdir()
        if path.absolute() in {each.readlink() for each in opened if each.is_symlink()}:
            raise HELD

    def unlink_closed(path: Path, missing_ok: bool = False) -> None:
        refuse(path)
        unlink(path, missing_ok)

    def replace_closed(path: Path, target: Path) -> Path:
        refuse(path)
        refuse(target)
        return replace(path, target)

    for module in (files, sys.modules["yolact.files"]):
        monkeypatch.setattr(module, "sys", WINDOWS)
    monkeypatch.setattr(Path, "unlink", unlink_closed)
    monkeypatch.setattr(Path, "replace", replace_closed)
    assert evaluate(*flags) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("platform", "refusals", "is_written"),
    [
        (WINDOWS, 0, True),
        (WINDOWS, 3, True),
        (WINDOWS, 99, False),
        (MAC, 1, False),
    ],
)
@pytest.mark.parametrize("kind", ["text", "video"])
def test_a_file_that_a_scanner_holds_is_waited_for(
    kind: str,
    platform: SimpleNamespace,
    refusals: int,
    is_written: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left, waits, replace = [HELD] * refusals, list[float](), Path.replace

    def replace_later(path: Path, target: Path) -> Path:
        if left:
            raise left.pop()
        return replace(path, target)

    monkeypatch.setattr(files, "sys", platform)
    monkeypatch.setattr(files, "time", SimpleNamespace(sleep=waits.append))
    monkeypatch.setattr(Path, "replace", replace_later)
    target = tmp_path / f"{kind}.mp4"
    try:
        if kind == "text":
            write_text(target, "text")
        else:
            with VideoWriter(target, 5, (16, 16)) as writer:
                writer.write(np.zeros((16, 16, 3), np.uint8))
    except OSError:
        assert not is_written
    assert target.exists() is is_written
    assert list(tmp_path.iterdir()) == [target] * is_written  # no half file
    assert sum(waits) < 2


# --- drives of Windows ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "folder", "name"),
    [
        (r"C:\photos\x.jpg", r"C:\out", "../photos/x.jpg"),
        (r"C:\photos\x.jpg", r"D:\out", "C:/photos/x.jpg"),
        (r"\\nas\photos\x.jpg", r"C:\out", "//nas/photos/x.jpg"),
    ],
)
def test_names_of_images_on_other_drives(
    path: str, folder: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Absolute(PureWindowsPath):
        def absolute(self) -> PureWindowsPath:
            return self

    monkeypatch.setattr(paths, "os", SimpleNamespace(path=ntpath))
    monkeypatch.setattr(paths, "Path", Absolute)
    assert relative_name(path, folder) == name


@pytest.mark.parametrize(
    ("folders", "shared"),
    [
        ((r"C:\a\b", r"c:\a\d"), r"C:\a"),
        ((r"C:\a", r"D:\a", r"E:\a"), "images on C: and D: share no folder: put all on one drive"),
        ((r"\\nas\photos\a", r"C:\a"), r"images on \\nas\photos and C: share no folder"),
    ],
)
def test_drives_share_no_folder(
    folders: tuple[str, ...], shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "os", SimpleNamespace(path=ntpath))
    monkeypatch.setattr(paths, "Path", PureWindowsPath)
    places: Any = [PureWindowsPath(folder) for folder in folders]
    try:
        assert shared_folder(places) == PureWindowsPath(shared)
    except ValueError as error:
        assert shared in str(error)


def test_no_reader_or_writer_stumbles_over_another_drive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_drives(path: object, start: object) -> str:
        raise ValueError("path is on mount 'C:', start on mount 'D:'")

    make_dataset(tmp_path / "scenes", 1, 1)
    image = next((tmp_path / "scenes" / "train").iterdir())
    (image.with_suffix(".txt")).write_text("0 0.5 0.5 0.2 0.2\n")
    names = tmp_path / "data.yaml"
    names.write_text(f"train: {image.parent}\nval: {image.parent}\nnames: [circle]\n")
    cvat = tmp_path / "cvat.xml"
    found = odd_detections(source=str(image))
    cvat.write_text(found.to_cvat())
    finder = ImageFinder(tmp_path / "scenes" / "val", names)
    monkeypatch.setattr(os.path, "relpath", of_drives)
    assert found.to_labelme(tmp_path / "found.json")["imagePath"] == image.as_posix()
    assert finder.relative(image) == image.as_posix()
    read = [read_yolo(image.parent, names), read_cvat(image.parent, cvat)]
    for result in read:
        (listed,) = cast("Any", result.content["images"])
        assert listed["file_name"] == image.as_posix()


# --- other things of Windows and macOS -----------------------------------------------------------


@pytest.fixture
def odd_registry() -> Iterator[None]:
    """As some programs leave it on Windows."""
    for suffix in (".js", ".css", ".svg"):
        mimetypes.add_type("text/plain", suffix)
    yield
    mimetypes.init()


@pytest.mark.usefixtures("odd_registry")
@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/page/main.js", "text/javascript"),
        ("/page/icons.svg", "image/svg+xml"),
        ("/style/common.css", "text/css"),
    ],
)
def test_a_page_is_sent_by_its_types(path: str, kind: str) -> None:
    pytest.importorskip("fastapi", reason="needs the extra 'serve'")
    pytest.importorskip("httpx2", reason="comes with the extra 'dev'")
    from support.tiny_server import client_of, tiny_predictor

    response = client_of(tiny_predictor()).get(path)
    assert response.headers["content-type"].split(";")[0] == kind


@pytest.mark.parametrize(
    ("platform", "error", "is_closed"),
    [
        (MAC, BrokenPipeError(errno.EPIPE, "Broken pipe"), True),
        (WINDOWS, OSError(errno.EINVAL, "Invalid argument"), True),
        (WINDOWS, OSError(errno.EINVAL, "Invalid argument", "a?b.jpg"), False),
        (WINDOWS, OSError(errno.ENOSPC, "No space left on device"), False),
        (MAC, OSError(errno.EINVAL, "Invalid argument"), False),
    ],
)
@pytest.mark.parametrize("command", ["--version", "check"])
def test_a_pipe_that_is_closed(
    platform: SimpleNamespace,
    error: OSError,
    is_closed: bool,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def write(text: str) -> int:
        raise error

    null = Path(os.devnull)
    with null.open("w") as nothing, null.open("w") as errors:
        monkeypatch.setattr(process, "sys", platform)
        output = SimpleNamespace(write=write, flush=lambda: None, fileno=nothing.fileno)
        monkeypatch.setattr(sys, "stdout", output)
        monkeypatch.setattr(sys, "stderr", errors)
        monkeypatch.setattr("yolact.cli.main.load_script", lambda name: lambda argv: print("x"))
        if command == "--version" and not is_closed:
            with pytest.raises(OSError, match=error.strerror):
                run([command])
        else:
            assert run([command]) == (0 if is_closed else 1)


def test_why_there_may_be_no_camera_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "sys", MAC)
    monkeypatch.setattr(camera, "_camera_indices", list)
    monkeypatch.setattr(camera.cv2, "VideoCapture", lambda _: NoCamera())
    with pytest.raises(ValueError, match=r"no camera 0; is it plugged in, and may this program"):
        camera.CameraSource(0, "0")


class NoCamera:
    def set(self, *_: object) -> None: ...

    def release(self) -> None: ...

    def read(self) -> tuple[bool, None]:
        return False, None


# --- Apple's GPUs --------------------------------------------------------------------------------


class Without64Bits(TorchDispatchMode):
    """Refuses floats of 64 bits, as an Apple GPU does."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(isinstance(x, Tensor) and x.dtype == torch.float64 for x in tree_leaves(result)):
            raise TypeError(f"{func}: no float64 on MPS")
        return result


def test_training_computes_nothing_in_64_bits(session: Session) -> None:
    batch = next(iter(session.loader()))
    with Without64Bits():
        train.train_step(session, batch)


def test_an_apple_gpu_is_never_in_channels_last(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives wrong gradients with them."""
    for module in (setup, pytorch):
        monkeypatch.setattr(module, "memory_format_of", lambda _: memory_format_of(MPS))
    flags = train_flags(tmp_path / "scenes", tmp_path / "other", 2, "--no_log")
    other = set_up(*parse_arguments(None, flags))
    seen = []

    def see(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        seen.extend(x.is_contiguous() for x in (*inputs, output) if isinstance(x, Tensor))

    for module in other.learner.model.network.modules():
        module.register_forward_hook(see)
    train.train_step(other, next(iter(other.loader())))
    assert seen
    assert all(seen)
    weights = inference_copy(session.learner.model.network, "float32").parameters()
    assert all(weight.is_contiguous() for weight in weights)
    x = torch.zeros(1, 3, 8, 8).to(memory_format=torch.channels_last)
    engine = Engine("eager", torch.device("cpu"), "float32")
    assert pytorch._run_frozen(lambda x: x, engine, x).is_contiguous()


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("mps", torch.contiguous_format),
        ("cpu", torch.channels_last),
        ("cuda", torch.channels_last),
    ],
)
def test_layouts_of_devices(device: str, expected: torch.memory_format) -> None:
    assert memory_format_of(torch.device(device)) is expected


def test_gradients_of_float16_are_not_scaled_on_an_apple_gpu() -> None:
    with pytest.raises(OptionError, match="not to train on MPS; use bfloat16 or float32"):
        gradient_scaler(MPS, "float16")
    assert not gradient_scaler(MPS, "bfloat16").is_enabled()


# --- a PyTorch without distributed ---------------------------------------------------------------

LEAN = """
import importlib.abc, sys

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torch.distributed":
            inner = sys.modules["torch._C"]
            for each in ("_c10d_init", "_rpc_init", "_dist_autograd_init", "_faulty_agent_init"):
                if hasattr(inner, each):
                    delattr(inner, each)
        if name.startswith("torch._C._distributed"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hidden())
import torch
assert not torch.distributed.is_available()
import train
from yolact.cli.common import run_command
sys.exit(run_command(train.main, sys.argv[1:]))
"""


def test_training_without_torch_distributed(tmp_path: Path) -> None:
    flags = train_flags(make_dataset(tmp_path / "scenes"), tmp_path, 1)
    command = [sys.executable, "-c", LEAN, *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("*.pth"))) == 1

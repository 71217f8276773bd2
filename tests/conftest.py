from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.browser import open_browser, serving

from layers import native

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Read by the hub's client when it is imported. No test asks the real one, or sees the user's cache.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = str(Path(tempfile.gettempdir()) / "no hub of these tests")

BESIDE = Path(__file__).resolve().parents[2] / "shared"


def existing(variable: str, default: Path) -> Path:
    path = Path(os.environ.get(variable, default))
    if not path.is_dir():
        pytest.skip(f"no folder {path}: set {variable}")
    return path


@pytest.fixture(scope="session")
def data_root() -> Path:
    """A folder with real datasets, such as coco_small."""
    return existing("YOLACT_DATA", BESIDE / "data")


@pytest.fixture(scope="session")
def cases_root() -> Path:
    """A folder with exports of annotation tools that are hard to read."""
    return existing("YOLACT_CASES", BESIDE / "cases")


@pytest.fixture(scope="session")
def golden_root() -> Path:
    """A folder with reference outputs of the original network."""
    return existing("YOLACT_GOLDEN", BESIDE / "golden")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; the modules that ask for it call `need_browser` first."""
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def tiny_address() -> Iterator[str]:
    """The address of a server of the tiny model."""
    from support.tiny_server import tiny_predictor

    from yolact.serve.app import make_app

    with serving(make_app(tiny_predictor(), "tiny")) as opened:
        yield opened


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep converted networks of the tests out of the user's cache."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def usual_signals() -> Iterator[None]:
    """As in a terminal, whatever the tests are run by, such as nohup or a job in the background."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    if hasattr(signal, "SIGHUP"):
        usual[signal.SIGHUP] = signal.SIG_DFL
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def evaluation_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset "scenes", a checkpoint "tiny.pth" and a video "clip.mp4"."""
    from support.evaluate import make_place

    return make_place(tmp_path_factory.mktemp("place"))


@pytest.fixture
def in_evaluation_place(evaluation_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(evaluation_place)
    shutil.rmtree("results", ignore_errors=True)


@pytest.fixture
def no_thread_stays() -> Iterator[None]:
    """Fail where a test leaves a thread behind."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.fixture(params=["kernel", "fallback"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with the compiled kernels and without them."""
    if request.param == "fallback":
        monkeypatch.setattr(native, "load_kernels", lambda: None)
    elif native.load_kernels() is None:
        pytest.skip("layers.kernels is not compiled here")
    return str(request.param)

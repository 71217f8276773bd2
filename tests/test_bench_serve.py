"""The script that loads the served page: right answers are told from swapped ones."""

from __future__ import annotations

import re
import runpy
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import SETTINGS

from data.shapes.scenes import ShapeScenes
from yolact import Predictor, build_model, get_config

pytest.importorskip("fastapi", reason="needs the extra 'serve'")

from yolact.serve.app import make_app  # noqa: E402
from yolact.serve.limits import Limits  # noqa: E402
from yolact.serve.run import listen, make_server  # noqa: E402

BENCH = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "bench_serve.py"))
PICTURES = [ShapeScenes(3, 64).sample(index).image for index in range(3)]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    torch.manual_seed(0)
    config = get_config("yolact_resnet18").override(*SETTINGS, "detect.score_threshold=0.0")
    return Predictor(build_model(config.with_classes(("cup", "dog", "person"))))


@pytest.fixture
def port(predictor: Predictor, request: Any) -> Iterator[int]:
    app = make_app(predictor, "tiny", Limits(rate=1e6, waiting=getattr(request, "param", 8)))
    with listen("127.0.0.1", 0) as listener:
        server = make_server(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


@pytest.mark.parametrize("clients", [1, 4])
def test_every_answer_belongs_to_its_request(predictor: Predictor, port: int, clients: int) -> None:
    expected = BENCH["direct"](predictor, PICTURES)
    seen, seconds = BENCH["load"](port, PICTURES, expected, clients, 8)
    assert (len(seen.milliseconds), seen.turned_away, seen.wrong) == (8, 0, 0)
    pattern = rf"\| {clients} \| [\d.]+ \| \d+ \| \d+ \| \d+ \| 0 \| 0 \|"
    assert re.fullmatch(pattern, BENCH["row"](clients, seen, seconds))


def test_swapped_answers_are_counted(predictor: Predictor, port: int) -> None:
    first, second, third = BENCH["direct"](predictor, PICTURES)
    seen, _ = BENCH["load"](port, PICTURES, [second, first, third], 2, 6)
    assert seen.wrong == 4


@pytest.mark.parametrize("port", [0], indirect=True)
def test_who_is_turned_away_tries_again(
    predictor: Predictor, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: threading.Event().wait(0.01))
    expected = BENCH["direct"](predictor, PICTURES)
    seen, _ = BENCH["load"](port, PICTURES, expected, 4, 12)
    assert (len(seen.milliseconds), seen.wrong) == (12, 0)
    assert seen.turned_away > 0


def test_pictures_that_cannot_be_told_apart_are_refused(predictor: Predictor) -> None:
    with pytest.raises(ValueError, match="two pictures have the same objects"):
        BENCH["direct"](predictor, PICTURES[:1] * 2)


@pytest.mark.slow
def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    BENCH["main"](["--images=4", "--image_size=256", "--requests=8", "--clients=1,3"])
    rows = capsys.readouterr().out.splitlines()[-2:]
    assert [row.split(" | ")[0] for row in rows] == ["| 1", "| 3"]
    assert all(row.endswith("| 0 |") for row in rows)


def test_clients_that_are_no_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert BENCH["run_command"](BENCH["main"], ["--clients=0,1"]) == 2
    assert "--clients=0,1: expected numbers from 1, as in 1,4,8" in capsys.readouterr().err

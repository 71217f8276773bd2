"""Images and videos over a cluster of Ray on this machine, against one process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from support.numbered_clip import write_clip

from data.shapes.scenes import ShapeScenes, export_coco
from scripts import segment_many as module
from scripts.segment_many import TRIES, TRYING, Worker, main, over_ray, videos_and_outputs
from yolact.cli.common import run_command
from yolact.results.folder import Note, ResultFolder

ROOT = Path(__file__).resolve().parents[1]
FLAGS = ["--trained_model=yolact_resnet18_shapes", "--device=cpu", "--engine=eager"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


class Fails(Worker):
    """Fails as its images say."""

    def segment(self, source: str, output: Path) -> Note:
        if source == "full":
            raise OSError(28, "No space left on device")
        if source == "broken":
            raise ValueError("no image")
        return ResultFolder(output.parent, ()).finished(source, output.stem, [])


def test_rows_of_a_worker(tmp_path: Path) -> None:
    worker = Fails(tmp_path)
    assert worker({"source": [], "output": []}) == {"note": [], "error": [], "stop": []}
    sources = ["good", "broken", "full"]
    columns = worker({"source": sources, "output": [str(tmp_path / "x.png")] * 3})
    assert json.loads(columns["note"][0])["source"] == "good"
    assert columns["error"][:2] == ["", "broken: no image"]
    assert columns["stop"] == ["", "", "yes"]
    assert list((tmp_path / TRYING).iterdir()) == []


def test_what_kills_its_workers_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A death leaves the mark of the image; another image is not held responsible."""
    worker, pair = Fails(tmp_path), ("good", str(tmp_path / "x.png"))
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok: None)
    for _ in range(TRIES):
        assert "note" in worker.row(pair)
    monkeypatch.undo()
    assert worker.row(pair)["error"] == f"good: its worker died {TRIES} times"
    assert "note" in worker.row(("other", pair[1]))
    assert "note" in worker.row(pair)


def test_the_rest_is_noted_and_the_failures_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def here(
        args: Namespace, pairs: list[tuple[str, str]], work: Callable[[], Worker], block: int
    ) -> list[dict[str, str]]:
        asked.append([source for source, _ in pairs])
        columns = work()({"source": [s for s, _ in pairs], "output": [o for _, o in pairs]})
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    asked: list[list[str]] = []
    monkeypatch.setattr(module, "over_ray", here)

    def run(*sources: str) -> None:
        files = ResultFolder(tmp_path, (), settings={}, resume=True)
        pairs = [(source, str(tmp_path / "x.png")) for source in sources]
        module.segment_all(Namespace(), files, pairs, lambda: Fails(tmp_path), 2)

    run()
    with pytest.raises(ValueError, match="1 of 3 failed; --resume tries these again"):
        run("good", "broken", "fine")
    assert "passed over: broken: no image" in caplog.text
    with pytest.raises(OSError, match="full: .*No space left"):
        run("good", "full", "fine")
    assert asked == [[], ["good", "broken", "fine"], ["full"]]
    assert not (tmp_path / TRYING).exists()


def test_lists_of_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("in/b10.mp4", "in/b9.mov", "in/sub/a.AVI", "in/notes.txt", "in/b9.mp4"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("list.txt").write_text("# two\nin/b10.mp4\n\nin/sub/a.AVI\n")
    folder, pairs = videos_and_outputs("in:out")
    assert folder == Path("out")
    outputs = ["out/b9.mp4", "out/b9_mp4.mp4", "out/b10.mp4", "out/sub/a.mp4"]
    assert sorted(output for _, output in pairs) == sorted(outputs)
    assert videos_and_outputs("list.txt:out")[1][0] == ("in/b10.mp4", "out/b10.mp4")
    assert len(videos_and_outputs("in/*.mp4:out")[1]) == 2
    Path("other").mkdir()
    Path("other/c.mp4").touch()
    Path("list.txt").write_text("in/b10.mp4\nother/c.mp4\n")
    listed = [video for video, _ in videos_and_outputs("list.txt:in")[1]]
    assert listed == ["in/b10.mp4", "other/c.mp4"]  # also that where the results go
    with pytest.raises(ValueError, match=r"no video in in/\*.xyz"):
        videos_and_outputs("in/*.xyz:out")


@pytest.mark.parametrize("text", ["in:in", "in:./in", "in/*:in", "list.txt:in"])
def test_no_result_lands_among_the_videos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path("in/a.mp4").touch()
    Path("list.txt").write_text("in/a.mp4")
    with pytest.raises(ValueError, match="in: the results would land among the videos; name"):
        videos_and_outputs(text)


@pytest.mark.parametrize("text", ["in:in/out", "in/*:in/out", "in/**/*.avi:in/out"])
def test_results_hidden_files_and_folders_are_no_videos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.avi", "in/._a.avi", "in/dir.avi/b.avi", "in/out/a.avi"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    caplog.set_level("INFO")
    pairs = videos_and_outputs(text)[1]
    assert sorted(pairs) == [
        ("in/a.avi", "in/out/a.mp4"),
        ("in/dir.avi/b.avi", "in/out/dir.avi/b.mp4"),
    ]
    assert "left out: 1 videos in in/out, where the results go" in caplog.text


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "give --images=photos:out or --video=clips:out"),
        (["--images=in:out", "--json"], "--save_json for JSON"),
        (["--images=in:out", "--workers=0"], "--workers and --worker_cpus are at least 1"),
        (["--images=in:out", "--video=in:out"], "two inputs"),
    ],
)
def test_wrong_usage(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(main, flags) == 2
    assert said in capsys.readouterr().err


def test_without_ray_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert list(over_ray(Namespace(), [], Worker, 1)) == []  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"needs Ray: pip install 'ray\[data\]'"):
        next(over_ray(Namespace(), [("a", "b")], Worker, 1))  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("[!.]*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def run(script: str, *flags: str, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, ROOT / script, *FLAGS, *flags]
    return subprocess.Popen(command, cwd=cwd, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)


def told(process: subprocess.Popen[str]) -> str:
    error = process.communicate(timeout=900)[1]
    assert process.returncode == 0, error
    return error.strip().splitlines()[-1]


def kill_a_worker(driver: subprocess.Popen[str], results: Path, after: int) -> None:
    """Kill the process that segments, on a node of this test's cluster, once there are results."""
    import psutil

    while len(list(results.glob("*.png"))) < after:
        assert driver.poll() is None, driver.communicate()[1]
        time.sleep(0.02)
    below = psutil.Process().children(recursive=True)
    workers = [each for each in below if "MapWorker" in " ".join(each.cmdline())]
    workers[0].send_signal(signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="one machine is one node there")
def test_two_nodes_with_a_killed_worker_give_what_one_process_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    from ray.cluster_utils import Cluster

    export_coco(ShapeScenes(60, 96, seed=0), tmp_path, "train")
    kinds = [f"--save_{kind}" for kind in ("json", "csv", "coco", "txt", "masks", "cutouts")]
    told(run("eval.py", "--images=train:one", *kinds, cwd=tmp_path))
    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        node.pop("include_dashboard")
        cluster.add_node(**node)
        cluster.wait_for_nodes()
        flags = ["--images=train:many", *kinds, f"--address={cluster.address}", "--workers=2"]
        driver = run("scripts/segment_many.py", *flags, cwd=tmp_path)
        kill_a_worker(driver, tmp_path / "many", after=5)
        assert told(driver) == "60 done, 0 there already, 0 not"
        assert contents(tmp_path / "many") == contents(tmp_path / "one")
        # The whole run is killed, and goes on.
        driver = run("scripts/segment_many.py", *flags, cwd=tmp_path)
        while len((tmp_path / "many" / ".detections.progress").read_bytes().splitlines()) < 10:
            assert driver.poll() is None
            time.sleep(0.02)
        driver.kill()
        driver.wait()
        last = told(run("scripts/segment_many.py", *flags, "--resume", cwd=tmp_path))
        assert not last.startswith("60 done")
        assert last.endswith(" there already, 0 not")
        assert contents(tmp_path / "many") == contents(tmp_path / "one")
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_no_result_waits_for_the_next(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    received = tmp_path / "received"

    def work() -> Callable[[Mapping[str, Sequence[str]]], dict[str, list[str]]]:
        def share(pairs: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
            until = time.monotonic() + 60
            while pairs["source"][0] == "b" and not received.exists() and time.monotonic() < until:
                time.sleep(0.1)
            return {"source": list(pairs["source"]), "in_time": [str(received.exists())]}

        return share

    args = Namespace(address=None, workers=1, worker_cpus=1, worker_gpus=0)
    rows = []
    for row in over_ray(args, [("a", "x"), ("b", "y")], work, 1):
        received.touch()
        rows.append(row)
    assert rows == [{"source": "a", "in_time": "False"}, {"source": "b", "in_time": "True"}]


@pytest.mark.slow
def test_videos_on_this_machine(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    (tmp_path / "in").mkdir()
    for name in "ab":
        write_clip(tmp_path / "in" / f"{name}.mp4", 12)
        target = f"one/{name}.mp4"
        told(run("eval.py", f"--video=in/{name}.mp4:{target}", "--save_json", cwd=tmp_path))
    (tmp_path / "list.txt").write_text("in/a.mp4\nin/b.mp4\n")
    flags = ["--video=list.txt:many", "--save_json", "--workers=2"]
    script = "scripts/segment_many.py"
    assert told(run(script, *flags, cwd=tmp_path)) == "2 done, 0 there already, 0 not"
    assert contents(tmp_path / "many") == contents(tmp_path / "one")
    (tmp_path / "many" / "b.mp4").unlink()
    last = told(run(script, *flags, "--resume", cwd=tmp_path))
    assert last == "1 done, 1 there already, 0 not"
    many, one = contents(tmp_path / "many"), contents(tmp_path / "one")
    assert many.keys() == one.keys()
    del many["b.mp4"]  # encoded in parts, so that it could go on again
    assert many.items() < one.items()

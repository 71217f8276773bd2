"""The runner of the GPU's checks: isolation, outcomes, forms, exit codes; how little it needs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from gpu import benchmark, clock, goldens, material, run, training, worker
from gpu.report import NotHere, Number, Outcome, Report
from gpu.results import HEADING, Results
from gpu.worker import Check, describe, find_checks, run_check

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")

# What a bare checkout lacks: everything but torch, torchvision, numpy, OpenCV, pillow, tqdm and
# matplotlib. An import of a module that is None fails.
ABSENT = (
    *("pytest", "_pytest", "hypothesis", "pycocotools", "av", "openvino", "timm", "yaml", "scipy"),
    *("huggingface_hub", "safetensors", "httpx2", "httpx", "requests", "onnx", "onnxscript"),
    *("onnxruntime", "nncf", "supervision", "pandas", "tensorboard", "tensorrt", "torchcodec"),
    *("fastapi", "uvicorn", "pi_heif", "Cython", "layers.kernels"),
)


def passes(device: torch.device, report: Report) -> None:
    report.number("answer", 42, "ms")
    report.note("a table")


def fails(device: torch.device, report: Report) -> None:
    assert report.numbers, "no numbers: 0 of 1"


def fails_silently(device: torch.device, report: Report) -> None:
    assert report.numbers


def raises(device: torch.device, report: Report) -> None:
    raise KeyError("absent")


def is_not_here(device: torch.device, report: Report) -> None:
    raise NotHere("onnxruntime not installed")


def is_too_large(device: torch.device, report: Report) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.\nMore.")


@pytest.mark.parametrize(
    ("check", "status", "message"),
    [
        (passes, "ok", ""),
        (fails, "failed", "no numbers: 0 of 1"),
        (fails_silently, "failed", "assert "),
        (raises, "failed", "KeyError: 'absent' (test_gpu_harness.py:"),
        (is_not_here, "not here", "onnxruntime not installed"),
        (is_too_large, "failed", "OutOfMemoryError: CUDA out of memory. Tried to allocate 20 GiB."),
    ],
)
def test_whatever_a_check_does_is_an_outcome(check: Check, status: str, message: str) -> None:
    outcome = run_check("here.check_it", check, CPU)
    assert (outcome.status, outcome.name) == (status, "here.check_it")
    assert message in outcome.message
    assert "\n" not in outcome.line()
    assert ("FAILED" in outcome.line()) == (status == "failed") == bool(outcome.traceback)
    assert outcome.seconds >= 0
    assert outcome.numbers == ([Number("answer", 42.0, "ms")] if check is passes else [])


def test_a_check_leaves_nothing_behind() -> None:
    def state() -> tuple[object, ...]:
        return (
            torch.get_default_dtype(),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            cv2.getNumThreads(),
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.allow_tf32,
            torch.backends.cuda.matmul.allow_tf32,
            torch.backends.cudnn.benchmark,
        )

    def untidy(device: torch.device, report: Report) -> None:
        numbers.append((torch.rand(()).item(), np.random.rand()))  # noqa: NPY002
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(3)
        torch.set_grad_enabled(False)
        cv2.setNumThreads(3)
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        raise ValueError

    numbers: list[object] = []
    before = state()
    for _ in range(2):
        assert run_check("here.check_it", untidy, CPU).status == "failed"
    assert state() == before
    assert numbers[0] == numbers[1], "not seeded alike"


def test_no_measurement_begins_after_its_time() -> None:
    late = time.time() - 1
    assert run_check("here.measure_it", raises, CPU, late).status == "skipped"
    assert run_check("here.check_it", passes, CPU, late).status == "ok"
    assert run_check("here.measure_it", passes, CPU, time.time() + 60).status == "ok"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of checks."""
    modules = {
        "__init__": "",
        "first": "def measure_it(): ...\ndef check_other(): ...\ndef check_it(): ...\n",
        "second": "import absent_package",
    }
    name = "fakes_of_this_test"
    (tmp_path / name).mkdir()
    for module, text in modules.items():
        (tmp_path / name / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_checks_come_first_and_a_broken_module_is_a_failed_check(package: str) -> None:
    found = find_checks(package, ["first", "second"])
    assert list(found) == [
        "first.check_other",
        "first.check_it",
        "second.check_import",
        "first.measure_it",
    ]
    outcome = run_check("second.check_import", found["second.check_import"], CPU)
    assert "No module named 'absent_package'" in outcome.message
    assert list(find_checks(package, ["first"], ["_it", "more"])) == [
        "first.check_it",
        "first.measure_it",
    ]


WORKER = """
import json, os, sys, time
asked = json.loads(sys.argv[1])
file = open(asked["file"], "a", buffering=1)
tell = lambda what, value: file.write(json.dumps({what: value}) + "\\n")
names = [name for name in asked["only"] if name not in asked["done"]]
tell("machine", {"device": "toy"})
tell("plan", names)
for name in names:
    tell("begun", name)
    if name == "dies":
        os._exit(3)
    if name == "hangs":
        time.sleep(600)
    outcome = {"name": name, "status": "ok", "notes": ["x" * 100_000], "numbers": []}
    tell("outcome", outcome)
    if name == "breaks":
        sys.exit()
"""


def test_a_check_that_kills_its_process_or_hangs_does_not_stop_the_others(tmp_path: Path) -> None:
    names = ["first", "dies", "second", "breaks", "third", "hangs", "last"]
    command = sys.executable, "-c", WORKER
    watched = run.Watched({"only": names}, tmp_path, patience=2, command=command)
    results = watched.run()
    assert [each.name for each in results.outcomes] == names
    assert [each.message for each in results.failed] == [
        "the process ended with 3",
        "no answer after 2 seconds",
    ]
    assert Results.read(tmp_path / "gpu.json") == results


def test_a_worker_that_cannot_begin_ends_the_run(tmp_path: Path) -> None:
    command = sys.executable, "-c", "raise SystemExit(5)"
    with pytest.raises(SystemExit, match="the process ended with 5"):
        run.Watched({}, tmp_path, command=command).run()


RESULTS = Results(
    {"device": "cuda", "card": "Toy", "torch": "2", "cuda": "13", "date": "2026-01-02T03:04:05"},
    [
        Outcome("a.check_it", "failed", 1.0, "why", "Traceback: here"),
        Outcome("a.measure_it", "ok", 2.0, numbers=[Number("p50", 3.14159, "ms")], notes=["note"]),
        Outcome("a.check_other", "not here", 0.5, "onnx not installed"),
    ],
)


def test_forms(tmp_path: Path) -> None:
    RESULTS.write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpu.json", "gpu.txt"]
    assert Results.read(tmp_path / "gpu.json") == RESULTS
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert content["checks"][1]["numbers"] == [{"name": "p50", "value": 3.14159, "unit": "ms"}]
    text = (tmp_path / "gpu.txt").read_text()
    for part in ("card: Toy", "FAILED", "why", "Traceback: here", "3.14 ms", "note", "not here"):
        assert part in text
    assert RESULTS.summary() == "1 ok, 1 failed, 1 not here, 0 skipped; 4 s"
    Results({"device": "cpu"}, []).write(tmp_path)  # nothing yet


def test_the_results_of_a_document_are_replaced() -> None:
    old = f"# Title\n\nText.\n\n{HEADING}\nNot measured yet.\n"
    new = RESULTS.document(old)
    assert new.startswith(f"# Title\n\nText.\n\n{HEADING}\nToy, PyTorch 2, CUDA 13, 2026-01-02: ")
    assert "| p50 | 3.14 ms |" in new
    assert "Not measured" not in new
    assert RESULTS.document(new) == new
    with pytest.raises(ValueError, match="no section '## Results'"):
        RESULTS.document("# Title\n")
    assert HEADING in run.DOCUMENT.read_text()


def test_command_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[dict[str, Any]] = []
    results = iter([RESULTS, Results({}, RESULTS.outcomes[1:])])

    def watched(self: run.Watched) -> Results:
        asked.append(self.asked)
        return next(results)

    monkeypatch.setattr(run.Watched, "run", watched)
    flags = ["--device=cpu", "--only=a,b", f"--out={tmp_path}", "--minutes=2"]
    assert [run.main("", flags) for _ in range(2)] == [1, 0]
    assert asked[0]["only"] == ["a", "b"]
    assert asked[0]["device"] == "cpu"
    assert {"goldens", "training", "faults", "benchmark", "profile"} <= set(asked[0]["modules"])
    assert str(tmp_path / "gpu.json") in capsys.readouterr().out


def test_every_module_with_checks_is_run() -> None:
    files = (ROOT / "tests" / "gpu").glob("*.py")
    having = {
        file.stem
        for file in files
        if re.search(r"^def (check|measure)_\w+\(\s*device: ", file.read_text(), re.MULTILINE)
    }
    assert having == set(run.MODULES)
    page = run.DOCUMENT.read_text(encoding="utf-8").partition("## Results")[0]
    told = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert tuple(told) == run.MODULES


def test_the_machine_is_described() -> None:
    machine = describe(CPU)
    assert machine["device"] == "cpu"
    assert machine["torch"] == torch.__version__
    json.dumps(machine)


def test_a_worker_writes_down_what_it_does(
    tmp_path: Path, package: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "told"
    asked = {
        "package": package,
        "modules": ["first", "second"],
        "only": [],
        "done": ["first.check_it"],
        "device": "cpu",
        "until": 0,
        "file": str(file),
    }
    worker.main([json.dumps(asked)])
    told = [json.loads(line) for line in file.read_text().splitlines()]
    assert [next(iter(line)) for line in told] == ["machine", "plan", *["begun", "outcome"] * 3]
    assert told[1]["plan"] == ["first.check_other", "second.check_import", "first.measure_it"]
    assert [each["outcome"]["status"] for each in told[3::2]] == ["failed", "failed", "skipped"]
    assert capsys.readouterr().out.count("\n") == 3


def test_what_no_check_is_called_is_wrong_usage(
    tmp_path: Path, package: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"package": package, "modules": ["first"], "only": ["check_it", "typo"]}
    asked |= {"device": "cpu", "done": [], "until": 0, "file": str(tmp_path / "told")}
    with pytest.raises(SystemExit) as exit_:
        worker.main([json.dumps(asked)])
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "error: --only=typo: no check has a name with it\n"
    assert (tmp_path / "told").read_text() == ""
    command = sys.executable, "-c", "raise SystemExit(2)"
    with pytest.raises(SystemExit) as exit_:
        run.Watched({}, tmp_path, command=command).run()
    assert exit_.value.code == 2
    assert not (tmp_path / "gpu.json").exists()


def test_a_device_that_a_check_has_broken_is_left(
    tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(device: torch.device) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(worker, "synchronize", broken)
    file = tmp_path / "told"
    asked = {"package": package, "modules": ["first"], "only": [], "done": []}
    worker.main([json.dumps({**asked, "device": "cpu", "until": 0, "file": str(file)})])
    told = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(told[1]["plan"]) == 3
    assert [next(iter(line)) for line in told[2:]] == ["begun", "outcome"]


def test_an_unknown_device_is_one_line() -> None:
    with pytest.raises(SystemExit, match=r"^error: --device=tpu: not on this machine"):
        worker.main([json.dumps({"device": "tpu"})])


def test_a_measurement_on_the_cpu() -> None:
    outcome = run_check("here.measure_products", benchmark.measure_products, CPU)
    assert (outcome.status, outcome.message) == ("ok", "")
    assert {number.unit for number in outcome.numbers} == {"TFLOP/s", "MB"}


def test_what_takes_longest() -> None:
    matrix = torch.rand(200, 200)
    table = clock.longest(CPU, lambda: matrix @ matrix, count=3)
    assert "aten::mm" in table
    assert len(table.splitlines()) == 5


@pytest.mark.parametrize("preset", ["yolact_resnet18", "yolact_mobilenetv3"])
def test_models_with_random_weights_find_many_objects(preset: str) -> None:
    model = material.untrained(preset, CPU, "model.image_size=64")
    (image,) = material.scenes(1, 64)
    assert len(benchmark.Predictor(model).find_all(image)) >= 20


def test_folders_of_test_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLACT_TOY", str(tmp_path))
    assert material.folder("YOLACT_TOY", "toy") == tmp_path
    monkeypatch.setenv("YOLACT_TOY", str(tmp_path / "absent"))
    with pytest.raises(NotHere, match="set YOLACT_TOY"):
        material.folder("YOLACT_TOY", "toy")


@pytest.mark.parametrize(
    "check",
    [goldens.check_tf32, goldens.check_float16, training.check_float16],
    ids=lambda check: check.__qualname__,
)
def test_what_a_cpu_cannot_is_not_here(check: Check) -> None:
    assert run_check("here.check_it", check, CPU).status == "not here"


def run_script(*flags: str, bare: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the script as a user would; with little installed, if a folder to hide it is given."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    if bare is not None:
        (bare / "sitecustomize.py").write_text(
            f"import sys\nfor name in {ABSENT}:\n    sys.modules[name] = None\n"
        )
        env["PYTHONPATH"] = str(bare)
    command = [sys.executable, "scripts/test_gpu.py", *flags]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=3000)


def test_little_is_needed(tmp_path: Path) -> None:
    """Every module can be imported without what a bare checkout lacks, and a check runs."""
    flags = ["--device=cpu", "--only=check_suppression,check_import", f"--out={tmp_path}"]
    done = run_script(*flags, bare=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (outcome,) = Results.read(tmp_path / "gpu.json").outcomes
    assert (outcome.name, outcome.status) == ("pixels.check_suppression", "ok")


@pytest.mark.slow
def test_everything_that_a_cpu_can_without_what_a_bare_checkout_lacks(tmp_path: Path) -> None:
    done = run_script("--device=cpu", f"--out={tmp_path}", "--minutes=60", bare=tmp_path)
    results = Results.read(tmp_path / "gpu.json")
    assert done.returncode == 0, (tmp_path / "gpu.txt").read_text()
    assert done.stdout.startswith("no GPU: the CPU was asked for\n")
    assert not [outcome.name for outcome in results.outcomes if outcome.status == "skipped"]
    assert sum(outcome.status == "ok" for outcome in results.outcomes) >= 10

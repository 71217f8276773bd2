"""Several processes, started by torchrun as a user would, against one."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from support.tiny import FLAGS, make_dataset

from layers.sync_batch_norm import synchronise_batch_norm
from train import main
from yolact import distributed
from yolact.checkpoint import read_checkpoint
from yolact.cli.common import run_command
from yolact.errors import UsageError
from yolact.training.log import read_log

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("scenes"), train=10, val=5)


def train(processes: int, dataset: Path, folder: Path, *more: str) -> str:
    """Return what a run printed; its checkpoints and log are in the folder."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    flags = [
        f"--dataset={dataset}",
        f"--save_folder={folder}",
        f"--log_folder={folder}",
        "--num_workers=0",
        "--no_report",
        *more,
    ]
    if processes == 1:
        with redirect_stdout(StringIO()) as printed:
            assert run_command(main, flags) == 0
        return printed.getvalue()
    command = [sys.executable, *torchrun, "train.py", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "multi_scale", "rate", "tolerance"),
    # The second is deeper, and magnifies what is rounded: it takes smaller steps.
    [("resnet18", 0.3, 1e-3, 1e-3), ("timm/tf_efficientnet_lite0", 0.0, 1e-6, 2e-3)],
)
def test_two_processes_learn_as_one(
    dataset: Path, tmp_path: Path, backbone: str, multi_scale: float, rate: float, tolerance: float
) -> None:
    flags = [
        "--config=yolact_resnet18",
        f"--set=model.backbone={backbone}",
        "--batch_size=12",
        "--accumulate=2",
        "--no_autoscale",
        "--set=train.max_iterations=10",
        f"--set=train.learning_rate={rate}",
        "--set=train.warmup_iterations=500",  # small steps: large ones magnify what is rounded
        "--set=train.gradient_clip=10",
        "--set=train.ema_decay=0.9",
        f"--set=train.multi_scale={multi_scale}",
        "--set=augment.copy_paste=1",
        "--set=loss.masks_to_train=1000",  # of more, each process would choose its own
        "--validation_size=-1",
        *FLAGS,
    ]
    losses, weights = [], []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        train(processes, dataset, folder, *flags)
        records = read_log(folder / "yolact_resnet18.log")
        assert [record["type"] for record in records] == ["session", "train"]  # written once
        losses.append(records[-1]["data"]["loss"])
        (path,) = folder.glob("*_10.pth")
        weights.append(read_checkpoint(path).model)
    # Convolutions round otherwise in batches of another size, which ten steps magnify.
    assert losses[1] == pytest.approx(losses[0], rel=tolerance)
    for name, tensor in weights[0].items():
        distance = (tensor - weights[1][name]).float().norm()
        assert distance <= max(1e-2, 3 * tolerance) * tensor.float().norm() + 1e-3, name


@pytest.mark.slow
def test_sharded_validation_is_exact(dataset: Path, tmp_path: Path) -> None:
    flags = [
        "--weights=yolact_resnet18_shapes",
        "--set=train.max_iterations=0",
        "--validation_size=5",  # which two processes cannot share equally
    ]
    tables = [train(n, dataset, tmp_path / str(n), *flags).split("\n") for n in (1, 2)]
    assert tables[0][:-2] == tables[1][:-2]
    mask_ap = float(re.findall(r"mask \|\s+([\d.]+)", "\n".join(tables[0]))[0])
    assert mask_ap > 30


@pytest.mark.slow
def test_torchrun_goes_on_after_a_process_died(dataset: Path, tmp_path: Path) -> None:
    flags = [f"--dataset={dataset}", f"--save_folder={tmp_path}", "--no_log", "--no_report"]
    flags += ["--config=yolact_resnet18", "--batch_size=8", "--num_workers=0", "--save_interval=2"]
    flags += ["--set=train.max_iterations=14", "--validation_size=-1", *FLAGS]
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    process = subprocess.Popen(
        [sys.executable, "-m", *command, "train.py", *flags],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    text = ""
    for line in process.stderr:
        if "saved" in line and "saved" not in text:
            workers = subprocess.run(
                ["pgrep", "-P", str(process.pid)], capture_output=True, text=True
            ).stdout.split()
            os.kill(int(workers[-1]), signal.SIGKILL)
        text += line
    assert process.wait(300) == 0, text
    assert re.findall(r"saved .*_14\.pth", text)
    assert len(re.findall(r"saved .*_2\.pth", text)) == 1, "began anew"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def look(number: int, port: int, folders: Sequence[Path], told: Connection) -> None:
    """Join another process, and tell of each folder what is wrong with it."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(number), "WORLD_SIZE": "2", **address}
    distributed.init_process(torch.device("cpu"))
    distributed._PATIENCE = 0.5
    for folder in folders:
        try:
            distributed.check_shared_folder(folder)
        except UsageError as error:
            told.send(str(error))
        else:
            told.send("")
    distributed.shut_down()


@pytest.mark.skipif("fork" not in get_all_start_methods(), reason="nothing forks here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_machines_that_share_no_folder_are_told(tmp_path: Path) -> None:
    port = free_port()
    context, shared = get_context("fork"), tmp_path / "new" / "shared"
    link = tmp_path / "mounted elsewhere"
    link.symlink_to(shared)
    pipes, processes = [context.Pipe() for _ in range(2)], []
    for number, folders in enumerate(
        [(shared, shared, tmp_path / "a", shared), (shared, link, tmp_path / "b", shared)]
    ):
        arguments = (number, port, folders, pipes[number][1])
        processes.append(context.Process(target=look, args=arguments))
        processes[-1].start()
    try:
        answers = []
        for here, _ in pipes:
            assert here.poll(120)
            answers.append([here.recv() for _ in range(4)])
    finally:
        for process in processes:
            process.kill()
    reason = "of 2 processes, 1 do not see there what the first one saves"
    for name, (same, linked, own, again) in zip("ab", answers, strict=True):
        assert (same, linked, again) == ("", "", "")
        assert own.startswith(f"--save_folder={tmp_path / name}: {reason}")
    assert sorted(tmp_path.rglob("*")) == sorted([link, tmp_path / "a", shared.parent, shared])


@pytest.mark.slow
def test_two_machines_with_folders_of_their_own_are_refused(dataset: Path, tmp_path: Path) -> None:
    flags = ["--save_folder=mine", "--no_log", "--set=train.max_iterations=1", *FLAGS]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--rdzv-backend=c10d"]
    command += [
        f"--rdzv-endpoint=127.0.0.1:{free_port()}",
        "--rdzv-id=x",
        ROOT / "train.py",
        *flags,
    ]
    machines = []
    for name in "ab":
        (tmp_path / name).mkdir()
        machines.append(
            subprocess.Popen(
                [*command, f"--dataset={dataset}", "--config=yolact_resnet18", "--batch_size=4"],
                cwd=tmp_path / name,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    texts = [machine.communicate(timeout=300)[1] for machine in machines]
    for machine, text in zip(machines, texts, strict=True):
        assert machine.returncode == 1
        assert text.count("--save_folder=mine: of 2 processes, 1 do not see") == 1, text
    assert not list(tmp_path.rglob("*.pth"))


def test_alone_nothing_is_shared() -> None:
    distributed.check_shared_folder(Path("never made"))
    assert not Path("never made").exists()
    values = torch.arange(3.0)
    assert distributed.all_reduce_mean(values) is values
    assert distributed.all_gather("one") == ["one"]
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert distributed.any_process(True)
    assert not distributed.any_process(False)
    assert distributed.init_process(torch.device("cpu")) == torch.device("cpu")
    model = torch.nn.Linear(1, 1)
    assert distributed.wrap_parallel(model) is model


def test_every_process_has_a_gpu_of_its_own() -> None:
    assert distributed.local_gpu(0, 1) == torch.device("cuda", 0)
    assert distributed.local_gpu(3, 4) == torch.device("cuda", 3)
    message = "process 3 on this machine has no GPU of its own: start at most --nproc-per-node=2"
    with pytest.raises(ValueError, match=message):
        distributed.local_gpu(2, 2)


@pytest.mark.parametrize(
    ("device", "has_nccl", "backend"),
    [("cuda", True, "nccl"), ("cuda", False, "gloo"), ("cpu", True, "gloo")],
)
def test_what_carries_tensors_between_processes(
    device: str, has_nccl: bool, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: has_nccl)
    assert distributed.backend_for(torch.device(device)) == backend


def test_synchronised_batch_norm_keeps_names_and_inference() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4)).eval()
    x = torch.randn(2, 3, 5, 5)
    before, names = model(x), list(model.state_dict())
    synchronise_batch_norm(model)
    assert torch.equal(model(x), before)
    assert list(model.state_dict()) == names
    assert type(model[1]) is not torch.nn.BatchNorm2d

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from yolact import get_config
from yolact.cli.common import (
    HelpFormatter,
    add_machine_flags,
    device_name,
    named_config,
    run_command,
    str2bool,
    with_settings,
)
from yolact.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["yes", "true", "t", "1", "y", "on", "True", "YES"], True),
        (["no", "false", "f", "0", "n", "off", "False", "NO"], False),
    ],
)
def test_str2bool(words: list[str], expected: bool) -> None:
    assert {str2bool(word) for word in words} == {expected}


@pytest.mark.parametrize("word", ["", "maybe", "2", "None"])
def test_str2bool_refuses(word: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected True or False"):
        str2bool(word)


def raising(error: BaseException | None) -> int:
    def main(argv: Sequence[str] | None) -> None:
        if error:
            raise error

    return run_command(main, [])


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (None, 0, ""),
        (UsageError("--config: no such preset"), 2, "error: --config: no such preset\n"),
        (ValueError("image.png:\n  not\tan image"), 1, "error: image.png: not an image\n"),
        (ValueError(), 1, "error: ValueError\n"),
        (
            FileNotFoundError(2, "No such file", "x.pth"),
            1,
            "error: [Errno 2] No such file: 'x.pth'\n",
        ),
        (PermissionError("weights/: read only"), 1, "error: weights/: read only\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB. GPU 0 has"),
            1,
            "error: CUDA out of memory; try a smaller --batch_size or image\n",
        ),
    ],
)
def test_exit_codes_and_one_line_errors(
    capsys: pytest.CaptureFixture[str], error: BaseException | None, code: int, line: str
) -> None:
    assert raising(error) == code
    assert capsys.readouterr() == ("", line)


@pytest.mark.parametrize(
    "error", [TypeError("a bug"), AssertionError("a bug"), RuntimeError("a bug")]
)
def test_mistakes_of_ours_are_not_hidden(error: Exception) -> None:
    with pytest.raises(type(error), match="a bug"):
        raising(error)


def test_run_passes_the_arguments() -> None:
    seen: list[Sequence[str] | None] = []
    assert run_command(seen.append, ["--a", "b"]) == 0
    assert run_command(seen.append) == 0
    assert seen == [["--a", "b"], None]


def test_wrong_flags_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: Sequence[str] | None) -> None:
        machine_flags(*argv or ())

    with pytest.raises(SystemExit) as caught:
        run_command(main, ["--precision=float8"])
    assert caught.value.code == 2
    assert "float8" in capsys.readouterr().err


def test_a_reader_that_has_enough_is_no_error() -> None:
    code = (
        "import sys; from yolact.cli.common import run_command\n"
        "def main(argv):\n    print('x' * 10**6, flush=True)\n"
        "sys.exit(run_command(main))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    assert process.wait(60) == 0
    assert process.stderr.read() == b""
    process.stderr.close()


def machine_flags(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(formatter_class=HelpFormatter)
    add_machine_flags(parser)
    return parser.parse_args(argv)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], "auto"),
        (["--device=cuda:1"], "cuda:1"),
        (["--cuda=False"], "cpu"),
        (["--cuda=True", "--device=mps"], "mps"),
        (["--cuda=no", "--device=cuda"], "cpu"),
    ],
)
def test_device_name(argv: list[str], expected: str) -> None:
    assert device_name(machine_flags(*argv)) == expected


def test_settings_are_collected() -> None:
    assert machine_flags().set == []
    args = machine_flags("--set", "train.batch_size=2", "--set=dataset=shapes")
    config = with_settings(get_config("yolact_base"), args.set)
    assert (config.train.batch_size, config.dataset) == (2, "shapes")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("batch_size=2", "'batch_size' is no setting"),
        ("train.batch_siz=2", "did you mean 'train.batch_size'"),
        ("train.batch_size=two", "expected int"),
        ("train.batch_size", "expected path=value"),
        ("model.image_size=1", "expected 32 to"),
    ],
)
def test_wrong_settings(setting: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"^--set: .*{message}"):
        with_settings(get_config("yolact_base"), [setting])


@pytest.mark.parametrize("name", ["yolact_base", "yolact_base_config"])
def test_named_config(name: str) -> None:
    assert named_config(name).name == "yolact_base"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "there are yolact_base"),
        ("yolact_bas", "did you mean 'yolact_base'"),
        ("yolact_base_config.copy({'max_size': 400})", "--set model.image_size=400"),
    ],
)
def test_unknown_config(name: str, message: str) -> None:
    with pytest.raises(UsageError, match="^--config") as caught:
        named_config(name)
    assert message in str(caught.value)


def test_help_shows_defaults_that_say_something(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser(formatter_class=HelpFormatter, description="a\n  b")
    parser.add_argument("folder", help="where")
    parser.add_argument("--count", type=int, default=7, help="how many")
    parser.add_argument("--score", type=float, default=0, help="at least")
    parser.add_argument("--fast", action="store_true", help="or slow")
    parser.add_argument("--name", help="of it")
    text = parser.format_help()
    assert "a\n  b" in text
    assert "how many (default: 7)" in text
    assert "at least (default: 0)" in text
    assert text.count("default") == 2

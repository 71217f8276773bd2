"""The command `yolact`, which runs the scripts."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from yolact.cli.common import chosen_weights
from yolact.cli.eval_flags import parse_arguments
from yolact.cli.main import (
    COMMANDS,
    PREDICT_HELP,
    as_commands,
    main,
    script_arguments,
    source_flag,
)
from yolact.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def own_argv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["yolact"])


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a folder and files."""
    monkeypatch.chdir(tmp_path)
    for name in ("photo.JPG", "clip.mp4", "odd[1].png", "folder.d/a.png", "noted.pbf"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("source", "flag"),
    [
        ("photo.JPG", "--image"),
        ("photo.JPG:out.png", "--image"),
        ("clip.gif:out.png", "--image"),
        ("clip.GIF:out.mp4", "--video"),
        ("clip.gif:out.gif", "--video"),
        ("photo.JPG:out.gif", "--image"),
        ("odd[1].png", "--image"),
        ("absent.png", "--image"),
        ("folder.d", "--images"),
        ("folder.d:out", "--images"),
        ("*.JPG", "--images"),
        ("absent", "--images"),
        ("clip.mp4", "--video"),
        ("clip.mp4:out.mp4", "--video"),
        ("absent.mkv", "--video"),
        ("0", "--video"),
        ("0:out.mp4", "--video"),
        ("rtsp://camera:554/live", "--video"),
        ("https://example.org/a.jpg", "--image"),
        ("https://example.org/live", "--video"),
        ("https://example.org/live:out.png", "--image"),
        ("noted.pbf", "--video"),
        ("noted.pbf:out.png", "--image"),
    ],
)
def test_the_flag_of_a_source(there: Path, source: str, flag: str) -> None:
    assert source_flag(source) == flag
    arguments = script_arguments("predict", [source, "--top_k=2"])
    args = parse_arguments(None, arguments)
    assert getattr(args, flag.removeprefix("--")) == source
    assert (args.top_k, args.score_threshold) == (2, None)


@pytest.mark.parametrize(
    ("name", "argv", "arguments"),
    [
        ("eval", [], []),
        ("check", ["my_data", "--shown=3"], ["my_data", "--shown=3"]),
        ("benchmark", [], ["--benchmark"]),
        ("benchmark", ["all", "--json=a.json"], ["--benchmark", "all", "--json=a.json"]),
    ],
)
def test_arguments_are_those_of_the_script(
    name: str, argv: list[str], arguments: list[str]
) -> None:
    assert script_arguments(name, argv) == arguments


@pytest.mark.parametrize("source", ["photo.jgp", "photo.jgp:out.png", "clip.mp5:out.mp4"])
def test_a_file_that_is_neither_there_nor_known_by_its_name(
    there: Path, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", source]) == 1
    assert capsys.readouterr().err == f"error: no such file: {source.split(':')[0]}\n"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], ["no command ''", *COMMANDS]),
        (["predictt"], ["no command 'predictt'", *COMMANDS]),
        (["--verbose"], ["no command '--verbose'", *COMMANDS]),
        (["predict"], ["yolact predict: SOURCE comes first"]),
        (["predict", "--top_k=3", "a.jpg"], ["yolact predict: SOURCE comes first"]),
        (["predict", "a.jpg:"], ["'a.jpg:': expected INPUT or INPUT:OUTPUT"]),
        (["benchmark", "--image=a.jpg"], ["--benchmark takes the images of a --dataset"]),
        (["check", "absent", "--shown=0"], ["--shown=0: expected at least 1"]),
        (["predict", "a.jpg", "--score_treshold=.3"], ["--score_treshold: no such flag; did you"]),
        (["eval", "--qqqq"], ["error: --qqqq: no such flag; --help lists them"]),
        (["predict", "a.jpg", "out.png"], ["out.png: expected flags", "photo.jpg:out.png"]),
        (["predict", "a.jpg", ""], ["'': expected flags here"]),
        (["train", "photos"], ["photos: expected flags here; --help lists them"]),
        (["predict", "a.jpg", "--top_k=3x"], ["--top_k=3x: expected a whole number"]),
        (["predict", "a.jpg", "--score_threshold=30%"], ["30%: expected a number"]),
    ],
)
def test_wrong_usage_is_one_line(
    argv: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(argv)
    except SystemExit as end:  # of argparse
        code = end.code if isinstance(end.code, int) else -1
    assert code == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert all(word in err for word in words)


def test_usage_names_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["convert", "--help"])
    out = capsys.readouterr().out
    assert end.value.code == 0
    assert out.startswith("usage: yolact convert ")
    assert "  yolact convert yolact_base_54_800000.pth ours.pth\n" in out


def test_help_of_predict_names_flags_of_eval(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--help"]) == 0
    assert capsys.readouterr().out == PREDICT_HELP + "\n"
    flags = re.findall(r"--\w+=[\w.]*\w|--\w+", PREDICT_HELP)
    known = [flag for flag in flags if not flag.startswith("--help")]
    assert len(known) > 8
    flags = [flag.replace("=MODEL", "=mine.pth") for flag in known]
    # Not for videos, or beside others.
    apart = [flag for flag in flags if flag.startswith(("--tile", "--detect"))]
    parse_arguments(None, ["--image=a.jpg", *apart])
    parse_arguments(None, ["--video=a.mp4", *(flag for flag in flags if flag not in apart)])


def test_examples_are_written_for_the_command() -> None:
    text = "python eval.py --a; python scripts/check_dataset.py b; python train.py; python -m pip"
    expected = "yolact eval --a; yolact check b; yolact train; python -m pip"
    assert as_commands(text) == expected


def test_hints_name_the_command_and_no_script() -> None:
    """Who has installed the wheel has no scripts."""
    packages = [f for name in ("layers", "data", "yolact") for f in (ROOT / name).rglob("*.py")]
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    wrong = []
    for path in (*packages, ROOT / "train.py", ROOT / "eval.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        docs = {ast.get_docstring(n, clean=False) for n in nodes if isinstance(n, documented)}
        texts = {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        wrong += [text for text in texts - docs if re.search(r"scripts/\w|python \w+\.py", text)]
    assert not wrong


def test_each_command_has_a_line_of_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert set(re.findall(r"^  (\w+) ", capsys.readouterr().out, re.MULTILINE)) == set(COMMANDS)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
def test_ctrl_c_while_libraries_load_ends_in_one_line() -> None:
    program = (
        "import os, signal; from yolact.cli.main import _stopping_at_once as at_once\n"
        "with at_once(): os.kill(os.getpid(), signal.SIGINT)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of Unix")
@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_a_reader_who_has_enough_of_the_help_is_no_error(flag: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    program = "import sys; from yolact.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, flag], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("flag", ["--trained_model", "--with", "source"])
def test_the_last_checkpoint_is_called_latest(
    flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"^{flag}=latest: no checkpoint of any run in weights$"):
        chosen_weights(flag, "latest")
    Path("weights").mkdir()
    for name in ("a_1_5.pth", "a_2_9.pth"):
        Path("weights", name).touch()
    assert chosen_weights(flag, "latest") == Path("weights/a_2_9.pth")
    assert chosen_weights(flag, "weights/a_1_5.pth") == Path("weights/a_1_5.pth")
    with pytest.raises(FileNotFoundError, match="^latset: no such checkpoint file"):
        chosen_weights(flag, "latset")

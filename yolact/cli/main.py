"""The command `yolact`: the scripts of the repository under one name."""

from __future__ import annotations

import os
import re
import runpy
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from data.files import IMAGE_SUFFIXES, VIDEO_SUFFIXES, is_url
from yolact import __version__
from yolact.sources.kinds import kind_of
from yolact.sources.listing import local_path

from .inputs import parse_source
from .process import is_closed_pipe

# At its top this module imports nothing slow: `yolact --help` loads no torch.

SCRIPTS = {
    "predict": "eval",
    "train": "train",
    "eval": "eval",
    "export": "export",
    "check": "check_dataset",
    "anchors": "anchors",
    "benchmark": "eval",
    "convert": "convert_checkpoint",
}
"""The script that each subcommand runs."""

CONVERT_DATASET = "convert_dataset"
"""The script that `convert` runs with `--format`."""

COMMANDS = (*SCRIPTS, "serve")

HELP = """usage: yolact COMMAND ...

  predict    segment an image, a folder of images, a video, a camera or a stream
  train      train on COCO, on your own data, or on generated scenes
  eval       compute the AP on a dataset
  export     write a model as OpenVINO (.xml) or ONNX (.onnx)
  check      look for mistakes in a dataset
  anchors    propose anchors that fit a dataset
  benchmark  measure the speed; `yolact benchmark all`: every engine
  serve      open a web page and a JSON endpoint on this machine
  convert    convert a dataset (--format), or a checkpoint of another project or of 2019

yolact COMMAND --help lists the flags; yolact --version prints the version."""

PREDICT_HELP = """usage: yolact predict SOURCE[:OUT] [flags of `yolact eval`]

SOURCE is an image or its https address, a folder or pattern of images, a video, numbered images
such as frames/%06d.png, the number of a camera, the address of a stream, or - for a video from
standard input. Without OUT, results are shown in a window, or written to results/.

Examples:
  yolact predict photo.jpg:out.png                         persons, by the bundled model
  yolact predict photos:out --trained_model=mine.pth
  yolact predict crowd.jpg:out.png --tile=0.5              crowds and large images, in tiles
  yolact predict street.mp4:out.mp4 --trained_model=yolact_base --video_multiframe=4
  yolact predict 0 --display_fps

The flags used most, all of them in `yolact eval --help`:
  --trained_model=MODEL    .pth, .xml or .onnx, folder, released name, or hf:owner/name
  --score_threshold=0.3    drop detections with lower scores; by default the model's threshold
  --top_k=15               draw at most this many detections; by default all
  --classes=person,dog     draw only these classes; by default all
  --keyframes=4            run the network on every fourth frame of a video, carry its objects along
  --device=auto            auto, cpu, cuda, cuda:1 or mps
  --precision=auto         float32, bfloat16 or float16; auto: whichever is fast on this machine
  --save_json              files beside the pictures: also --save_csv, _coco, _txt, _labelme,
                           _masks, _crops, _cutouts
  --json                   a line of JSON for each image or frame, to standard output
  --detect                 boxes only, no masks
  --smooth_masks           outlines without stairs
  --display_scores=True    draw scores; likewise --display_masks, _bboxes, _text"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C, 128 + the number of
            another signal.
    """
    command, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    if command in ("-h", "--help"):
        _say(HELP)
    elif command == "--version":
        _say(f"yolact {__version__}")
    elif command not in COMMANDS:
        choices = f"expected {', '.join(COMMANDS)}, --help or --version"
        print(f"error: yolact: no command {command!r}; {choices}", file=sys.stderr)
        return 2
    elif command == "predict" and {"-h", "--help"} & set(rest):
        _say(PREDICT_HELP)
    else:
        return _run(command, rest)
    return 0


def _say(text: str) -> None:
    """Print text, and allow for a reader such as `head` that closes the pipe early."""
    try:
        print(text, flush=True)
    except OSError as error:
        if not is_closed_pipe(error):
            raise
        # Nothing more goes there, not even when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(command: str, argv: Sequence[str]) -> int:
    with _stopping_at_once():
        from yolact.errors import UsageError

        from .common import run_command

    def run_script(argv: Sequence[str] | None) -> None:
        if command == "serve":
            with _stopping_at_once():
                from .serve import main as serve

            return serve(argv)
        try:
            arguments = script_arguments(command, argv or [])
        except ValueError as error:
            raise UsageError(error) from None
        with _stopping_at_once():
            script = load_script(script_of(command, arguments))
        return script(arguments)

    sys.argv[0] = f"yolact {command}"  # what usage and errors call the program
    return run_command(run_script, argv)


@contextmanager
def _stopping_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process at once while libraries load, as they hide it in other errors."""

    def stop(*_: object) -> None:
        print("stopped", file=sys.stderr, flush=True)
        os._exit(130)

    usual = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or usual is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def script_of(command: str, argv: Sequence[str]) -> str:
    """Return the script that a command runs: `convert` has one for datasets, which have formats."""
    is_dataset = command == "convert" and any(text.split("=")[0] == "--format" for text in argv)
    return CONVERT_DATASET if is_dataset else SCRIPTS[command]


def script_arguments(command: str, argv: Sequence[str]) -> list[str]:
    """Return the arguments that the script takes.

    Raises:
        ValueError: `predict` without a source.
    """
    if command == "benchmark":
        return ["--benchmark", *argv]
    if command != "predict":
        return list(argv)
    source, *flags = argv or [""]
    if not source or (source.startswith("-") and source != "-" and not source.startswith("-:")):
        raise ValueError("yolact predict: SOURCE comes first, as in yolact predict photo.jpg")
    return [f"{source_flag(source)}={source}", *flags]


def source_flag(text: str) -> str:
    """Return the flag of eval.py for a source.

    Raises:
        ValueError: nothing stands before or after the colon.
        FileNotFoundError: no such file, and its name does not tell whether it is an image or video.
    """
    source, output = parse_source(text)
    suffix = Path(output or "").suffix.lower()
    if source.lower().endswith(".gif") and suffix in (*VIDEO_SUFFIXES, ".gif"):  # not one picture
        return "--video"
    is_picture = suffix in IMAGE_SUFFIXES
    kind = kind_of(source, otherwise="image" if is_picture else "video")
    is_told = kind_of(source, otherwise="image") == kind_of(source, otherwise="video")
    if not is_told and not is_url(source) and not local_path(source).is_file():
        raise FileNotFoundError(f"no such file: {source}")
    return f"--{kind}"


def load_script(name: str) -> Callable[[Sequence[str]], None]:
    """Return `main` of a script, in yolact/scripts of the wheel or in the checkout around it."""
    package = Path(__file__).resolve().parents[1]
    folders = (package / "scripts", package.parent, package.parent / "scripts")
    file = next(file for folder in folders if (file := folder / f"{name}.py").is_file())
    content = runpy.run_path(str(file), run_name=f"yolact.scripts.{name}")
    main: Callable[[Sequence[str]], None] = content["main"]
    main.__globals__["__doc__"] = as_commands(content["__doc__"])
    return main


def as_commands(text: str) -> str:
    """Write the examples of a script's help for this command: `python eval.py` as `yolact eval`."""
    names = {script: command for command, script in SCRIPTS.items() if script != "eval"}
    names |= {"eval": "eval", CONVERT_DATASET: "convert"}
    pattern = rf"python (?:scripts/)?({'|'.join(names)})\.py"
    return re.sub(pattern, lambda match: f"yolact {names[match[1]]}", text)

"""Convert checkpoints: those of 2019 to ours and back, without loss, and other projects' to ours.

The file's tensors tell whose it is: mmdetection, YolactEdge, Yolact_minimal, or YOLACT of 2019.
Datasets are converted by convert_dataset.py; `yolact convert` does both, datasets with --format.

Examples:
  python scripts/convert_checkpoint.py yolact_base_54_800000.pth ours.pth
  python scripts/convert_checkpoint.py yolact_r50_1x8_coco_20200908-f38d58df.pth ours.pth
  python scripts/convert_checkpoint.py ours.pth yolact_base_54_800000.pth --to=official
  python scripts/convert_checkpoint.py mine_4_2000.pth mine.pth --half --set dataset=coco2017
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from yolact import build_model
from yolact.checkpoint import (
    load_weights,
    read_checkpoint,
    resolve_weights,
    save_checkpoint,
    write_atomically,
)
from yolact.cli.common import (
    SETTING,
    add_flags,
    checkpoint_config,
    flag,
    make_parser,
    run_command,
    with_settings,
)
from yolact.errors import UsageError
from yolact.formats.official import check_official, to_official


def main(argv: Sequence[str] | None = None) -> None:
    """Convert one file."""
    parser = make_parser("convert_checkpoint.py", __doc__)
    parser.add_argument("source", help="checkpoint to read, or a released name")
    parser.add_argument("target", type=Path, help="checkpoint to write")
    add_flags(
        parser,
        "options",
        (
            flag("--to", "names to write", str, "ours", choices=("ours", "official")),
            flag("--config", "preset, where neither the file nor its name tells"),
            flag("--half", "store weights as float16, without what --resume needs", bool),
            SETTING,
        ),
    )
    args = parser.parse_args(argv)
    if args.half and args.to == "official":
        raise UsageError("--half is for our own files; official ones are float32")
    if Path(args.source).is_dir() or args.source.endswith((".json", ".yaml", ".yml")):
        raise UsageError(f"{args.source} is no checkpoint: to convert a dataset, add --format=")
    checkpoint = read_checkpoint(resolve_weights(args.source))
    config = with_settings(checkpoint_config(checkpoint, args.config), args.set)
    if args.to == "official":
        check_official(config.model)
    model = build_model(config)
    load_weights(model, checkpoint)
    if args.to == "official":
        write_atomically(args.target, to_official(model.state_dict()))
    else:
        training = {} if args.half else checkpoint.training
        save_checkpoint(args.target, model, config, training, half=args.half)
    print(args.target)


if __name__ == "__main__":
    raise SystemExit(run_command(main))

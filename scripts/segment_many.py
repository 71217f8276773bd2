"""Segment more images or videos than one machine can, on a Ray cluster.

Every machine must see the same folders and have this project installed. The results are those of
eval.py with the same flags. A worker that dies is replaced; --resume continues after any end of the
run. Needs Ray: pip install ".[ray]". How to start a cluster: docs/distributed.md.

Examples:
  python scripts/segment_many.py --images=photos:out --save_coco --workers=2     on this machine
  python scripts/segment_many.py --images=photos:out --address=auto --workers=16 --worker_gpus=1
  python scripts/segment_many.py --video=clips:out --save_json --address=auto    a folder of videos
  python scripts/segment_many.py --video=clips.txt:out --resume                  one in each line
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from data.files import VIDEO_SUFFIXES, natural_key, read_text_of, without_password
from yolact.cli.common import flag, run_command
from yolact.cli.eval_flags import display_thresholds, parse_arguments, tiling, video_options
from yolact.cli.from_flags import (
    choose_model,
    drawing,
    engine_for,
    keep_noted_engine,
    load_predictor,
    settings_of_run,
    version_of,
)
from yolact.cli.inputs import parse_source
from yolact.cli.output_names import RESULTS, apart, images_and_pictures
from yolact.cli.predict import (
    common_folder,
    is_fatal,
    make_segment,
    name_in,
    segment_video,
    write_image,
)
from yolact.cli.saving import save_options
from yolact.errors import UsageError
from yolact.results.folder import Note, ResultFolder, progress_of
from yolact.sources.listing import files_below, files_matching, local_path
from yolact.sources.one import read
from yolact.stream import segment_batch
from yolact.threads import map_ahead

logger = logging.getLogger("segment_many")

BLOCK = 16  # images that a worker takes at once, and that are done again if it dies
TRIES = 3  # of an image or video whose worker dies
TRYING = ".trying"  # folder of what is being segmented: a file for each, a byte for each try
VIDEOS = "videos"  # what the record of a list of videos is called
_STORE = 200 * 2**20  # bytes for what workers send, which is text

CLUSTER = (
    flag("--workers", "processes that segment, each with its own copy of the model", int, 1),
    flag("--worker_cpus", "processors per worker", int, 1),
    flag("--worker_gpus", "GPUs per worker; 0.5 lets two share one", float, 0.0),
    flag("--address", "address of a running cluster, or auto; by default start one here"),
)

Pair = tuple[str, str]
"""The path or address of an image or video, and the file that its results are named after."""


def main(argv: Sequence[str] | None = None) -> None:
    """Segment what the flags name."""
    args = parse_arguments(__doc__, argv, "segment_many.py", CLUSTER)
    if not (args.images or args.video) or args.json_lines:
        raise UsageError("give --images=photos:out or --video=clips:out, and --save_json for JSON")
    if min(args.workers, args.worker_cpus) < 1 or args.worker_gpus < 0:
        raise UsageError("--workers and --worker_cpus are at least 1, --worker_gpus at least 0")
    save = save_options(args)
    if args.images:
        folder, images = images_and_pictures(args.images, save.picture)
    else:
        folder, pairs = videos_and_outputs(args.video)
    if not args.worker_gpus:  # else workers have other devices than this process
        keep_noted_engine(args, progress_of(folder, *([] if args.images else [VIDEOS])))
    checkpoint, config = choose_model(args)
    engine = engine_for(args, checkpoint, config)
    settings = settings_of_run(args, checkpoint, config, engine)
    if not args.worker_gpus:  # what is measured here counts for all
        args.engine, args.precision = engine.name, engine.precision
    if args.images:
        pairs = [(str(image), str(picture)) for image, picture in images]
        shared = common_folder([image for image, _ in images])
        work = partial(Images, args, folder, shared)
        files = replace(save, settings=settings).folder(folder, shared)
        segment_all(args, files, pairs, work, BLOCK)
    else:
        settings |= {"--video": None, "--save": [*save.kinds, save.picture]}  # any list of them
        files = ResultFolder(folder, (), table=VIDEOS, settings=settings, resume=args.resume)
        segment_all(args, files, pairs, partial(Videos, args, folder), 1)


def videos_and_outputs(text: str) -> tuple[Path, list[Pair]]:
    """Split --video into the folder of the results, and the videos with a file for each.

    Args:
        text: what the user typed: a folder, a pattern, or a text file with a video in each line.

    Raises:
        ValueError: there is no video, or the results would land among the videos.
    """
    source, target = parse_source(text)
    path, folder = local_path(source), local_path(target or RESULTS)
    are_listed = path.is_file() and path.suffix.lower() == ".txt"
    if are_listed:
        lines = map(str.strip, read_text_of(path)[0].splitlines())
        videos = [local_path(line) for line in lines if line and not line.startswith("#")]
    else:
        below = files_below if path.is_dir() else files_matching
        videos = list(set(below(path, VIDEO_SUFFIXES)))
    if not videos:
        raise ValueError(f"no video in {source}; looked for {', '.join(sorted(VIDEO_SUFFIXES))}")
    videos.sort(key=natural_key)
    named = apart(source, videos, folder, ".mp4", ("videos", "results"), are_listed)
    return folder, [(str(video), str(output)) for video, output in named]


def segment_all(
    args: argparse.Namespace,
    files: ResultFolder,
    pairs: Sequence[Pair],
    work: Callable[[], Worker],
    block: int,
) -> None:
    """Let workers segment what is not finished yet, and note what is, in order.

    Args:
        args: of the command line.
        files: not entered yet.
        pairs: all images or videos.
        work: makes a worker, in its own process.
        block: pairs that a worker takes at once.

    Raises:
        ValueError: at the end, if any failed.
        OSError: a worker's disk is full.
    """
    named = {without_password(source): (source, output) for source, output in pairs}
    done = 0
    with files:
        shutil.rmtree(files.folder / TRYING, ignore_errors=True)
        names = {source: name_in(files.folder, Path(out)) for source, (_, out) in named.items()}
        missing = files.missing(names)
        try:
            for row in over_ray(args, [named[source] for source in missing], work, block):
                if row["stop"]:
                    raise OSError(row["error"])
                if row["error"]:
                    logger.warning("passed over: %s", row["error"])
                else:
                    files.note(json.loads(row["note"]))
                    done += 1
        finally:
            shutil.rmtree(files.folder / TRYING, ignore_errors=True)
            there, left = len(named) - len(missing), len(missing) - done
            logger.info("%d done, %d there already, %d not", done, there, left)
    if left:
        raise ValueError(f"{left} of {len(named)} failed; --resume tries these again")


class Worker(ABC):
    """Segments its share, in a process of its own; called with columns, as Ray holds them.

    Args:
        folder: of the results.
    """

    def __init__(self, folder: Path) -> None:
        self._trying = folder / TRYING
        self._trying.mkdir(parents=True, exist_ok=True)

    def __call__(self, pairs: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """Segment the pairs of "source" and "output".

        Returns:
            For each a "note" in JSON, or the "error"; "stop" where all others would fail as well.
        """
        columns: dict[str, list[str]] = {"note": [], "error": [], "stop": []}
        for row in self.rows(list(zip(pairs["source"], pairs["output"], strict=True))):
            for name, column in columns.items():
                column.append(row.get(name, ""))
        return columns

    def rows(self, pairs: Sequence[Pair]) -> Iterator[Mapping[str, str]]:
        """Yield what became of each pair."""
        return map(self.row, pairs)

    def row(self, pair: Pair) -> Mapping[str, str]:
        """Segment one, and tell what became of it."""
        source, output = str(pair[0]), Path(str(pair[1]))
        mark = self._trying / sha256(source.encode(errors="surrogatepass")).hexdigest()
        try:
            with mark.open("ab") as file:
                if file.tell() == TRIES:
                    raise ValueError(f"its worker died {TRIES} times")
                file.write(b".")
            return {"note": json.dumps(self.segment(source, output))}
        except (OSError, ValueError) as error:
            reason = f"{without_password(source)}: {error}"
            return {"error": reason, "stop": "yes" if is_fatal(error) else ""}
        finally:
            mark.unlink(missing_ok=True)

    @abstractmethod
    def segment(self, source: str, output: Path) -> Note:
        """Segment one image or video, and write its files.

        Raises:
            OSError: it cannot be read, or a file not be written.
            ValueError: it is broken.
        """


class Images(Worker):
    """Segments images as `segment_images` does.

    Args:
        args: of the command line.
        folder: of the results.
        shared: to which images are named relative.
    """

    def __init__(self, args: argparse.Namespace, folder: Path, shared: Path | None) -> None:
        super().__init__(folder)
        checkpoint, config = choose_model(args)
        predictor = load_predictor(args, checkpoint, config)
        self._tiling = tiling(args)
        self._predictor = predictor if self._tiling else predictor.for_many()
        self._segment = make_segment(
            self._predictor, display_thresholds(args, config), self._tiling
        )
        self._save_options, self._draw = save_options(args), drawing(args)
        self._files = self._save_options.folder(folder, shared)

    def rows(self, pairs: Sequence[Pair]) -> Iterator[Mapping[str, str]]:
        """Yield what became of each pair, in order; as many at a time as the engine likes."""
        workers = self._predictor.workers
        return map_ahead(self.row, pairs, workers, workers)

    def segment(self, source: str, output: Path) -> Note:
        """See `Worker.segment`."""
        item = read(source, self._tiling.max_pixels if self._tiling else None)
        (found,) = segment_batch([item], self._segment, keep=True)
        return write_image(self._files, found, output, self._draw, self._save_options)


class Videos(Worker):
    """Segments videos as `segment_video` does.

    Args:
        args: of the command line.
        folder: of the results.
    """

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        super().__init__(folder)
        checkpoint, config = choose_model(args)
        engine = engine_for(args, checkpoint, config)
        self._predictor = load_predictor(args, checkpoint, config, engine)
        self._settings = settings_of_run(args, checkpoint, config, engine) if args.resume else {}
        self._thresholds, self._options = display_thresholds(args, config), video_options(args)
        self._draw = drawing(args, "instance" if args.track else "class")
        self._save_options = replace(save_options(args), quiet=True)
        self._record = ResultFolder(folder, ())

    def segment(self, source: str, output: Path) -> Note:
        """See `Worker.segment`."""
        save = self._save_options
        if save.resume:  # a video that broke off goes on where it did, also after a worker's death
            save = replace(save, settings={**self._settings, "--video": version_of(source)})
        told = self._draw, self._thresholds, self._options, save
        segment_video(source, output, self._predictor, *told)
        tables = self._save_options.folder(output.parent, table=output.stem).written
        written = [path for path in (output, *tables) if path.is_file()]
        return self._record.finished(source, name_in(self._record.folder, output), written)


def over_ray(
    args: argparse.Namespace, pairs: Sequence[Pair], work: Callable[[], Worker], block: int
) -> Iterator[dict[str, str]]:
    """Yield what became of each pair, in order, by workers on any machine of a cluster.

    Raises:
        ValueError: Ray is not installed, there is no cluster, or its workers cannot begin.
    """
    if not pairs:
        return
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read when it is imported
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # it logs as errors what are none
    try:
        import ray
        import ray.data
    except ImportError:
        raise ValueError("segmenting on many machines needs Ray: pip install 'ray[data]'") from None

    here = Path.cwd()

    class Share:  # what Ray makes in each worker's process, and calls
        def __init__(self) -> None:
            os.chdir(here)  # where relative paths begin
            self._worker = work()

        def __call__(self, batch: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
            return self._worker(batch)

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    where: dict[str, Any] = {"address": args.address}
    if not args.address:
        cpus = args.workers * args.worker_cpus
        where = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": _STORE}
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **where)
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        size = max(1, min(block, len(pairs) // (8 * args.workers)))
        items = [{"source": source, "output": output} for source, output in pairs]
        rows = ray.data.from_items(items, override_num_blocks=-(-len(items) // size)).map_batches(
            Share,
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(size=args.workers),
            num_cpus=args.worker_cpus,
            num_gpus=args.worker_gpus or None,
        )
        for batch in rows.iter_batches(
            batch_size=None, prefetch_batches=0
        ):  # none waits for another
            for values in zip(*(column.tolist() for column in batch.values()), strict=True):
                yield dict(zip(batch, values, strict=True))
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise ValueError(f"Ray: {str(error).strip().splitlines()[-1]}") from None
    finally:
        ray.shutdown()


if __name__ == "__main__":
    raise SystemExit(run_command(main))

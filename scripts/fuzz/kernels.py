"""Call every compiled kernel with random and hostile arguments.

A call may return, or refuse them by an error. Reads and writes outside of its arguments are seen
in a build with sanitizers: scripts/sanitize.py makes one, and runs this script with it.

Examples:
  python scripts/fuzz/kernels.py --executions=100000
  python scripts/fuzz/kernels.py greedy_nms --seed=2
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Random = np.random.Generator
Arguments = tuple[Any, ...]

_REFUSALS = (ValueError, TypeError, MemoryError, OverflowError)
_ODD = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-30, 0.5, 1.0, 1e30, -3e38, 2.0**24, -1.0)
_WHOLE = (0, 1, -1, 2, 7, 8, 9, 255, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63), 2**64)


def floats(random: Random, *shape: int) -> NDArray[np.float32]:
    """Return numbers of a common size, of which some are odd."""
    scale = random.choice((1.0, 1.0, 20.0, 1e6))
    values = (random.standard_normal(shape) * scale).astype(np.float32)
    return np.where(random.random(shape) < 0.05, random.choice(_ODD, shape), values).astype(
        np.float32
    )


def count(random: Random, most: int = 20) -> int:
    """Return a length, often 0 or 1."""
    return int(random.choice([0, 1, int(random.integers(most + 1))]))


def whole(random: Random, most: int = 40) -> Any:
    """Return a whole number near the sizes of the arrays, or a hostile one."""
    if random.random() < 0.85:
        return int(random.integers(-2, most))
    return _WHOLE[random.integers(len(_WHOLE))]


def frame(random: Random) -> Any:
    """Return the four sides of a region, or what is none."""
    if random.random() < 0.03:
        return random.choice((3, 5)) * (0.0,)
    if random.random() < 0.5:
        x, y = random.uniform(-9, 9, 2)
        return tuple(float(v) for v in (x, y, x + random.uniform(0, 40), y + random.uniform(0, 40)))
    return tuple(float(value) for value in floats(random, 4))


def window(random: Random, image_hw: tuple[int, int]) -> Any:
    """Return a window, which may leave the image."""
    if random.random() < 0.1:
        return tuple(whole(random) for _ in range(random.choice((4, 4, 3, 5))))
    (y1, y2), (x1, x2) = (sorted(random.integers(0, side + 1, 2).tolist()) for side in image_hw)
    return x1, y1, x2, y2


def greedy_nms(random: Random) -> Arguments:
    """Boxes, groups, threshold."""
    n = count(random, 60)
    return floats(random, n, 4), random.integers(0, 3, n), float(floats(random, 1)[0])


def fast_nms(random: Random) -> Arguments:
    """Boxes and scores of groups, threshold, how many, marks."""
    g, n = count(random, 5), count(random, 30)
    keep = np.zeros((g, n), np.uint8)
    return floats(random, g, n, 4), floats(random, g, n), 0.5, whole(random), keep


def assemble_masks(random: Random) -> Arguments:
    """Prototypes, coefficients, relative boxes, padding, masks."""
    n, k, h, w = (count(random, most) for most in (5, 9, 12, 12))
    out = np.zeros((n, h, w), np.float32)
    arrays = floats(random, k, h, w), floats(random, n, k), floats(random, n, 4)
    return *arrays, float(floats(random, 1)[0]), out


def keep_large_parts(random: Random) -> Arguments:
    """Masks, and the share of their largest part that a part needs."""
    n, h, w = (count(random, most) for most in (4, 20, 20))
    return _bitmap(random, (n, h, w)), float(floats(random, 1)[0])


def mask_window(random: Random) -> Arguments:
    """A soft mask, its frame, height and width."""
    return floats(random, count(random), count(random)), frame(random), whole(random), whole(random)


def sample_mask(random: Random) -> Arguments:
    """A soft mask, its frame, a window, and its pixels."""
    inside = window(random, (count(random, 40), count(random, 40)))
    x1, y1, x2, y2 = (*inside, 0, 0)[:4] if len(inside) != 5 else inside[:4]
    size = tuple(min(max(int(side), 0), 200) for side in (y2 - y1, x2 - x1))
    return (
        floats(random, count(random), count(random)),
        frame(random),
        inside,
        _bitmap(random, size),
    )


def blend_mask(random: Random) -> Arguments:
    """A soft mask, its frame, a window, a canvas, a table."""
    image_hw = count(random, 40), count(random, 40)
    canvas = np.zeros((*image_hw, 3), np.uint8)
    table = random.integers(0, 256, (256, 3)).astype(np.uint8)
    soft_mask = floats(random, count(random), count(random))
    return soft_mask, frame(random), window(random, image_hw), canvas, table


def encode_mask(random: Random) -> Arguments:
    """A bitmap, its corner, height and width of the image."""
    h, w = count(random, 40), count(random, 40)
    if random.random() < 0.3:
        return _bitmap(random, (h, w)), *(whole(random) for _ in range(4))
    x, y = count(random), count(random)
    return _bitmap(random, (h, w)), x, y, y + h + count(random, 5), x + w + count(random, 5)


def depthwise_weight_gradient(random: Random) -> Arguments:
    """What was convolved, the gradients of the result, stride, padding, the weight's gradients."""
    b, h, w, c = (count(random, most) for most in (3, 12, 12, 40))
    size, stride = int(random.integers(1, 6)), int(random.integers(1, 4))
    padding = int(random.integers(size))
    rows, columns = (max((side + 2 * padding - size) // stride + 1, 0) for side in (h, w))
    arrays: list[Any] = [floats(random, b, *hw, c) for hw in ((h, w), (rows, columns))]
    if random.random() < 0.5:  # bfloat16 is the upper half of a float
        arrays = [np.ascontiguousarray(a.view(np.uint16)[..., 1::2]) for a in arrays]
    odd = random.random() < 0.1
    out = np.zeros((size, size, c), np.float32)
    return *arrays, whole(random) if odd else stride, whole(random) if odd else padding, out


def _bitmap(random: Random, size: tuple[int, ...]) -> NDArray[np.uint8]:
    bitmap = (random.random(size) < random.random()).astype(np.uint8)
    return bitmap if random.random() < 0.7 else random.integers(0, 256, size).astype(np.uint8)


KERNELS: dict[str, Callable[[Random], Arguments]] = {
    made.__name__: made
    for made in (
        *(greedy_nms, fast_nms, assemble_masks, keep_large_parts),
        *(mask_window, sample_mask, blend_mask, encode_mask),
        depthwise_weight_gradient,
    )
}
"""What makes the arguments of each kernel."""


def damaged(arguments: Arguments, random: Random) -> Arguments:
    """Change the shape, the layout or the type of one argument, or what it is at all."""
    place = int(random.integers(len(arguments)))
    value: Any = arguments[place]
    if isinstance(value, np.ndarray):
        changes: list[Callable[[], Any]] = [
            lambda: value[::2],
            lambda: value[..., ::2],
            lambda: value[..., ::-1],
            lambda: value.T,
            lambda: value[:-1],
            lambda: value[..., :-1],
            lambda: value[None],
            lambda: value.reshape(-1),
            lambda: np.concatenate((value, value)),
            lambda: np.asfortranarray(value),
            lambda: value.astype(random.choice(["f8", "i4", "u1", "f4"])),
            lambda: np.zeros((0,) * value.ndim, value.dtype),
            lambda: np.broadcast_to(value.sum(), value.shape),
            lambda: value.tolist(),
        ]
        value = changes[random.integers(len(changes))]()
    else:
        hostile = (None, "x", np.nan, np.inf, (), (1, 2), *_WHOLE)
        value = hostile[random.integers(len(hostile))]
    return *arguments[:place], value, *arguments[place + 1 :]


def attack(kernels: Any, name: str, executions: int, seed: int) -> Counter[str]:
    """Call a kernel so often; return how many calls returned, and how many of each refusal."""
    random, outcomes = np.random.default_rng(seed), Counter[str]()
    kernel, make = getattr(kernels, name), KERNELS[name]
    np.seterr(all="ignore")  # of arguments that are to be odd
    for _ in range(executions):
        arguments = make(random)
        if random.random() < 0.25:
            arguments = damaged(arguments, random)
        try:
            kernel(*arguments)
        except _REFUSALS as refusal:
            outcomes[type(refusal).__name__] += 1
        else:
            outcomes["returned"] += 1
    return outcomes


def load(file: Path | None) -> Any:
    """Load the kernels of this checkout, or another build of them; None where there are none."""
    if file is None:
        from layers.native import load_kernels  # which loads torch, too

        return load_kernels()
    spec = spec_from_file_location("kernels", file)
    if spec is None or spec.loader is None:
        return None
    kernels = module_from_spec(spec)
    spec.loader.exec_module(kernels)
    return kernels


def main(argv: Sequence[str] | None = None) -> int:
    """Attack one kernel or all."""
    form = argparse.RawDescriptionHelpFormatter
    flags = argparse.ArgumentParser("kernels.py", description=__doc__, formatter_class=form)
    flags.add_argument("kernel", nargs="?", default="all", choices=[*KERNELS, "all"])
    flags.add_argument("--executions", type=int, default=100_000, help="calls of each kernel")
    flags.add_argument("--seed", type=int, default=1, help="seed of the arguments")
    flags.add_argument("--kernels", type=Path, help="file of another build of the kernels")
    args = flags.parse_args(argv)
    kernels = load(args.kernels)
    if kernels is None:
        return 1
    for name in KERNELS if args.kernel == "all" else [args.kernel]:
        start = time.monotonic()
        outcomes = attack(kernels, name, args.executions, args.seed)
        told = ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.most_common())
        seconds = time.monotonic() - start
        print(f"{name}: {args.executions:,} executions, {seconds:.0f} s: {told}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

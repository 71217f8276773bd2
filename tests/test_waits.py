"""What makes the processor wait for a GPU, found in the syntax trees of the code that a GPU runs.

A line that does, or that looks so and is the processor's own, says why: `# sync: ...`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOT = (
    "layers/anchors.py",
    "layers/blocks.py",
    "layers/boxes.py",
    "layers/detect.py",
    "layers/instances.py",
    "layers/losses.py",
    "layers/masks.py",
    "layers/matching.py",
    "layers/nms.py",
    "layers/paste.py",
    "layers/structures.py",
    "layers/sync_batch_norm.py",
    "train.py",
    "yolact/engines/graphs.py",
    "yolact/engines/onnxruntime.py",
    "yolact/engines/pytorch.py",
    "yolact/models/criterion.py",
    "yolact/models/fpn.py",
    "yolact/models/head.py",
    "yolact/models/mask_rcnn.py",
    "yolact/models/mask_rescorer.py",
    "yolact/models/protonet.py",
    "yolact/models/segmenter.py",
    "yolact/models/yolact.py",
    "yolact/predictor.py",
    "yolact/results/thresholds.py",
    "yolact/training/optim.py",
)
# Methods and functions whose result, or its size, the processor has to know; and, of
# `new_tensor`, copies of ordinary memory.
WAITING = {
    *("item", "tolist", "cpu", "numpy", "nonzero", "argwhere", "masked_select", "bincount"),
    *("unique", "unique_consecutive", "synchronize", "new_tensor", "is_nonzero", "equal"),
    "repeat_interleave",
}
TRUTHS = {"any", "all", "isfinite", "isnan", "isinf", "logical_and", "logical_or", "logical_not"}
NUMBERS = {"sum", "max", "min", "amax", "amin", "argmax", "argmin", "mean", "norm", "count_nonzero"}


def waits(text: str) -> list[tuple[int, str]]:
    """Return the lines of a module that may wait for a GPU and do not say why, with their code."""
    lines, found = text.splitlines(), []
    for function in ast.walk(ast.parse(text)):
        if isinstance(function, (ast.FunctionDef, ast.Lambda)):
            masks = masks_of(function)
            found += [node for node in ast.walk(function) if may_wait(node, masks)]
    unjustified = {
        (node.lineno, ast.unparse(node))
        for node in found
        if not any("# sync: " in line for line in lines[node.lineno - 1 : node.end_lineno])
    }
    return sorted(unjustified)


def masks_of(function: ast.AST) -> set[str]:
    """Return the names in a function that stand for comparisons."""
    return {
        target.id
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and is_mask(node.value, set())
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def is_mask(node: ast.expr, names: set[str]) -> bool:
    """Tell an expression of truth values."""
    if isinstance(node, ast.BinOp):
        bits = isinstance(node.op, (ast.BitAnd, ast.BitOr, ast.BitXor))
        return bits and (is_mask(node.left, names) or is_mask(node.right, names))
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.Invert)
    if isinstance(node, ast.Name):
        return node.id in names
    if isinstance(node, ast.Compare):  # of tensors, not a chain of names and numbers
        return not isinstance(node.ops[0], (ast.Is, ast.IsNot, ast.In, ast.NotIn))
    return called(node) in TRUTHS


def called(node: ast.AST) -> str:
    """Return the last name of what is called; "" for what is no call."""
    function = node.func if isinstance(node, ast.Call) else None
    if isinstance(function, ast.Name):
        return function.id
    return function.attr if isinstance(function, ast.Attribute) else ""


def questions(node: ast.AST) -> Iterator[ast.expr]:
    """Yield what a statement or expression asks the truth of."""
    if isinstance(node, (ast.If, ast.While, ast.IfExp, ast.Assert)):
        yield node.test
    elif isinstance(node, ast.BoolOp):
        yield from node.values
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand


def may_wait(node: ast.AST, masks: set[str]) -> bool:
    """Tell what may make the processor wait; `masks` are names of truth values."""
    name = called(node)
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        return any(is_mask(part, masks) for part in parts)
    asked = (part for test in questions(node) for part in ast.walk(test))
    if any(called(part) in TRUTHS | NUMBERS and is_method(part) for part in asked):
        return True
    if not isinstance(node, ast.Call):
        return False
    if name == "where":
        return len(node.args) == 1 and ast.unparse(node.func) == "torch.where"
    if name == "to":
        return [ast.unparse(argument) for argument in node.args] == ["'cpu'"]
    if name in ("tensor", "as_tensor"):
        devices = [k.value for k in node.keywords if k.arg == "device"]
        return any(ast.unparse(device) != "'cpu'" for device in devices)
    if name in ("bool", "int", "float"):
        parts = [part for argument in node.args for part in ast.walk(argument)]
        compared = name == "bool" and any(isinstance(a, ast.Compare) for a in node.args)
        return compared or any(called(p) in TRUTHS | NUMBERS and is_method(p) for p in parts)
    return name in WAITING and is_method(node)


def is_method(node: ast.expr) -> bool:
    """Tell a call of something's attribute, but not of what is no tensor's."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return False
    return ast.unparse(node.func.value) not in ("math", "np")


@pytest.mark.parametrize("path", HOT)
def test_waits_for_a_gpu_are_justified(path: str) -> None:
    assert waits((ROOT / path).read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "x.item()",
        "x.sum().tolist()",
        "x.cpu()",
        "x.numpy()",
        "x.to('cpu')",
        "bool(x.any())",
        "bool(x > 0)",
        "float(x.sum() / 2)",
        "x if x.sum() > 0 else y",
        "x.sum() > 0 and y",
        "x.repeat_interleave(y)",
        "int(x.sum())",
        "x if x.any() else 0",
        "not x.all()",
        "x.any() and y",
        "x[x > 0]",
        "x[~y]",
        "x[0, (x > 0) & y]",
        "x.nonzero()",
        "torch.nonzero(x)",
        "torch.where(x > 0)",
        "torch.bincount(x)",
        "x.new_tensor((1, 2))",
        "torch.tensor((1, 2), device=x.device)",
        "torch.cuda.synchronize()",
    ],
)
def test_what_waits_is_found(line: str) -> None:
    text = f"def f(x, y):\n    return {line}"
    assert [number for number, _ in waits(text)] == [2] * len(waits(text))
    assert waits(text)
    assert not waits(f"{text}  # sync: the number of detections")
    assert waits(f"{text}  # sync")


def test_names_of_masks_are_followed() -> None:
    assert waits("def f(x):\n    keep = x > 0\n    return x[keep]") == [(3, "x[keep]")]


@pytest.mark.parametrize(
    "line",
    [
        "x[y]",
        "x[0]",
        "x[1:]",
        "torch.where(x > 0, x, y)",
        "torch.tensor((1, 2), device='cpu')",
        "len(x) > 0",
        "math.isfinite(x)",
        "any(x)",
    ],
)
def test_what_does_not_wait_passes(line: str) -> None:
    assert not waits(f"def f(x, y):\n    return {line}")

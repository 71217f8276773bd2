from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from layers.anchors import AnchorGenerator
from layers.boxes import encode_boxes
from layers.matching import match_anchors
from layers.structures import Predictions, Target
from yolact import distributed
from yolact.config import LossConfig
from yolact.models.criterion import Criterion, _gather
from yolact.models.mask_rescorer import MaskRescorer

SIDE, CLASSES, PROTOTYPES = 64, 3, 4
Row = tuple[float, float, float, float]
WHOLE: Row = (0, 0, 64, 64)
NAN, INF = float("nan"), float("inf")


def target(rows: list[Row], crowds: int = 0) -> Target:
    """Rectangles in pixels, each with its own mask; the last ones are crowds."""
    boxes = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
    masks = torch.zeros(len(rows), SIDE, SIDE, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(
        masks, boxes.nan_to_num().round().int().tolist(), strict=True
    ):
        mask[y1:y2, x1:x2] = True
    labels = torch.arange(len(rows)) % CLASSES
    return Target(boxes, labels, masks, torch.arange(len(rows)) >= len(rows) - crowds)


def predict(images: int, scale: float = 1.0, grid: int = 16, seed: int = 0) -> Predictions:
    """Random predictions over the anchors of two levels, with gradients."""
    levels = [torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 4, 4)]
    anchors = AnchorGenerator([[12], [28]], [1, 0.5, 2], SIDE, False)(levels)
    rng = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return (scale * torch.randn(images, *shape, generator=rng)).requires_grad_()

    return Predictions(
        class_logits=random(len(anchors), CLASSES + 1),
        box_deltas=random(len(anchors), 4),
        coefficients=random(len(anchors), PROTOTYPES),
        prototypes=random(PROTOTYPES, grid, grid),
        anchors=anchors,
        semantic_logits=random(CLASSES, 8, 8),
    )


def criterion(rescoring: bool = False, **changes: Any) -> Criterion:
    torch.manual_seed(0)
    return Criterion(LossConfig(**changes), MaskRescorer(CLASSES) if rescoring else None)


def gradients(predictions: Predictions) -> dict[str, Tensor]:
    parts = {k: v for k, v in predictions._asdict().items() if k != "anchors"}
    return {k: torch.zeros_like(v) if v.grad is None else v.grad for k, v in parts.items()}


TARGETS: dict[str, Target] = {
    "nothing": target([]),
    "only crowds": target([(0, 0, 30, 30), (30, 30, 60, 60)], crowds=2),
    "one": target([(10, 10, 40, 30)]),
    "objects and a crowd": target([(1, 2, 30, 40), (20, 20, 60, 60), (5, 5, 50, 50)], crowds=1),
    "without area": target([(10, 10, 10, 10), (10, 10, 10, 40), (30, 30, 20, 20)]),
    "not finite": target(
        [(NAN, NAN, NAN, NAN), (0, 0, 1e30, 1e30), (0, 0, NAN, 9), (0, 0, INF, 9)]
    ),
    "smaller than a pixel": target([(10, 10, 10.01, 10.01), (20.2, 20.2, 20.7, 20.4)]),
    "outside": target([(-50, -50, -40, -40), (100, 100, 120, 130)]),
    "many": target([(i % 8 * 8, i // 8 * 8, i % 8 * 8 + 8, i // 8 * 8 + 8) for i in range(64)]),
}


@pytest.mark.parametrize("scale", [1.0, 1e4, -1e4])
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("rescoring", [False, True], ids=["plain", "rescoring"])
@pytest.mark.parametrize("newer", [{}, {"box_loss": "giou", "dice_weight": 1.0}], ids=["", "newer"])
def test_losses_and_gradients_are_finite(
    name: str, scale: float, rescoring: bool, newer: dict[str, Any]
) -> None:
    predictions = predict(2, scale, grid=64 if rescoring else 16)
    losses = criterion(rescoring, **newer)(predictions, [TARGETS[name], TARGETS["nothing"]])
    expected = ["box", "confidence", "mask", "semantic"] + ["mask_iou"] * rescoring
    assert list(losses) == expected
    assert all(loss.shape == () for loss in losses.values())
    assert all(loss.isfinite() and loss >= 0 for loss in losses.values()), losses
    torch.stack(list(losses.values())).sum().backward()
    for part, gradient in gradients(predictions).items():
        assert gradient.isfinite().all(), part


@pytest.mark.parametrize("name", ["nothing", "only crowds", "without area"])
def test_images_without_objects_teach_background_only(name: str) -> None:
    predictions = predict(1)
    losses = criterion(True)(predictions, [TARGETS[name]])
    assert losses["box"] == losses["mask"] == losses["mask_iou"] == 0
    assert losses["confidence"] > 0
    losses["confidence"].backward()
    learned = gradients(predictions)["class_logits"][0]
    rows = learned.abs().sum(dim=1) > 0
    assert rows.sum() == 3  # as many negatives as one positive would bring
    assert (learned[rows][:, 0] < 0).all()  # towards background


def test_giou_and_dice_take_part() -> None:
    targets = [TARGETS["one"]]
    plain = criterion()(predict(1), targets)
    giou = criterion(box_loss="giou", box_weight=2.0)(predict(1), targets)
    dice = criterion(dice_weight=0.5)(predict(1), targets)
    assert 0 < giou["box"] <= 2 * 2.0  # 1 - GIoU is at most 2, whatever the distance
    assert plain["mask"] < dice["mask"] <= plain["mask"] + 0.5 * LossConfig().mask_weight
    assert giou["mask"] == plain["mask"]
    assert dice["box"] == plain["box"]


def test_boxes_without_area_are_as_if_absent() -> None:
    good = (10, 10, 40, 30)
    with_bad = criterion()(predict(1), [target([good, (20, 20, 20, 50)])])
    alone = criterion()(predict(1), [target([good])])
    assert {k: v.item() for k, v in with_bad.items()} == {k: v.item() for k, v in alone.items()}


def test_every_part_of_a_positive_learns() -> None:
    predictions = predict(1, grid=64)
    losses = criterion(True)(predictions, [TARGETS["one"]])
    torch.stack(list(losses.values())).sum().backward()
    assert all(gradient.abs().sum() > 0 for gradient in gradients(predictions).values())


def test_boxes_in_double_precision_are_rounded_once() -> None:
    """Anchors that overlap an object alike are told apart by the last bits of its box."""
    torch.manual_seed(0)
    relative = torch.rand(500, 2).sort(dim=0).values.repeat(1, 2)
    relative[:, 2:] += torch.rand(500, 2)
    target = Target(
        relative.double() * 7,
        torch.zeros(500).long(),
        torch.ones(500, 7, 7) > 0,
        torch.zeros(500) > 0,
    )
    assert torch.equal(_gather([target], torch.device("cpu")).boxes, relative)


def test_box_loss_by_hand() -> None:
    predictions = predict(1)
    box = predictions.anchors.new_tensor([[10, 10, 22, 22]])
    overlapping = criterion(
        positive_iou=1.1, negative_iou=1.1
    )  # the forced anchor alone is positive
    losses = overlapping(predictions, [target([(10, 10, 22, 22)])])
    losses["box"].backward()
    anchor = gradients(predictions)["box_deltas"][0].abs().sum(dim=1).argmax()
    deltas = encode_boxes(box / SIDE, predictions.anchors[anchor][None])
    distance = (predictions.box_deltas[0, anchor] - deltas[0]).abs()
    smooth = torch.where(distance < 1, distance**2 / 2, distance - 0.5).sum()
    torch.testing.assert_close(losses["box"], 1.5 * smooth)


def matched(predictions: Predictions, truth: Target, iou: float = 0.5) -> list[tuple[int, int]]:
    """Anchor and object of each positive."""
    boxes, no_crowds = truth.boxes / SIDE, torch.zeros(0, 4)
    matches = match_anchors(
        predictions.anchors, boxes, truth.labels, [len(boxes)], [no_crowds], iou, iou
    )
    positive = (matches.classes[0] > 0).nonzero().flatten().tolist()
    return [(anchor, int(matches.objects[0, anchor])) for anchor in positive]


def test_mask_and_mask_iou_losses_by_hand() -> None:
    predictions = predict(1, grid=SIDE)
    # The first is too small to teach its quality: the labels of the others must not move up.
    truth = target([(3, 3, 8, 8), (10, 10, 40, 30), (24, 20, 60, 62)])
    rescored = criterion(True)
    losses = rescored(predictions, [truth])
    assert rescored.mask_rescorer is not None
    pairs = matched(predictions, truth)
    assert {index for _, index in pairs} == {0, 1, 2}
    mask, quality = torch.zeros(()), torch.zeros(())
    for anchor, index in pairs:
        x1, y1, x2, y2 = truth.boxes[index].int().tolist()
        logits = torch.tensordot(predictions.coefficients[0, anchor], predictions.prototypes[0], 1)
        true, soft = truth.masks[index].float(), torch.zeros(SIDE, SIDE)
        # The box and a margin of one cell.
        inside = (slice(max(y1 - 1, 0), y2 + 1), slice(max(x1 - 1, 0), x2 + 1))
        entropy = F.binary_cross_entropy_with_logits(logits[inside], true[inside], reduction="sum")
        mask = mask + entropy / ((x2 - x1) * (y2 - y1))
        if true.sum() > 25:
            soft[inside] = logits[inside].sigmoid()
            found, label = (soft > 0.5).float(), truth.labels[index : index + 1]
            iou = (found * true).sum() / torch.maximum(found, true).sum()
            quality = quality + F.smooth_l1_loss(rescored.mask_rescorer(soft[None], label)[0], iou)
    torch.testing.assert_close(losses["mask"], 6.125 * mask / len(pairs))
    torch.testing.assert_close(losses["mask_iou"], 25 * quality / len(pairs))


def test_a_part_of_the_masks_is_drawn_at_random_and_keeps_its_objects() -> None:
    truth = target([(4, 4, 28, 30), (34, 30, 60, 60)])
    predictions = predict(1, grid=SIDE)
    # One prototype for each object, and coefficients that choose the right one.
    prototypes = predictions.prototypes.detach().clone()
    prototypes[0, :2] = 40 * truth.masks.float() - 20
    coefficients = torch.zeros_like(predictions.coefficients)
    pairs = matched(predictions, truth, 0.2)
    for anchor, index in pairs:
        coefficients[0, anchor, index] = 1
    right = predictions._replace(prototypes=prototypes, coefficients=coefficients)
    assert len(pairs) > 2
    wrong, losses = predictions, set()
    for seed in range(6):
        few = criterion(masks_to_train=2, positive_iou=0.2, negative_iou=0.2)
        torch.manual_seed(seed)
        assert few(right, [truth])["mask"] < 1e-6
        losses.add(few(wrong, [truth])["mask"].item())
    assert len(losses) > 1


def test_settings_reach_matching_and_the_choice_of_negatives() -> None:
    crowd = [target([WHOLE], crowds=1)]
    # Most anchors lie in the crowd, and the hardest of all among them.
    some, every = (
        criterion(crowd_overlap=share)(predict(1), crowd)["confidence"] for share in (0.7, 2.0)
    )
    assert 0 < some < every
    one = [TARGETS["one"]]
    few, more = (criterion(negative_ratio=n)(predict(1), one)["confidence"] for n in (1, 3))
    assert 0 < few < more


def test_crowds_without_bounds_are_as_if_absent() -> None:
    good = (10, 10, 40, 30)
    with_bad = criterion()(predict(1), [target([good, (0, 0, INF, INF)], crowds=1)])
    alone = criterion()(predict(1), [target([good])])
    assert {k: v.item() for k, v in with_bad.items()} == {k: v.item() for k, v in alone.items()}


def test_positives_are_those_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = criterion()(predict(1), [TARGETS["one"]])
    # A second process without positives: their mean is half of ours.
    monkeypatch.setattr(distributed, "all_reduce_mean", lambda value: value / 2)
    shared = criterion()(predict(1), [TARGETS["one"]])
    for name in ("box", "confidence", "mask"):
        torch.testing.assert_close(shared[name], 2 * alone[name])
    torch.testing.assert_close(shared["semantic"], alone["semantic"])


@pytest.mark.parametrize(
    ("weight", "name"),
    [
        ("box_weight", "box"),
        ("confidence_weight", "confidence"),
        ("mask_weight", "mask"),
        ("semantic_weight", "semantic"),
        ("mask_iou_weight", "mask_iou"),
    ],
)
def test_each_weight_scales_its_loss(weight: str, name: str) -> None:
    targets = [TARGETS["one"]]
    plain = criterion(True, **{weight: 1.0})(predict(1, grid=64), targets)
    triple = criterion(True, **{weight: 3.0})(predict(1, grid=64), targets)
    for key, value in plain.items():
        factor = 3 if key == name else 1
        assert value > 0
        torch.testing.assert_close(triple[key], factor * value)


def positives(predictions: Predictions, truth: Target) -> int:
    losses = criterion()(predictions, [truth])
    losses["box"].backward()
    count = int((gradients(predictions)["box_deltas"][0].abs().sum(dim=1) > 0).sum())
    predictions.box_deltas.grad = None
    return count


def test_a_batch_is_averaged_over_its_positives() -> None:
    truths = [TARGETS["many"], TARGETS["one"], TARGETS["nothing"]]
    batch = predict(3)
    together = criterion()(batch, truths)
    singles, counts = [], []
    for i, truth in enumerate(truths):
        parts = {k: v[i : i + 1].detach().requires_grad_() for k, v in batch._asdict().items()}
        alone = Predictions(**{**parts, "anchors": batch.anchors})
        singles.append(criterion()(alone, [truth]))
        counts.append(positives(alone, truth))
    assert counts[0] > counts[1] > counts[2] == 0
    for name in ("box", "confidence", "mask"):
        weighted = sum(s[name] * max(count, 1) for s, count in zip(singles, counts, strict=True))
        torch.testing.assert_close(together[name], weighted / sum(counts))
    semantic = torch.stack([s["semantic"] for s in singles]).mean()
    torch.testing.assert_close(together["semantic"], semantic)


def test_a_part_of_the_masks_stands_for_all() -> None:
    # All anchors predict the same mask for the one object, so any part gives the whole loss.
    predictions = predict(1)
    same = predictions.coefficients[:, :1].detach().expand(-1, len(predictions.anchors), -1)
    predictions = predictions._replace(coefficients=same)
    truth = [target([WHOLE])]
    whole = criterion(positive_iou=0.1, negative_iou=0.1)(predictions, truth)
    part = criterion(positive_iou=0.1, negative_iou=0.1, masks_to_train=2)(predictions, truth)
    torch.testing.assert_close(part["mask"], whole["mask"])


@pytest.mark.parametrize(("area", "learned"), [(599.0, True), (600.0, False)])
def test_small_masks_do_not_teach_their_quality(area: float, learned: bool) -> None:
    truth = [target([(10, 10, 40, 30)])]  # 600 cells of a 64 x 64 prototype grid
    losses = criterion(True, discard_mask_area=area)(predict(1, grid=64), truth)
    assert (losses["mask_iou"] > 0) == learned


def test_predictions_of_evaluation_mode() -> None:
    predictions = predict(1)._replace(semantic_logits=None)
    with pytest.raises(ValueError, match="training mode"):
        criterion()(predictions, [TARGETS["one"]])


def test_low_precision_predictions_are_weighed_in_float32() -> None:
    predictions = predict(1)
    low = Predictions(*(part.detach().bfloat16() for part in predictions))
    low = low._replace(anchors=predictions.anchors)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = criterion()(low, [TARGETS["one"]])
    exact = criterion()(Predictions(*(part.float() for part in low)), [TARGETS["one"]])
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, exact[name])

import pytest
import torch
from torch import Tensor

from layers.detect import Nms, detect
from layers.structures import Predictions

KINDS: tuple[Nms, ...] = ("fast", "cross_class", "greedy")
FIELDS = ("boxes", "scores", "labels", "coefficients")


def predictions(logits: Tensor, deltas: Tensor | None = None) -> Predictions:
    """Anchors in a row, not overlapping, for (B, P, C+1) logits."""
    batch, count = logits.shape[:2]
    x = (torch.arange(count) + 0.5) / max(count, 1)
    side = torch.full((count,), 1 / max(count, 1))
    anchors = torch.stack((x, torch.full((count,), 0.5), side, side), dim=1)
    coefficients = torch.linspace(-1, 1, batch * count * 2).reshape(batch, count, 2)
    deltas = torch.zeros(batch, count, 4) if deltas is None else deltas
    return Predictions(logits, deltas, coefficients, torch.zeros(batch, 2, 4, 4), anchors)


def logits_of(rows: list[list[float]]) -> Tensor:
    """Logits whose softmax are these probabilities, background first."""
    return torch.tensor([rows]).log()


@pytest.mark.parametrize("nms", KINDS)
@pytest.mark.parametrize(
    "logits",
    [
        torch.zeros(1, 0, 4),
        torch.tensor([[[10.0, 0.0, 0.0, 0.0]] * 5]),
        torch.full((1, 5, 81), -1e4).index_fill(2, torch.tensor(0), 1e4),
    ],
    ids=["no anchors", "background", "extreme background"],
)
def test_nothing_above_the_threshold(nms: Nms, logits: Tensor) -> None:
    (found,) = detect(predictions(logits), nms=nms)
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
    assert found.coefficients.shape == (0, 2)


def test_no_images() -> None:
    assert detect(predictions(torch.zeros(0, 3, 4))) == []


@pytest.mark.parametrize("nms", KINDS)
def test_one_object(nms: Nms) -> None:
    raw = predictions(logits_of([[0.98, 0.01, 0.01], [0.1, 0.04, 0.86]]))
    (found,) = detect(raw, max_detections=1, nms=nms)
    assert len(found) == 1
    assert found.labels.tolist() == [1]  # 0-based: the third logit is class 1
    assert found.scores.tolist() == pytest.approx([0.86])
    torch.testing.assert_close(found.boxes, torch.tensor([[0.5, 0.25, 1.0, 0.75]]))
    torch.testing.assert_close(found.coefficients, raw.coefficients[0, 1:])


def test_deltas_move_the_box() -> None:
    raw = predictions(logits_of([[0.1, 0.9]]), torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]))
    torch.testing.assert_close(detect(raw)[0].boxes, torch.tensor([[0.1, 0.0, 1.1, 1.0]]))


def test_a_box_that_passed_keeps_its_low_scores_in_fast_nms_only() -> None:
    raw = predictions(logits_of([[0.1, 0.89, 0.01]]))
    counts = {nms: len(detect(raw, nms=nms)[0]) for nms in KINDS}
    assert counts == {"fast": 2, "cross_class": 1, "greedy": 1}


@pytest.mark.parametrize("nms", ["soft", "", "FAST", None])
def test_unknown_nms(nms: str) -> None:
    with pytest.raises(ValueError, match="fast, cross_class, greedy"):
        detect(predictions(torch.zeros(1, 1, 2)), nms=nms)  # type: ignore[arg-type]


@pytest.mark.parametrize("nms", KINDS)
def test_a_batch_equals_its_images(nms: Nms) -> None:
    rng = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(4, 30, 6, generator=rng)
    logits[2] = torch.tensor([9.0, 0, 0, 0, 0, 0])  # an image without objects
    raw = predictions(logits, torch.randn(4, 30, 4, generator=rng))
    together = detect(raw, iou_threshold=0.3, nms=nms)
    assert [len(found) > 0 for found in together] == [True, True, False, True]
    for i, found in enumerate(together):
        single = Predictions(*(part[i : i + 1] for part in raw[:4]), raw.anchors)
        (alone,) = detect(single, iou_threshold=0.3, nms=nms)
        for name in FIELDS:
            torch.testing.assert_close(getattr(found, name), getattr(alone, name), rtol=0, atol=0)
        assert (found.scores.diff() <= 0).all()


@pytest.mark.parametrize("nms", KINDS)
def test_half_precision_predictions_are_decoded_in_float32(nms: Nms) -> None:
    rng = torch.Generator().manual_seed(0)
    raw = predictions(torch.randn(1, 40, 4, generator=rng), torch.randn(1, 40, 4, generator=rng))
    half = Predictions(*(part.bfloat16() for part in raw[:4]), raw.anchors)
    exact = Predictions(*(part.float() for part in half[:4]), raw.anchors)
    (found,), (expected,) = detect(half, nms=nms), detect(exact, nms=nms)
    assert len(found) > 5
    for name in FIELDS:
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=0)


@pytest.mark.parametrize("nms", KINDS)
@pytest.mark.parametrize(("odds", "count"), [(0.0, 0), (1e-4, 1)])
def test_the_threshold_itself_is_not_enough(nms: Nms, odds: float, count: int) -> None:
    raw = predictions(torch.tensor([[[0.0, odds]]]))  # a probability of 0.5 + odds / 4
    (found,) = detect(raw, score_threshold=0.5, nms=nms)
    assert len(found) == count


@pytest.mark.parametrize(("nms", "expected"), [("fast", 2), ("cross_class", 3), ("greedy", 2)])
def test_limits(nms: Nms, expected: int) -> None:
    raw = predictions(logits_of([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]]))
    (found,) = detect(raw, top_k=3, max_detections=2, nms=nms)
    assert found.scores.tolist() == pytest.approx([0.9, 0.8, 0.7][:expected])


@pytest.mark.parametrize("nms", KINDS)
@pytest.mark.parametrize("size", [-1e4, 80.0, 400.0, 1e4])
def test_a_wild_box_does_not_harm_the_others(nms: Nms, size: float) -> None:
    # The first anchor, whose size runs away, scores best.
    deltas = torch.zeros(1, 3, 4)
    deltas[0, 0, 2:] = size
    raw = predictions(logits_of([[0.01, 0.99], [0.2, 0.8], [0.3, 0.7]]), deltas)
    (found,) = detect(raw, nms=nms)
    assert {0.8, 0.7} <= {round(score, 4) for score in found.scores.tolist()}
    assert not found.boxes.isnan().any()


@pytest.mark.parametrize("nms", KINDS)
@pytest.mark.parametrize("classes", [1, 5])
def test_a_higher_threshold_leaves_out_and_changes_nothing(nms: Nms, classes: int) -> None:
    for seed in range(20):
        rng = torch.Generator().manual_seed(seed)
        logits = (4 * torch.randn(1, 900, classes + 1, generator=rng)).bfloat16()  # many ties
        raw = predictions(logits, 6 * torch.randn(1, 900, 4, generator=rng))
        (every,) = detect(raw, score_threshold=0.05, nms=nms)
        (few,) = detect(raw, score_threshold=0.6, nms=nms)
        expected = every[every.scores > 0.6]
        assert len(expected) > 0
        for name in FIELDS:
            torch.testing.assert_close(
                getattr(few[few.scores > 0.6], name), getattr(expected, name), rtol=0, atol=0
            )

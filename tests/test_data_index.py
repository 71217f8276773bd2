from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as mask_utils
from support.run_lengths import parse_counts

from data.annotations import run_lengths
from data.annotations import table as index
from data.annotations.run_lengths import cover_exactly
from data.annotations.table import Ragged

ROWS: list[list[int]] = [[], [5], [], [1, 2, 3], [7, 7], []]


def ragged(rows: list[list[int]]) -> Ragged:
    return Ragged.of_lengths(np.array(sum(rows, []), np.int64), [len(row) for row in rows])


def rows_of(found: Ragged) -> list[list[int]]:
    return [found[row].tolist() for row in range(len(found))]


@pytest.mark.parametrize("rows", [[], [[]], [[4]], ROWS])
def test_ragged_round_trip(rows: list[list[int]]) -> None:
    assert rows_of(ragged(rows)) == rows
    assert ragged(rows).lengths.tolist() == [len(row) for row in rows]
    assert ragged(rows).sums().tolist() == [sum(row) for row in rows]


@pytest.mark.parametrize("order", [[], [3], [5, 4, 3, 2, 1, 0], [1, 1, 3, 0, 1]])
@pytest.mark.parametrize("block", [1, 2, 100])
def test_ragged_take(order: list[int], block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_BLOCK", block)
    taken = ragged(ROWS).take(np.array(order, np.int64))
    assert rows_of(taken) == [ROWS[row] for row in order]


@pytest.mark.parametrize(("first", "end"), [(0, 0), (0, 6), (2, 5), (6, 6)])
def test_ragged_part(first: int, end: int) -> None:
    assert rows_of(ragged(ROWS).part(first, end)) == ROWS[first:end]


def test_ragged_rows_are_counted_from_both_ends() -> None:
    assert ragged(ROWS)[-3].tolist() == [1, 2, 3]
    for row in (6, -7):
        with pytest.raises(IndexError):
            ragged(ROWS)[row]


def test_texts_come_back() -> None:
    texts = ["", "a.jpg", "Straße 犬.jpg", "\udcff.jpg", "\x00"]
    kept = Ragged.of_texts(texts)
    assert [kept.text(row) for row in range(len(texts))] == texts


def test_no_run_lengths_to_check() -> None:
    assert cover_exactly(Ragged.of_texts([]), np.zeros(0, np.int64)).shape == (0,)


@pytest.mark.parametrize("chunk", [1, 50, 2**16])
def test_run_lengths_are_checked_in_chunks(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sound and broken ones beside each other, so that none must spoil its neighbours."""
    monkeypatch.setattr(run_lengths, "_CHUNK", chunk)
    rng = np.random.default_rng(0)
    texts, pixels = [], []
    for _ in range(60):
        bitmap = rng.integers(0, 2, rng.integers(1, 40, 2), np.uint8)
        text = mask_utils.encode(np.asfortranarray(bitmap))["counts"].decode()
        longer = mask_utils.encode(np.ones((300, 500), np.uint8, order="F"))["counts"].decode()
        texts += [text, text + "o", "", text[:-1] + "\x7f", longer, "ooooooo0", "O1", text + text]
        pixels += [bitmap.size] * 4 + [150_000] + [bitmap.size] * 3
    expected = [
        min(counts, default=0) >= 0 and sum(counts) == size
        for counts, size in zip(map(parse_counts, texts), pixels, strict=True)
    ]
    assert cover_exactly(Ragged.of_texts(texts), np.array(pixels)).tolist() == expected
    assert 120 <= sum(expected) < 200


@pytest.mark.parametrize(
    ("text", "pixels", "expected"),
    [
        ("5", 5, True),
        ("50", 5, True),
        ("5O", 4, False),  # 5, -1
        ("O", -1, False),
        ("3123M", 9, False),  # 3, 1, 2, 4, -1
        ("3123N", 10, True),  # 3, 1, 2, 4, 0
    ],
)
def test_no_run_is_negative(text: str, pixels: int, expected: bool) -> None:
    assert sum(parse_counts(text)) == pixels
    assert cover_exactly(Ragged.of_texts([text]), np.array([pixels])).tolist() == [expected]

"""COCO's compressed run lengths read number by number, to compare with."""

from __future__ import annotations


def parse_counts(text: str) -> list[int]:
    """Decompress the lengths of runs; a text that is no such thing gives [-1]."""
    counts: list[int] = []
    number = place = 0
    for letter in text:
        digit = ord(letter) - 48
        if not 0 <= digit < 64 or place == 7:
            return [-1]
        number |= (digit & 31) << 5 * place
        place += 1
        if not digit & 32:
            if digit & 16:
                number -= 1 << 5 * place
            counts.append(number + counts[-2] if len(counts) > 2 else number)
            number = place = 0
    return [-1] if place else counts

"""What a cell of a CSV file of labels may hold: flags, class numbers, other numbers, several labels. Pure Python."""

from __future__ import annotations

import math

SEPARATOR = "|"  # of the labels in a cell
FLAGS = {"0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0, "false": 0.0, "true": 1.0}
_DIGITS = 18  # of a class number


def is_flag(text: str) -> bool:
    """Whether a cell says that a label is absent or present."""
    return text.lower() in FLAGS


def is_number(text: str) -> bool:
    """Whether a cell is the number of a class."""
    return text.isdecimal() and len(text) <= _DIGITS


def is_real(text: str) -> bool:
    """Whether a cell is a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False

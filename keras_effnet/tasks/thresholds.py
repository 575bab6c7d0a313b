"""`thresholds.csv`: the probability from which on each label is present, chosen on validation images. Pure Python."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from keras_effnet.errors import UserError

THRESHOLDS = "thresholds.csv"
HEADER = ("label", "threshold")


def read_thresholds(path: Path, names: Sequence[str]) -> tuple[float, ...]:
    """Read the threshold of each label.

    Args:
        path: Path of the file, with the columns `label` and `threshold`.
        names: Names of the labels; the result is in their order.

    Raises:
        UserError: The file cannot be read, or has no threshold in [0, 1] for a label.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            found = {row[HEADER[0]]: float(row[HEADER[1]]) for row in csv.DictReader(stream)}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); remove it to decide at a probability of 0.5.") from None
    for name in names:
        value = found.get(name, math.nan)
        if not 0 <= value <= 1:
            fault = f"{value:g} for" if name in found else "no threshold of"
            raise UserError(f"{path} has {fault} {name!r}; remove it to decide at a probability of 0.5.")
    return tuple(found[name] for name in names)


def write_thresholds(path: Path, names: Sequence[str], thresholds: Sequence[float]) -> None:
    """Write the threshold of each label."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows((name, f"{each:.6g}") for name, each in zip(names, thresholds, strict=True))

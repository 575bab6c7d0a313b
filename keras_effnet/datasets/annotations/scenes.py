"""Embedded scenes for detection: scikit-learn's digits among fragments of digits. numpy and scikit-learn."""

from __future__ import annotations

import numpy as np

from keras_effnet.datasets.digits import plain_digits
from keras_effnet.errors import UserError, one_of, whole_number

_SPLITS = ("train", "val", "test")
_LARGEST = 640  # pixels of a side


def digit_scenes(
    count: int, size: int = 96, *, split: str = "train", seed: int = 0
) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Generate scenes with one to four digits at random places and sizes among fragments of other digits.

    Digits overlap by a fifth of the smaller one at most. Splits draw from different handwriting.

    Args:
        count: Int, number of scenes.
        size: Int, side of a scene in pixels, 48 to 640.
        split: `"train"`, `"val"` or `"test"`.
        seed: Int; the same seed gives the same scenes.

    Returns:
        Images, a uint8 array of shape `(count, size, size, 3)`; for every scene a float32 array of boxes (y0, x0,
        y1, x1) in pixels, and an int32 array of digits.

    Raises:
        UserError: An argument is out of range.

    Example:

    >>> images, boxes, labels = digit_scenes(100)
    """
    count = whole_number("count", count)
    if not 48 <= whole_number("size", size) <= _LARGEST:
        raise UserError(f"size of digits-scenes must lie in 48..{_LARGEST} pixels, got {size}.")
    digits = plain_digits(0).splits[one_of("split", split, _SPLITS)]
    glyphs = digits.pixels[..., 0]
    rng = np.random.default_rng((seed, _SPLITS.index(split)))
    images = np.zeros((count, size, size), "uint8")
    boxes, labels = [], []
    for image in images:
        for _ in range(6):
            row, column = rng.integers(0, 5, size=2)
            fragment = glyphs[rng.integers(len(glyphs))][row : row + 4, column : column + 4]
            _draw(image, fragment, *_place(rng, size, rng.uniform(0.08, 0.16)))
        found: list[np.ndarray] = []
        chosen = []
        for index in rng.integers(len(glyphs), size=rng.integers(1, 5)):
            y, x, side = _place(rng, size, rng.uniform(0.2, 0.45))
            box = _ink(glyphs[index], y, x, side)
            if all(_covered(box, other) <= 0.2 for other in found):
                _draw(image, glyphs[index], y, x, side)
                found.append(box)
                chosen.append(digits.labels[index])
        boxes.append(np.array(found, "float32"))
        labels.append(np.array(chosen, "int32"))
    return np.repeat(images[..., None], 3, axis=-1), boxes, labels


def _place(rng: np.random.Generator, size: int, share: float) -> tuple[int, int, int]:
    """Top, left and side of a square in a scene."""
    side = max(2, round(share * size))
    y, x = rng.integers(0, size - side + 1, size=2)
    return int(y), int(x), side


def _draw(image: np.ndarray, patch: np.ndarray, y: int, x: int, side: int) -> None:
    from PIL import Image

    drawn = np.asarray(Image.fromarray(patch).resize((side, side), Image.Resampling.BILINEAR))
    window = image[y : y + side, x : x + side]
    np.maximum(window, drawn, out=window)


def _ink(glyph: np.ndarray, y: int, x: int, side: int) -> np.ndarray:
    """Box of the written part of a digit of 8x8 pixels."""
    written = glyph > 40
    rows, columns = np.flatnonzero(written.any(axis=1)), np.flatnonzero(written.any(axis=0))
    step = side / glyph.shape[0]
    return np.array(
        [y + rows[0] * step, x + columns[0] * step, y + (rows[-1] + 1) * step, x + (columns[-1] + 1) * step]
    )


def _covered(box: np.ndarray, other: np.ndarray) -> float:
    """Intersection of two boxes as a share of the smaller one."""
    sides = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
    smaller = min(np.prod(box[2:] - box[:2]), np.prod(other[2:] - other[:2]))
    return float(np.prod(np.maximum(sides, 0)) / smaller)

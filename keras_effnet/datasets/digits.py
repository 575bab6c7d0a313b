"""Embedded datasets: scikit-learn's handwritten digits, plain and in cluttered scenes. NumPy, scikit-learn, Pillow."""

from __future__ import annotations

import numpy as np

from keras_effnet.datasets.source_data import SourceData
from keras_effnet.datasets.splits import Split
from keras_effnet.datasets.stratification import stratified_split
from keras_effnet.errors import UserError

_LARGEST_CANVAS = 640  # pixels: 7,000 scenes take 8.6 GB of memory


def plain_digits(seed: int) -> SourceData:
    """Load scikit-learn's 1,797 handwritten digits, 8x8 pixels: 70% train, 15% val, 15% test."""
    from sklearn.datasets import load_digits

    source = load_digits()
    pixels = np.round(source.images * (255 / 16)).astype("uint8")
    images = np.repeat(pixels[..., None], 3, axis=-1)
    labels = source.target.astype("int32")
    whole = Split(images, labels, mirror=False)
    indices = stratified_split(labels, (0.7, 0.15, 0.15), seed)
    splits = {split: whole.select(part) for split, part in zip(("train", "val", "test"), indices, strict=True)}
    return SourceData("digits", tuple("0123456789"), splits)


def _paste(canvas: np.ndarray, patch: np.ndarray, x: float, y: float, side: float) -> None:
    """Resize a patch and paste it by pixel-wise maximum; position and side are fractions of the canvas."""
    from PIL import Image

    size = canvas.shape[0]
    pixels = max(2, round(side * size))
    drawn = np.asarray(Image.fromarray(patch).resize((pixels, pixels), Image.Resampling.BILINEAR))
    left, top = round(x * (size - pixels)), round(y * (size - pixels))
    window = canvas[top : top + pixels, left : left + pixels]
    np.maximum(window, drawn, out=window)


def clutter(digits: Split, count: int, size: int, seed: int) -> Split:
    """Generate scenes with one whole digit at a random position and scale among fragments of other digits.

    Positions and scales are fractions of the canvas, so the same seed gives the same scenes at any `size` and a larger
    canvas shows more detail: resolution matters as it does in photographs.

    Args:
        digits: In-memory `Split` of the plain digits to draw from.
        count: Int, number of scenes.
        size: Int, side of the canvas in pixels.
        seed: Int.

    Returns:
        A `Split` of `count` images of shape `(size, size, 3)` with values 0..255, labelled with their whole digit.

    Example:

    >>> digits = keras_effnet.datasets.load("digits")
    >>> clutter(digits.train, count=100, size=64, seed=0).images.shape
    (100, 64, 64, 3)
    """
    rng = np.random.default_rng(seed)
    glyphs = digits.pixels[..., 0]
    chosen = rng.integers(len(glyphs), size=count)
    canvases = np.zeros((count, size, size), "uint8")
    for canvas, index in zip(canvases, chosen, strict=True):
        for _ in range(8):
            row, column = rng.integers(0, 5, size=2)
            fragment = glyphs[rng.integers(len(glyphs))][row : row + 4, column : column + 4]
            x, y = rng.random(2)
            _paste(canvas, fragment, x, y, rng.uniform(0.08, 0.16))
        x, y = rng.random(2)
        _paste(canvas, glyphs[index], x, y, rng.uniform(0.25, 0.5))
    return Split(np.repeat(canvases[..., None], 3, axis=-1), digits.labels[chosen], mirror=False)


def cluttered_digits(seed: int, size: int) -> SourceData:
    """Generate 5,000 training, 1,000 validation and 1,000 test scenes of `clutter`, `size` pixels wide."""
    if not 16 <= size <= _LARGEST_CANVAS:
        raise UserError(f"image_size of digits-cluttered must be from 16 to {_LARGEST_CANVAS} pixels, got {size}.")
    plain = plain_digits(seed)
    counts = {"train": 5000, "val": 1000, "test": 1000}
    scenes = {
        # Each split draws from its own digits, so no handwriting appears in two splits.
        split: clutter(plain.splits[split], count, size, seed + number)
        for number, (split, count) in enumerate(counts.items(), start=1)
    }
    return SourceData("digits-cluttered", plain.class_names, scenes)

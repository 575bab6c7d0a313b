"""The embedded data: scikit-learn's handwritten digits, plain, and as cluttered scenes. Imports `splits`."""

from __future__ import annotations

import numpy as np

from keras_effnet.datasets.splits import SourceData, Split, stratified_split


def plain_digits(seed: int) -> SourceData:
    """scikit-learn's 1,797 handwritten digits, 8x8 pixels: 70% train, 15% val, 15% test."""
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
    """Draws a patch, resized, where it is brighter than what is there; positions are shares of the canvas."""
    from PIL import Image

    size = canvas.shape[0]
    pixels = max(2, round(side * size))
    drawn = np.asarray(Image.fromarray(patch).resize((pixels, pixels), Image.Resampling.BILINEAR))
    left, top = round(x * (size - pixels)), round(y * (size - pixels))
    window = canvas[top : top + pixels, left : left + pixels]
    np.maximum(window, drawn, out=window)


def clutter(digits: Split, count: int, size: int, seed: int) -> Split:
    """Scenes of one whole digit at a random place and scale among fragments of others.

    The scene is drawn in shares of the canvas, so a seed gives the same scenes at any `size`, and a larger canvas
    shows more of them: resolution matters here, as it does in photographs.

    Args:
        digits: `Split` of the plain digits to draw from.
        count: Int, scenes.
        size: Int, side of the canvas in pixels.
        seed: Int.
    """
    rng = np.random.default_rng(seed)
    glyphs = digits.images[..., 0]
    chosen = rng.integers(len(glyphs), size=count)
    canvases = np.zeros((count, size, size), "uint8")
    for canvas, index in zip(canvases, chosen, strict=True):
        for _ in range(8):
            row, column = rng.integers(0, 5, size=2)
            fragment = glyphs[rng.integers(len(glyphs))][row : row + 4, column : column + 4]
            _paste(canvas, fragment, *rng.random(2), side=rng.uniform(0.08, 0.16))
        _paste(canvas, glyphs[index], *rng.random(2), side=rng.uniform(0.25, 0.5))
    return Split(np.repeat(canvases[..., None], 3, axis=-1), digits.labels[chosen], mirror=False)


def cluttered_digits(seed: int, size: int) -> SourceData:
    """5,000, 1,000 and 1,000 scenes of `clutter`, `size` pixels wide."""
    plain = plain_digits(seed)
    counts = {"train": 5000, "val": 1000, "test": 1000}
    scenes = {
        # No handwriting of one split appears in another: the scenes come from split digits.
        split: clutter(plain.splits[split], count, size, seed + number)
        for number, (split, count) in enumerate(counts.items(), start=1)
    }
    return SourceData("digits-cluttered", plain.class_names, scenes)

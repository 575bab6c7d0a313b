"""Colours of classes, and masks drawn over images. NumPy."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from keras_effnet.datasets.labels.masks import IGNORED


def palette(classes: int) -> np.ndarray:
    """Colours of classes, a `uint8` array of shape `(classes, 3)`: those of Pascal VOC, black for class 0."""
    return np.array([_colour(number) for number in range(classes)], "uint8").reshape(-1, 3)


def _colour(number: int) -> Iterable[int]:
    """Spread the bits of a class number over the high bits of red, green and blue in turn."""
    colour = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            colour[channel] |= ((number >> (3 * place + channel)) & 1) << (7 - place)
    return colour


def overlay(image: np.ndarray, mask: np.ndarray, colours: np.ndarray, opacity: float = 0.5) -> np.ndarray:
    """Tint the pixels of an image by their class; class 0 stays as it is, ignored pixels become white.

    Args:
        image: Array of shape `(height, width, 3)`, values 0..255.
        mask: Int array of shape `(height, width)`, classes, or 255 for ignored pixels.
        colours: Array of shape `(classes, 3)`, values 0..255.
        opacity: Float in [0, 1], share of the colour.

    Returns:
        `uint8` array of the image's shape.
    """
    ignored = (mask == IGNORED)[..., None]
    tints = colours[np.where(mask == IGNORED, 0, mask)].astype("float64")
    tinted = np.where((mask == 0)[..., None], image, (1 - opacity) * image + opacity * tints)
    return np.clip(np.round(np.where(ignored, 255, tinted)), 0, 255).astype("uint8")

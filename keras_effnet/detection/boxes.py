"""Box codes and overlaps. numpy.

Boxes are (y0, x0, y1, x1) in pixels; codes are (ty, tx, th, tw) relative to an anchor, without variances.
"""

from __future__ import annotations

import numpy as np

_LARGEST = 10.0  # exponent of a decoded size: e^10 times the anchor is beyond every image


def _centers(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centers and sizes, (y, x) and (height, width)."""
    sizes = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + sizes / 2, sizes


def input_scales(sizes: np.ndarray, image_size: int, fit: str) -> np.ndarray:
    """Pixels of the network's input per pixel of images.

    Args:
        sizes: Array of shape `(N, 2)`, heights and widths of the images.
        image_size: Int, side of the input in pixels.
        fit: `"stretch"` or `"letterbox"`, how images are fitted into the input.

    Returns:
        An array of shape `(N, 2)`, vertical and horizontal scales.
    """
    scales = image_size / np.asarray(sizes, "float64")
    return np.repeat(scales.min(axis=1, keepdims=True), 2, axis=1) if fit == "letterbox" else scales


def encode(boxes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Codes of boxes relative to anchors.

    Args:
        boxes: Array of shape `(..., 4)`, each of positive height and width.
        anchors: Array of the same shape.

    Returns:
        An array of shape `(..., 4)`: offsets of the center in anchor sizes, logarithms of the ratios of the sizes.

    Example:

    >>> encode(np.array([0.0, 0.0, 10.0, 10.0]), np.array([0.0, 0.0, 10.0, 10.0]))
    array([0., 0., 0., 0.])
    """
    (center, size), (anchor, scale) = _centers(np.asarray(boxes)), _centers(np.asarray(anchors))
    return np.concatenate([(center - anchor) / scale, np.log(size / scale)], axis=-1)


def decode(codes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Boxes of codes: the inverse of `encode`. Sizes are limited to e^10 times the anchor's, so none is infinite.

    Args:
        codes: Array of shape `(..., anchors, 4)`.
        anchors: Array of shape `(anchors, 4)`.

    Returns:
        An array of the shape of `codes`.
    """
    anchor, scale = _centers(np.asarray(anchors))
    center = codes[..., :2] * scale + anchor
    half = np.exp(np.minimum(codes[..., 2:], _LARGEST)) * scale / 2
    return np.concatenate([center - half, center + half], axis=-1)


def areas(boxes: np.ndarray) -> np.ndarray:
    """Areas of boxes in square pixels; 0 for swapped corners."""
    return np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0), axis=-1)


def overlaps(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of every box with every other.

    Args:
        some: Array of shape `(M, 4)`.
        others: Array of shape `(N, 4)`.

    Returns:
        An array of shape `(M, N)`, 0 to 1; 0 where both are empty.
    """
    low = np.maximum(some[:, None, :2], others[None, :, :2])
    high = np.minimum(some[:, None, 2:], others[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=-1)
    union = areas(some)[:, None] + areas(others)[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)

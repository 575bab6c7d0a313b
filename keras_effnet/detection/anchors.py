"""Anchors of a detector, exactly as effdet computes them. numpy.

Boxes are (y0, x0, y1, x1) in pixels everywhere in this wing.
"""

from __future__ import annotations

import numpy as np

from keras_effnet.architecture.detectors import DetectorSpec
from keras_effnet.errors import UserError, whole_number


def anchor_boxes(spec: DetectorSpec, image_size: int | tuple[int, int] | None = None) -> np.ndarray:
    """Anchors of a detector, in the order of its outputs.

    Levels come fine to coarse, the positions of a level row by row, at a position the octaves outermost and the aspects
    innermost. The stride of a level is the image's side divided by that of the feature map: P7 of 320 pixels has 3
    cells of 106.67 pixels.

    Args:
        spec: `DetectorSpec`.
        image_size: Side of the input in pixels, or height and width; the spec's by default.

    Returns:
        A float32 array of shape `(anchors, 4)`: y0, x0, y1, x1 in pixels. Anchors reach beyond the image.

    Raises:
        UserError: A side is not a positive whole number.

    Example:

    >>> anchor_boxes(keras_effnet.detector_spec("det-lite0")).shape
    (19206, 4)
    """
    size = np.array(_sides(spec.image_size if image_size is None else image_size))
    levels = [_level(spec, size, size / feature) for feature in level_sizes(spec, image_size)]
    return np.concatenate(levels).astype("float32")


def _sides(image_size: int | tuple[int, int]) -> tuple[int, ...]:
    sides = image_size if isinstance(image_size, tuple | list) else (image_size, image_size)
    if len(sides) != 2:
        raise UserError(f"image_size must be a side or (height, width), got {image_size!r}.")
    return tuple(whole_number("Each side of image_size", side) for side in sides)


def level_sizes(spec: DetectorSpec, image_size: int | tuple[int, int] | None = None) -> list[tuple[int, int]]:
    """Height and width of the feature maps of a detector, fine to coarse.

    Args:
        spec, image_size: As in `anchor_boxes`.

    Example:

    >>> level_sizes(keras_effnet.detector_spec("det-lite0"))
    [(40, 40), (20, 20), (10, 10), (5, 5), (3, 3)]
    """
    height, width = _sides(spec.image_size if image_size is None else image_size)
    found = []
    for level in range(spec.levels[1] + 1):
        if level:
            height, width = -(-height // 2), -(-width // 2)
        if level >= spec.levels[0]:
            found.append((height, width))
    return found


def _level(spec: DetectorSpec, size: np.ndarray, stride: np.ndarray) -> np.ndarray:
    centers = [np.arange(step / 2, side, step) for step, side in zip(stride, size, strict=True)]
    y, x = (grid.reshape(-1) for grid in np.meshgrid(*centers, indexing="ij"))
    shapes = []
    for octave in range(spec.octaves):
        base = spec.anchor_scale * stride * 2 ** (octave / spec.octaves)
        for width, height in spec.aspects:
            half_y, half_x = base[0] * height / 2, base[1] * width / 2
            shapes.append(np.stack([y - half_y, x - half_x, y + half_y, x + half_x], axis=1))
    return np.stack(shapes, axis=1).reshape(-1, 4)

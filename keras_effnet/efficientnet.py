"""Drop-in replacement of `keras.applications.efficientnet`, with its names and signatures. Keras only.

Example:

>>> from keras_effnet import efficientnet  # instead of: from keras.applications import efficientnet
>>> model = efficientnet.EfficientNetB0(weights=None)
"""

from __future__ import annotations

from typing import Any

from keras_effnet.imagenet import decode_predictions
from keras_effnet.models.efficientnet import (
    EfficientNetB0,
    EfficientNetB1,
    EfficientNetB2,
    EfficientNetB3,
    EfficientNetB4,
    EfficientNetB5,
    EfficientNetB6,
    EfficientNetB7,
)

__all__ = [
    "EfficientNetB0",
    "EfficientNetB1",
    "EfficientNetB2",
    "EfficientNetB3",
    "EfficientNetB4",
    "EfficientNetB5",
    "EfficientNetB6",
    "EfficientNetB7",
    "decode_predictions",
    "preprocess_input",
]


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Return the pixels unchanged: the networks normalise their input.

    Args:
        x: Array or tensor of pixels in 0..255.
        data_format: Ignored, as in `keras.applications`.

    Returns:
        `x`.
    """
    return x

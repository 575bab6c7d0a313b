"""The test image of a bundle: one that the network is sure of, as a small PNG without metadata. TensorFlow."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_effnet.datasets.decoding import decode, read
from keras_effnet.datasets.splits import Split
from keras_effnet.export.app_bundle.answers import SHOWN, Shown
from keras_effnet.export.calibration import Images, original_images
from keras_effnet.pipeline.geometry import evaluation_image, fit_scales
from keras_effnet.preprocessing import ImageSpec

_TRIED = 64  # images to choose from
_LONGEST = 512  # side in pixels; a network of larger images keeps its own size

Predict = Callable[[np.ndarray], np.ndarray]


def choose(
    predict: Predict, source: Images, image_spec: ImageSpec, seed: int = 0, rule: Shown = SHOWN["classification"]
) -> np.ndarray | None:
    """Choose an image whose answers rounding does not change: five most probable classes that are far apart.

    Of decisions, those furthest from one half; of masks, the one with most pixels that are not of the largest class; of
    boxes, the one with the highest score.

    Args:
        predict: Function from images `(N, size, size, 3)`, values 0..255, to probabilities `(N, classes)`; of a
            detector `(N, anchors, classes)`.
        source: Images of any size, as for calibration.
        image_spec: `ImageSpec` of the network.
        seed: Int, seed of the draw.
        rule: `Shown` of the network's task.

    Returns:
        `uint8` array of shape `(height, width, 3)`; None if no image is classified right.
    """
    labels = None
    if isinstance(source, Split):
        source = source.sample(_TRIED, seed)
        labels = source.labels if rule.kind == "classes" else None
    images = original_images(source, _TRIED, seed)
    scores = predict(np.stack([evaluation_image(tf.constant(image), image_spec).numpy() for image in images]))
    right = np.arange(len(images)) if labels is None else np.flatnonzero(scores.argmax(axis=1) == labels)
    best = max(right.tolist(), key=lambda index: rule.sure(rule.scores(scores[index])), default=None)
    return None if best is None else np.clip(np.round(images[best]), 0, 255).astype("uint8")


def read_sample(path: str | Path) -> np.ndarray:
    """Read an image file, upright.

    Raises:
        UserError: It cannot be read.
    """
    return read(path)


def png(image: np.ndarray, size: int) -> bytes:
    """Encode an image as PNG without metadata, reduced if it is larger than clients need for a test.

    Args:
        image: `uint8` array of shape `(height, width, 3)`.
        size: Int, side of the network's input.
    """
    encoded, longest = io.BytesIO(), max(_LONGEST, size)
    reduced = Image.fromarray(image)
    reduced.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    reduced.save(encoded, "PNG", optimize=True)
    return encoded.getvalue()


def network_images(content: bytes, image_spec: ImageSpec) -> tuple[np.ndarray, np.ndarray]:
    """Decode an image file and fit it into the input as in evaluation.

    Returns:
        A `float32` array of shape `(1, size, size, 3)`, and one of shape `(2,)`: for networks that see the whole image,
        pixels of the input per pixel of the image, vertically and horizontally.
    """
    image = decode(tf.constant(content))
    pixels = evaluation_image(image, image_spec).numpy()[None]
    return pixels, fit_scales(tf.shape(image), image_spec).numpy()

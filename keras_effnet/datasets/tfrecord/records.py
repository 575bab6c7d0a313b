"""Features of TFRecord images, and shards of them as a stream. TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import tensorflow as tf

from keras_effnet.datasets.splits import Encoded

# Feature names of TensorFlow's ImageNet scripts, which most published shards use.
IMAGE, LABEL, TEXT, SYNSET, FILE = (
    f"image/{name}" for name in ("encoded", "class/label", "class/text", "class/synset", "filename")
)
VALUES, MASK, BOX = "image/values", "image/segmentation/class/encoded", "image/object"  # not of classification


def stream(files: Sequence[str | Path]) -> Callable[[], tf.data.Dataset]:
    """Return a function for `Encoded.open` that reads the encoded images of shards, one shard after the other."""
    names = [os.fsencode(file) for file in files]  # file names are bytes and need not be valid text
    wanted = {IMAGE: tf.io.FixedLenFeature((), tf.string)}

    def open_shards() -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(names)
        # Deterministic whatever the options of the enclosing pipeline: labels are matched by position.
        return records.map(
            lambda record: tf.io.parse_single_example(record, wanted)[IMAGE],
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

    return open_shards


def encoded_shards(files: Sequence[Path], count: int) -> Encoded:
    """The images of shards, `count` in all, as a stream."""
    return Encoded(stream(files), count, files=tuple(map(str, files)))

"""EXIF orientation: images and windows of them are upright as in Pillow, and damaged tags are ignored."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
import tensorflow as tf
from PIL import ExifTags, Image, ImageOps

from keras_effnet.datasets.decoding import decode, decode_window
from keras_effnet.datasets.image_formats.exif_orientation import orientation

ROWS, COLUMNS = np.mgrid[0:40, 0:56]
IMAGE = Image.fromarray(np.stack([COLUMNS * 4, ROWS * 6, 255 - COLUMNS * 4], axis=-1).astype("uint8"))
FORMATS = {"JPEG": {"quality": 95, "subsampling": 0}, "PNG": {}, "WEBP": {"lossless": True}}
BOX = (5, 9, 21, 17)
# One graph for all files: tracing it is what takes time.
STRING = tf.TensorSpec((), tf.string)
_decode = tf.function(decode, input_signature=[STRING])
_window = tf.function(
    lambda contents: decode_window(contents, lambda _: tf.constant(BOX)).pixels, input_signature=[STRING]
)
_orientation = tf.function(orientation, input_signature=[STRING])


def tagged(kind: str, value: int, endian: str = "<", **options) -> bytes:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif.endian = endian
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Orientation] = "a maker", value
    IMAGE.save(buffer, kind, exif=exif, **FORMATS[kind], **options)
    return buffer.getvalue()


def upright(contents: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(contents)) as image:
        return np.asarray(ImageOps.exif_transpose(image)).astype(int)


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("kind", FORMATS)
def test_images_and_windows_of_them_are_upright_as_in_pillow(kind, value):
    contents = tagged(kind, value, "<>"[value % 2])
    expected, most = upright(contents), 10 if kind == "JPEG" else 0
    assert expected.shape[:2] == ((56, 40) if value >= 5 else (40, 56))
    pixels = _decode(contents).numpy().astype(int)
    assert pixels.shape == expected.shape and np.abs(pixels - expected).max() <= most
    top, left, height, width = BOX
    part = expected[top : top + height, left : left + width]
    assert np.abs(_window(contents).numpy().astype(int) - part).max() <= most


def test_the_window_is_chosen_in_the_upright_image():
    shapes = []
    decode_window(tf.constant(tagged("JPEG", 6)), lambda shape: shapes.append(shape.numpy().tolist()) or [0, 0, 9, 9])
    assert shapes[-1] == [56, 40]


def test_the_tag_is_found_behind_a_colour_profile_and_a_comment():
    assert _orientation(tagged("JPEG", 6, icc_profile=bytes(70_000), comment=b"a comment")) == 6


@pytest.mark.parametrize("kind", FORMATS)
def test_values_that_the_standard_does_not_know_are_upright(kind):
    for value in (0, 9, 65535):
        contents = tagged(kind, value)
        assert _orientation(contents) == 1 and _decode(contents).shape == (40, 56, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_damaged_exif_data_never_fail(kind):
    contents = tagged(kind, 6, ">")
    start, rng = contents.lower().index(b"exif"), random.Random(0)
    for _ in range(400):
        data = bytearray(contents)
        for _ in range(rng.choice((1, 3, 20))):
            data[start + rng.randrange(60)] = rng.choice((0, 1, 255, rng.randrange(256)))
        assert 1 <= _orientation(bytes(data)) <= 8
    for length in range(len(contents) if len(contents) < 300 else 300):
        assert _orientation(contents[:length]) in (1, 6)

"""Decoding of JPEG windows at a smaller scale: which scale, and where the exact window lies in the pixels."""

from __future__ import annotations

import io

import numpy as np
import tensorflow as tf
from PIL import ExifTags, Image

from keras_effnet.datasets.decoding import decode, decode_window
from keras_effnet.datasets.image_formats.jpeg_scaling import decode_jpeg_window

INT = tf.TensorSpec((), tf.int32)
# One graph for all files: tracing it is what takes time.
_window = tf.function(
    lambda contents, box, target: decode_window(contents, lambda _: box, target),
    input_signature=[tf.TensorSpec((), tf.string), tf.TensorSpec((4,), tf.int32), INT],
)


def waves(height: int, width: int) -> Image.Image:
    """Waves of 100 to 140 pixels, visible at 1/8 of the size; a shift by one pixel changes them by up to 6 levels."""
    rows, columns = np.mgrid[0:height, 0:width]
    values = [np.sin(rows / 16), np.sin(columns / 18), np.sin((rows + columns) / 22)]
    return Image.fromarray((128 + 100 * np.stack(values, axis=-1)).astype("uint8"))


def encoded(image: Image.Image, orientation: int = 1, **options) -> bytes:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Orientation] = orientation
    image.save(buffer, "JPEG", exif=exif, **({"quality": 95} | options))
    return buffer.getvalue()


def sampled(window, rows, columns) -> np.ndarray:
    """Pixels of the decoded image at places of the full image, counted from the top left corner of the window."""
    pixels, box, scale = window.pixels.numpy().astype(float), window.box.numpy(), int(window.scale)
    for axis, places in enumerate((rows, columns)):
        at = np.asarray(places) / scale + box[axis] - 0.5
        low = np.clip(np.floor(at).astype(int), 0, pixels.shape[axis] - 2)
        share = (at - low).reshape([-1 if dim == axis else 1 for dim in range(3)])
        pixels = np.take(pixels, low, axis) * (1 - share) + np.take(pixels, low + 1, axis) * share
    return pixels


# Loops instead of parameters: every test would set up the graph again, for a second.
def test_twice_the_target_is_left_on_both_sides():
    contents = encoded(waves(600, 1000))
    for height, width, target, scale in (
        (512, 700, 32, 8),
        (511, 700, 32, 4),
        (256, 256, 32, 4),
        (128, 999, 32, 2),
        (127, 999, 32, 1),
        (1, 1, 1, 1),
    ):
        window = decode_jpeg_window(contents, [3, 1, height, width], target)
        assert window.scale == scale
        assert window.box.numpy().tolist() == [3 % scale / scale, 1 % scale / scale, height / scale, width / scale]


def test_the_exact_window_is_kept_at_every_scale_and_orientation():
    # Neither the sides of the image nor those of the window are multiples of a scale.
    for orientation in range(1, 9):
        contents, box = encoded(waves(301, 405), orientation), [37, 53, 163, 190]
        exact = decode(contents).numpy()[37 : 37 + 163, 53 : 53 + 190].astype(float)
        for target in (40, 20, 10):
            window = _window(contents, box, target)
            assert window.scale == 80 // target
            difference = np.abs(sampled(window, np.arange(8, 155) + 0.5, np.arange(8, 182) + 0.5) - exact[8:155, 8:182])
            assert difference.mean() < 3 and difference.max() < 13, (orientation, target)


def test_every_kind_of_jpeg_is_scaled():
    for mode in ("L", "CMYK", "RGB"):
        for options in ({}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}):
            contents = encoded(waves(203, 301).convert(mode), **options)
            exact = decode(contents).numpy().astype(float)
            window = _window(contents, [0, 0, 203, 301], 12)
            assert window.scale == 8 and window.pixels.shape == (26, 38, 3)
            found = sampled(window, np.arange(8, 190) + 0.5, np.arange(8, 290) + 0.5)
            assert np.abs(found - exact[8:190, 8:290]).mean() < 3, (mode, options)


def test_windows_at_every_edge_of_images_of_every_size_can_be_scaled():
    rng = np.random.default_rng(0)
    for _ in range(100):
        height, width = rng.integers(16, 70, 2).tolist()
        contents = encoded(waves(height, width), int(rng.integers(1, 3)), subsampling=int(rng.integers(3)))
        extent = [int(rng.integers(min(16, side), side + 1)) for side in (height, width)]
        far = [side - length for side, length in zip((height, width), extent, strict=True)]
        begin = [int(rng.choice((0, rng.integers(room + 1), room))) for room in far]
        window = _window(contents, [*begin, *extent], 1)
        assert window.scale >= 8
        low, high = window.box.numpy()[:2], window.box.numpy()[:2] + window.box.numpy()[2:]
        assert (low >= 0).all() and (low < 1).all()
        assert (high <= window.pixels.shape[:2]).all() and (high > np.subtract(window.pixels.shape[:2], 1)).all()


def test_without_a_target_and_in_other_formats_the_window_is_decoded_at_full_size():
    buffer = io.BytesIO()
    waves(300, 300).save(buffer, "PNG")
    png = decode_window(buffer.getvalue(), lambda _: tf.constant([5, 6, 200, 100]), 8)
    jpeg = decode_window(encoded(waves(300, 300)), lambda _: tf.constant([5, 6, 200, 100]))
    for window in (png, jpeg):
        assert window.scale == 1 and window.box.numpy().tolist() == [0, 0, 200, 100]
        assert window.pixels.shape == (200, 100, 3)

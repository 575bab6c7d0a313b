"""Netpbm files decode as in Pillow and to the values that their manual pages define."""

import io

import numpy as np
import pytest
from PIL import Image

from keras_effnet.datasets.image_formats.limits import MAX_PIXELS
from keras_effnet.datasets.image_formats.netpbm import decode_netpbm

COLOURS = np.random.default_rng(5).integers(0, 256, (7, 11, 3)).astype("uint8")


def plain(kind: bytes, values: np.ndarray, maximum: bytes = b"\n255") -> bytes:
    text = b" ".join(b"%d" % value for value in values.ravel())
    return b"P%s %d %d%s\n%s\n" % (kind, values.shape[1], values.shape[0], maximum, text)


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_binary_files_are_as_in_pillow(mode):
    image, buffer = Image.fromarray(COLOURS).convert(mode), io.BytesIO()
    image.save(buffer, "PPM")
    np.testing.assert_array_equal(decode_netpbm(buffer.getvalue()), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("maximum", [1, 15, 100, 255])
@pytest.mark.parametrize("binary", [True, False])
def test_files_of_up_to_8_bits_are_as_in_pillow(maximum, binary):
    values = np.random.randint(0, maximum + 1, COLOURS.shape).astype("uint8")
    line = b"\n%d" % maximum
    data = b"P6 11 7%s\n%s" % (line, values.tobytes()) if binary else plain(b"3", values, line)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(decode_netpbm(data), np.asarray(image))


@pytest.mark.parametrize(("maximum", "shift"), [(65535, 8), (4095, 4), (1023, 2)])
def test_deeper_files_keep_their_8_high_bits(maximum, shift):
    values = np.random.randint(0, maximum + 1, COLOURS.shape)
    for data in (b"P6 11 7 %d\n%s" % (maximum, values.astype(">u2").tobytes()), plain(b"3", values, b" %d" % maximum)):
        np.testing.assert_array_equal(decode_netpbm(data), values >> shift)


def test_bits_may_touch_and_are_black_where_set():
    pixels = decode_netpbm(b"P1\n# a cross\n3 2\n101\n01 0\n")
    np.testing.assert_array_equal(pixels[..., 0], [[0, 255, 0], [255, 0, 255]])


def test_comments_are_skipped_and_a_byte_35_of_the_data_is_none():
    assert decode_netpbm(b"P5 # one\n#two\n 2 1 #three\n255\n#\x07")[..., 0].tolist() == [[35, 7]]
    assert decode_netpbm(b"P2 2 1 255\n1 # one\n 2")[..., 0].tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"P6 4 4 255\n" + bytes(47), "Truncated"),
        (b"P4 9 2\n\0\0\0", "Truncated"),
        (b"P2 2 2 255\n1 2 3", "Truncated"),
        (b"P1 2 2\n101", "Truncated"),
        (b"P1 2 1\n12", "bit"),
        (b"P2 2 1 255\n1 x", "sample 'x'"),
        (b"P2 2 1 255\n1 -2", "sample '-'"),
        (b"P2 2 1 255\n1 99999999999", "sample '999999'"),
        (b"P5 2 1 0\n12", "header"),
        (b"P5 2 1 65536\n1212", "header"),
        (b"P5 2 1\n", "header"),
        (b"P6 2\n", "header"),
        (b"P5 0 3 255\n", "Claims 0 x 3"),
        (b"P5 999999999 999999999 255\n", "Claims 999999999 x 999999999"),
        (b"P4 %d 2\n" % MAX_PIXELS, "more than 179 million"),
    ],
)
def test_damaged_files_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        decode_netpbm(data)

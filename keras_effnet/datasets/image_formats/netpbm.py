"""Decoding of Netpbm images: PBM, PGM and PPM, binary and plain. NumPy.

Pillow decodes plain files, and those whose maximum is not 255, in Python loops: 5 to 9 seconds per megapixel.
"""

from __future__ import annotations

import re

import numpy as np

from keras_effnet.datasets.image_formats.limits import RefusedImageError, check_pixel_count

_SPACE = rb"(?:\s|#[^\r\n]*[\r\n])+"
_SIDES = re.compile(rb"P([1-6])" + (_SPACE + rb"([0-9]{1,9})(?=\s)") * 2)
_MAXIMUM = re.compile(_SPACE + rb"([0-9]{1,5})(?=\s)")
_TRUNCATED = "Truncated PNM file"


def decode_netpbm(data: bytes) -> np.ndarray:
    """Decode a PBM, PGM or PPM file, the first image of several.

    Samples of more than 8 bits are reduced to their 8 high bits.

    Args:
        data: Bytes of the file.

    Returns:
        A `uint8` array of shape `(height, width, 3)`.

    Raises:
        RefusedImageError: The file is damaged or too large.

    Source: the manual pages pbm(5), pgm(5) and ppm(5) of Netpbm.
    """
    header = _SIDES.match(data)
    if header is None:
        raise RefusedImageError("Damaged PNM header")
    kind, width, height = map(int, header.groups())
    check_pixel_count(width, height)
    shape = (height, width, 3 if kind in (3, 6) else 1)
    if kind in (1, 4):
        decode = _plain_bits if kind == 1 else _binary_bits
        pixels = np.where(decode(data, header.end(), shape), 0, 255).astype("uint8")
    else:
        maximum = _MAXIMUM.match(data, header.end())
        if maximum is None or not 0 < int(maximum[1]) < 65536:
            raise RefusedImageError("Damaged PNM header")
        read = _plain_samples if kind in (2, 3) else _binary_samples
        pixels = _in_8_bits(int(maximum[1]))[read(data, maximum.end(), shape, int(maximum[1]))]
    return pixels if shape[2] == 3 else np.repeat(pixels, 3, axis=2)


def _in_8_bits(maximum: int) -> np.ndarray:
    """Table of the 8-bit values of all samples; those above the maximum are white."""
    samples = np.arange(256 if maximum < 256 else 65536)
    scaled = np.rint(samples * 255 / maximum) if maximum < 256 else samples * 256 // (maximum + 1)
    return np.minimum(scaled, 255).astype("uint8")


def _binary_samples(data: bytes, end: int, shape: tuple[int, int, int], maximum: int) -> np.ndarray:
    return _raw(data, end, "u1" if maximum < 256 else ">u2", int(np.prod(shape))).reshape(shape)


def _binary_bits(data: bytes, end: int, shape: tuple[int, int, int]) -> np.ndarray:
    height, width, _ = shape
    rows = _raw(data, end, "u1", height * -(-width // 8)).reshape(height, -1)
    return np.unpackbits(rows, axis=1, count=width).reshape(shape)


def _raw(data: bytes, end: int, kind: str, count: int) -> np.ndarray:
    """Numbers behind the single white space that ends the header at `end`."""
    if len(data) - end - 1 < count * np.dtype(kind).itemsize:
        raise RefusedImageError(_TRUNCATED)
    return np.frombuffer(data, kind, count, end + 1)


def _plain_samples(data: bytes, end: int, shape: tuple[int, int, int], maximum: int) -> np.ndarray:
    text = _without_comments(data[end:])
    if found := re.search(rb"[^0-9\s]|[0-9]{6}", text):
        raise RefusedImageError(f"Invalid PNM sample {found[0].decode('latin-1')!r}")
    samples = np.fromstring(text, "int32", sep=" ")
    if len(samples) < np.prod(shape):
        raise RefusedImageError(_TRUNCATED)
    return np.minimum(samples[: np.prod(shape)], maximum).reshape(shape)


def _plain_bits(data: bytes, end: int, shape: tuple[int, int, int]) -> np.ndarray:
    digits = np.frombuffer(_without_comments(data[end:]).translate(None, b" \t\n\v\f\r"), "u1")[: np.prod(shape)]
    if len(digits) < np.prod(shape):
        raise RefusedImageError(_TRUNCATED)
    if not np.isin(digits, (ord("0"), ord("1"))).all():
        raise RefusedImageError("Invalid PNM bit")
    return (digits == ord("1")).reshape(shape)


def _without_comments(text: bytes) -> bytes:
    return re.sub(rb"#[^\r\n]*", b" ", text) if b"#" in text else text

"""Decoding of the formats that TensorFlow does not read, or reads wrongly. Pillow."""

from __future__ import annotations

import io

import numpy as np
from PIL import ExifTags, Image

# Headers may claim any size. TensorFlow and Pillow refuse JPEGs with more pixels than this (2^29 bytes of RGB).
MAX_PIXELS = 178_956_970
IMPLAUSIBLE = "Claims more pixels than it can hold"
_BMP_PIXELS_PER_BYTE = 128  # run-length encoding: two bytes encode up to 255 pixels
_PILLOW_FORMATS = ("BMP", "GIF", "WEBP")
# EXIF orientation -> what turns the stored image upright
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_with_pillow(contents: bytes | np.ndarray) -> np.ndarray:
    """Decode the first frame of an image to RGB, upright; for `tf.numpy_function`.

    Args:
        contents: Bytes, or an array of one such object.

    Returns:
        A `uint8` array of shape `(height, width, 3)`.

    Raises:
        ValueError: The image cannot be decoded.
    """
    # In eager execution `numpy_function` passes an array of one object.
    data: bytes = contents.item() if isinstance(contents, np.ndarray) else contents
    try:
        _check_pixel_count(*_webp_canvas(data))
        with Image.open(io.BytesIO(data), formats=_PILLOW_FORMATS) as image:
            _check_pixel_count(*image.size)  # before its pixels are allocated
            if image.format == "BMP" and image.width * image.height > _BMP_PIXELS_PER_BYTE * len(data):
                raise ValueError(IMPLAUSIBLE)  # Pillow would pad it byte by byte, for minutes
            return np.asarray(_turned_upright(image).convert("RGB"))
    except Exception as error:  # Pillow's plugins raise errors of any type on damaged files
        # ValueError is the only type that TensorFlow converts to InvalidArgumentError in a pipeline.
        raise ValueError(f"{type(error).__name__}: {error}") from None


def _turned_upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation. Unlike `ImageOps.exif_transpose`, ignores damaged Exif data instead of failing."""
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        method = _TRANSPOSE.get(exif.get(ExifTags.Base.Orientation, 1))
    except Exception:
        return image
    return image if method is None else image.transpose(method)


def _check_pixel_count(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(f"claims {width} x {height} pixels, more than {MAX_PIXELS / 1e6:.0f} million")


def _webp_canvas(contents: bytes) -> tuple[int, int]:
    """Canvas size of an extended WebP, which older Pillow versions allocate on opening; (0, 0) for other files."""
    if contents[8:16] != b"WEBPVP8X":
        return 0, 0
    width, height = (int.from_bytes(contents[start : start + 3], "little") + 1 for start in (24, 27))
    return width, height

"""Bounds of image sizes, so that a header cannot exhaust memory or time. Pure Python."""

from __future__ import annotations

# Headers may claim any size. TensorFlow and Pillow refuse JPEGs with more pixels than this (2^29 bytes of RGB).
MAX_PIXELS = 178_956_970
IMPLAUSIBLE = "Claims more pixels than it can hold"


class RefusedImageError(ValueError):
    """An image is not decoded, for the reason that the message states; other errors of decoders mean damage."""


def check_pixel_count(width: int, height: int) -> None:
    """Refuse an image without pixels, or with more than `MAX_PIXELS`.

    Raises:
        RefusedImageError: The size is out of bounds.
    """
    if width < 1 or height < 1:
        raise RefusedImageError(f"Claims {width} x {height} pixels")
    if width * height > MAX_PIXELS:
        raise RefusedImageError(f"Claims {width} x {height} pixels, more than {MAX_PIXELS / 1e6:.0f} million")

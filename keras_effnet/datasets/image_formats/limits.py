"""Bounds of image sizes, so that a header cannot exhaust memory or time, and of reductions. Pure Python."""

from __future__ import annotations

# Headers may claim any size. TensorFlow and Pillow refuse JPEGs with more pixels than this (2^29 bytes of RGB).
MAX_PIXELS = 178_956_970
IMPLAUSIBLE = "Claims more pixels than it can hold"
# Reduction on both sides from which images are antialiased, hence from which a smaller scale may be decoded. At half
# the size that leaves twice the target, which resizing filters. With less, results differ twice as much from full
# decoding and resizing (in 1% of the pixels by 4 to 10 grey levels instead of 2 to 4), for 5 of 46 ms of 12 megapixels.
ANTIALIASED_FROM = 4


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

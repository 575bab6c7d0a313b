"""Images as a pack stores them: with the bytes of their files, or downscaled and encoded anew. Pillow."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

MARGIN = 1.15  # shorter side over the training size: random crops lose little resolution, evaluation none
JPEG_QUALITY = 95


def size_limit(size: int | None) -> int | None:
    """Limit of the shorter side of packed images for a training size."""
    return None if size is None else round(MARGIN * size)


def shrink(contents: bytes, pixels: np.ndarray, shorter_side: int | None) -> tuple[bytes, bool]:
    """Downscale an image and encode it as JPEG if its shorter side exceeds a limit.

    Args:
        contents: Bytes of the encoded image.
        pixels: `uint8` array of shape `(height, width, 3)`, the decoded image.
        shorter_side: Int, limit in pixels; None for no limit.

    Returns:
        Encoded bytes, unchanged if the image is small enough, and whether it was downscaled.
    """
    size = reduced_size(pixels.shape[0], pixels.shape[1], shorter_side)
    if size is None:
        return contents, False
    buffer = io.BytesIO()
    # Pillow widens the kernel when it downscales, i.e. antialiases.
    resized = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    resized.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue(), True


def reduced_size(height: int, width: int, shorter_side: int | None) -> tuple[int, int] | None:
    """Width and height to which an image is downscaled; None if it is small enough."""
    if shorter_side is None or min(height, width) <= shorter_side:
        return None
    scale = shorter_side / min(height, width)
    return round(width * scale), round(height * scale)


def as_png(pixels: np.ndarray) -> bytes:
    """Encode an image of an array without loss."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()

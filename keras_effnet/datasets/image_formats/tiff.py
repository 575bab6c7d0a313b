"""What a TIFF file can declare that Pillow would decode wrongly, or without bound. Pure Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_effnet.datasets.image_formats.limits import IMPLAUSIBLE, RefusedImageError

if TYPE_CHECKING:
    from PIL.TiffImagePlugin import TiffImageFile

# Tags
_SUBFILE_TYPE, _BITS, _PHOTOMETRIC, _PLANES, _TILE_WIDTH, _TILE_HEIGHT, _SUBSAMPLING = 254, 258, 262, 284, 322, 323, 530
_REDUCED, _WHITE_IS_ZERO, _YCBCR, _SEPARATE = 1, 0, 6, 2  # values of them
_LARGE_TILE = 1 << 24  # pixels; a tile may be larger than the image, and is allocated as a whole


def check_tiff(image: TiffImageFile) -> None:
    """Refuse the first page of a TIFF file if Pillow would decode it wrongly.

    Args:
        image: Opened, not yet decoded.

    Raises:
        RefusedImageError: The page is a thumbnail, incomplete, or laid out in a way that Pillow does not handle.
    """
    tags, pixels = image.tag_v2, image.width * image.height
    if tags.get(_SUBFILE_TYPE, 0) & _REDUCED:
        raise RefusedImageError("First page is a thumbnail, as in camera raw files")
    if tags.get(_TILE_WIDTH, 1) * tags.get(_TILE_HEIGHT, 1) > max(_LARGE_TILE, 4 * pixels):
        raise RefusedImageError(IMPLAUSIBLE)
    if image.info["compression"] != "raw":  # libtiff reports missing data
        return
    if tags.get(_PHOTOMETRIC) == _YCBCR and tuple(tags.get(_SUBSAMPLING, (2, 2))) != (1, 1):
        raise RefusedImageError("Subsampled YCbCr without compression is not supported")
    planes = len(image.getbands()) if tags.get(_PLANES) == _SEPARATE else 1
    boxes = [tile.extents for tile in image.tile if tile.extents]
    if sum((right - left) * (lower - upper) for left, upper, right, lower in boxes) < planes * pixels:
        raise RefusedImageError("Truncated TIFF file: strips or tiles are missing")


def bits_per_sample(image: TiffImageFile) -> int:
    """Bits of the first sample of a pixel."""
    return image.tag_v2.get(_BITS, (1,))[0]


def white_is_zero(image: TiffImageFile) -> bool:
    """Whether samples count from white to black, which Pillow undoes in images of up to 8 bits only."""
    return image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO

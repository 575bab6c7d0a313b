"""Completeness of JPEG 2000 files: OpenJPEG decodes missing tiles as black, without an error. Pure Python."""

from __future__ import annotations

import re
import struct

from keras_effnet.datasets.image_formats.limits import RefusedImageError

_CODESTREAM = re.compile(rb"(?:^|jp2c|jp2c.{8})(\xff\x4f\xff\x51)", re.DOTALL)
_TILE_PART = 0xFF90
_MOST_TILES = 65535  # the index has 16 bits


def check_tiles(data: bytes) -> None:
    """Refuse a JPEG 2000 file that lacks tiles of the image which its header declares.

    Args:
        data: Bytes of a JP2 file or of a raw codestream.

    Raises:
        RefusedImageError: A tile is missing, or the header is damaged.

    Source: ITU-T T.800, annexes A.4 and A.5.
    """
    found = _CODESTREAM.search(data)
    if found is None:
        raise RefusedImageError("JPEG 2000 file without a codestream")
    try:
        place = found.start(1) + 2
        _, width, height, _, _, tile_width, tile_height, left, top = struct.unpack_from(">4xH8I", data, place)
        tiles = -(-(width - left) // tile_width) * -(-(height - top) // tile_height)
        present = _tile_indices(data, place)
    except (struct.error, ZeroDivisionError):
        raise RefusedImageError("Truncated JPEG 2000 file") from None
    if tiles > _MOST_TILES or not present.issuperset(range(tiles)):
        raise RefusedImageError(f"JPEG 2000 file with {len(present)} of {tiles} tiles")


def _tile_indices(data: bytes, place: int) -> set[int]:
    """Indices of the tiles that have data."""
    marker, length = struct.unpack_from(">HH", data, place)
    while marker != _TILE_PART:
        place += 2 + length
        marker, length = struct.unpack_from(">HH", data, place)
    found = set()
    while marker == _TILE_PART:
        index, length = struct.unpack_from(">HI", data, place + 4)
        found.add(index)
        if length < 12:  # zero: the last one, which extends to the end
            break
        place += length
        (marker,) = struct.unpack_from(">H", data, place)
    return found

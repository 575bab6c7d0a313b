"""What an image looks like in a few bytes, and which images are the same. numpy and Pillow."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

_HASH_SIDES, _THUMBNAIL_SIDE, _SHEET_SIDE = (9, 8), 16, 96
NEAR_BITS = 6  # of 64 that may differ
NEAR_LEVELS = 8.0  # of 256, mean difference of the thumbnails
_TILE = (512, 4096)  # of the table of all pairs that is held at once


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What is kept of an image.

    Args:
        digest: Bytes that are equal for equal files; of an image that has no file, for equal pixels.
        hash: Int of 64 bits, one for each pair of neighbours among 9x8 grey averages: which is brighter.
        thumbnail: `uint8` array of shape `(16, 16, 3)`.
        width, height: Ints.
        mode: String, what the file holds: `"JPEG RGB"`, `"PNG RGBA"`; `"pixels"` without a file.
    """

    digest: bytes
    hash: int
    thumbnail: np.ndarray
    width: int
    height: int
    mode: str


def fingerprint(pixels: np.ndarray, contents: bytes | None = None) -> Fingerprint:
    """The fingerprint of decoded pixels, a `uint8` array `(height, width, 3)`, and of the file that they come from."""
    image = Image.fromarray(pixels)
    height, width = pixels.shape[:2]
    small = image.resize((_THUMBNAIL_SIDE,) * 2, Image.Resampling.BOX, reducing_gap=2)
    grey = np.asarray(image.resize(_HASH_SIDES, Image.Resampling.BOX, reducing_gap=2).convert("L"))
    bits = np.packbits(grey[:, 1:] > grey[:, :-1])
    whole = contents if contents is not None else pixels.tobytes() + repr(pixels.shape).encode()
    digest = hashlib.sha256(whole).digest()[:16]
    return Fingerprint(digest, int.from_bytes(bits.tobytes()), np.asarray(small), width, height, _mode(contents))


def _mode(contents: bytes | None) -> str:
    if contents is None:
        return "pixels"
    try:
        with Image.open(io.BytesIO(contents)) as image:  # reads the header alone
            return f"{image.format} {image.mode}"
    except Exception:  # what TensorFlow decodes and Pillow does not know
        return "unknown to Pillow"


def sheet_tile(pixels: np.ndarray, side: int = _SHEET_SIDE) -> np.ndarray:
    """The image fitted into a white square, for a sheet of many."""
    image = Image.fromarray(pixels)
    scale = side / max(image.size)
    drawn = image.resize(tuple(max(1, round(length * scale)) for length in image.size), reducing_gap=2)
    square = Image.new("RGB", (side, side), "white")
    square.paste(drawn, ((side - drawn.width) // 2, (side - drawn.height) // 2))
    return np.asarray(square)


def group_duplicates(fingerprints: Sequence[Fingerprint], near: bool = True) -> list[list[int]]:
    """Indices of images that are the same, or nearly, in groups of two and more.

    Nearly the same: at most `NEAR_BITS` of the hash differ, and the thumbnails by at most `NEAR_LEVELS` on average. The
    hash alone would take all flat images for one, the thumbnails alone all dark ones. So an image is found again
    after it was recompressed, resized, or slightly edited; not after it was cropped, mirrored or turned. If A is like B
    and B like C, the three are one group.

    Cost: every hash is compared with every other, as numbers, in tiles of a table that is never held whole: time grows
    with the square of the count, 11 seconds on a core for 100,000 images.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    count = len(fingerprints)
    first: dict[bytes, int] = {}
    same = np.array([first.setdefault(item.digest, index) for index, item in enumerate(fingerprints)], int)
    pairs = [np.stack([np.arange(count), same], axis=1)]
    if near and first:
        distinct = np.array(list(first.values()))  # of exact copies one stands for all
        pairs += [distinct[found] for found in _near_pairs([fingerprints[index] for index in distinct])]
    rows, columns = np.concatenate(pairs).T
    _, group = connected_components(coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(count, count)), False)
    order = np.argsort(group, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    return sorted(found.tolist() for found in members if len(found) > 1)


def _near_pairs(fingerprints: Sequence[Fingerprint]) -> list[np.ndarray]:
    hashes = np.array([item.hash for item in fingerprints], np.uint64)
    thumbnails = np.stack([item.thumbnail for item in fingerprints]).reshape(len(fingerprints), -1)
    found, (rows, columns) = [], _TILE
    for top in range(0, len(hashes), rows):
        for left in range(top, len(hashes), columns):
            apart = np.bitwise_count(hashes[top : top + rows, None] ^ hashes[None, left : left + columns])
            pairs = np.argwhere(apart <= NEAR_BITS) + np.array([top, left])
            pairs = pairs[pairs[:, 0] < pairs[:, 1]]
            for part in np.array_split(pairs, len(pairs) // columns + 1):  # of flat images there may be very many
                one, other = (thumbnails[part[:, side]].astype("int16") for side in (0, 1))
                found.append(part[np.abs(one - other).mean(axis=1) <= NEAR_LEVELS])
    return found

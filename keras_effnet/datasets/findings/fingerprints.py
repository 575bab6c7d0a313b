"""Perceptual image fingerprints and duplicate detection. NumPy, SciPy and Pillow."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from keras_effnet.datasets.image_formats.pillow_decoder import describe

_HASH_SIDES, _THUMBNAIL_SIDE, _SHEET_SIDE = (9, 8), 16, 96
NEAR_BITS = 6  # bits of the 64-bit hash that may differ between near duplicates
NEAR_LEVELS = 8.0  # mean difference of their thumbnails, in grey levels of 256
_TILE = (512, 4096)  # rows and columns of the distance matrix computed at once


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """Fingerprint of an image.

    Args:
        digest: Bytes, hash of the file's contents, or of the pixels of an image without a file.
        hash: Int, 64-bit difference hash: horizontal gradient signs of a 9x8 grayscale reduction.
        thumbnail: `uint8` array of shape `(16, 16, 3)`.
        width: Int, pixels.
        height: Int, pixels.
        mode: String, format and colour mode of the file: `"JPEG RGB"`, `"PNG RGBA"`; `"pixels"` without a file.
    """

    digest: bytes
    hash: int
    thumbnail: np.ndarray
    width: int
    height: int
    mode: str


def fingerprint(pixels: np.ndarray, contents: bytes | None = None) -> Fingerprint:
    """Compute the fingerprint of an image.

    Args:
        pixels: `uint8` array of shape `(height, width, 3)`, the decoded image.
        contents: Bytes of its file; None if it has none.
    """
    image = Image.fromarray(pixels)
    height, width = pixels.shape[:2]
    small = image.resize((_THUMBNAIL_SIDE,) * 2, Image.Resampling.BOX, reducing_gap=2)
    grey = np.asarray(image.resize(_HASH_SIDES, Image.Resampling.BOX, reducing_gap=2).convert("L"))
    bits = np.packbits(grey[:, 1:] > grey[:, :-1])
    whole = contents if contents is not None else pixels.tobytes() + repr(pixels.shape).encode()
    digest = hashlib.sha256(whole).digest()[:16]
    mode = "pixels" if contents is None else describe(contents)
    return Fingerprint(digest, int.from_bytes(bits.tobytes()), np.asarray(small), width, height, mode)


def sheet_tile(pixels: np.ndarray, side: int = _SHEET_SIDE) -> np.ndarray:
    """Fit an image into a white square for a contact sheet.

    Args:
        pixels: `uint8` array of shape `(height, width, 3)`.
        side: Int, side of the square in pixels.

    Returns:
        A `uint8` array of shape `(side, side, 3)`.
    """
    image = Image.fromarray(pixels)
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    drawn = image.resize(size, reducing_gap=2)
    square = Image.new("RGB", (side, side), "white")
    square.paste(drawn, ((side - drawn.width) // 2, (side - drawn.height) // 2))
    return np.asarray(square)


def group_duplicates(fingerprints: Sequence[Fingerprint], near: bool = True) -> list[list[int]]:
    """Group exact and near duplicates.

    Two images are near duplicates if at most `NEAR_BITS` bits of their hashes differ and their thumbnails differ by at
    most `NEAR_LEVELS` on average. The hash alone would match all flat images, the thumbnail alone all dark ones. An
    image is found after recompression, resizing or slight edits, not after cropping, flipping or rotation. Groups are
    transitive: if A matches B and B matches C, the three are one group.

    Time is quadratic in the number of images, 11 s on one core for 100,000: all pairs of hashes are compared, in tiles
    of bounded memory.

    Args:
        fingerprints: Sequence of `Fingerprint`.
        near: Bool, whether to include near duplicates.

    Returns:
        Sorted lists of indices, two or more per group.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    count = len(fingerprints)
    first: dict[bytes, int] = {}
    same = np.array([first.setdefault(item.digest, index) for index, item in enumerate(fingerprints)], int)
    pairs = [np.stack([np.arange(count), same], axis=1)]
    if near and first:
        distinct = np.array(list(first.values()))  # exact copies are compared only once
        pairs += [distinct[found] for found in _near_pairs([fingerprints[index] for index in distinct])]
    rows, columns = np.concatenate(pairs).T
    _, group = connected_components(coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(count, count)), False)
    order = np.argsort(group, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    return sorted(found.tolist() for found in members if len(found) > 1)


def _near_pairs(fingerprints: Sequence[Fingerprint]) -> list[np.ndarray]:
    hashes = np.array([item.hash for item in fingerprints], np.uint64)
    thumbnails = np.stack([item.thumbnail for item in fingerprints]).reshape(len(fingerprints), -1)
    rows, columns = _TILE
    found: list[np.ndarray] = []
    for top in range(0, len(hashes), rows):
        for left in range(top, len(hashes), columns):
            apart = np.bitwise_count(hashes[top : top + rows, None] ^ hashes[None, left : left + columns])
            pairs = np.argwhere(apart <= NEAR_BITS) + np.array([top, left])
            pairs = pairs[pairs[:, 0] < pairs[:, 1]]
            for part in np.array_split(pairs, len(pairs) // columns + 1):  # flat images may give very many pairs
                one, other = (thumbnails[part[:, side]].astype("int16") for side in (0, 1))
                found.append(part[np.abs(one - other).mean(axis=1) <= NEAR_LEVELS])
    return found

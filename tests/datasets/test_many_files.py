"""Decoding of many files: small and large ones, sound and broken ones, in order and in batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_effnet.datasets import many_files
from keras_effnet.datasets.decoding import BadFile
from keras_effnet.datasets.many_files import decode_files, find_bad_files


@pytest.fixture
def mixed(tmp_path):
    """150 files of all sizes, every seventh one broken, one missing and one listed twice; and their pixels."""
    rng, paths, pixels = np.random.default_rng(0), [], []
    for number in range(150):
        path = tmp_path / f"{number}.png"
        side = 90 if number % 5 == 0 else 4 + number % 9  # 90 x 90 noisy pixels take more than a small file
        image = rng.integers(0, 256, (side, side + 3, 3)).astype("uint8")
        Image.fromarray(image).save(path)
        if number % 7 == 0 or 40 <= number < 80:  # also a whole batch
            path.write_bytes(path.read_bytes()[:50])
        paths.append(str(path))
        pixels.append(None if number % 7 == 0 or 40 <= number < 80 else image)
    paths += [str(tmp_path / "gone.png"), paths[1]]
    return paths, [*pixels, None, pixels[1]]


def test_small_and_large_files_come_in_order_with_their_bytes_and_broken_ones_with_their_reason(mixed, monkeypatch):
    monkeypatch.setattr(many_files, "_CHUNK_FILES", 64)
    paths, expected = mixed
    found = list(decode_files(paths))
    assert len(found) == len(paths)
    for path, item, pixels in zip(paths, found, expected, strict=True):
        if pixels is None:
            assert isinstance(item, BadFile) and item.path == path and item.reason
        else:
            np.testing.assert_array_equal(item[1], pixels)
            assert item[0] == Path(path).read_bytes()
    assert find_bad_files(paths) == [item for item in found if isinstance(item, BadFile)]
    assert len({item.reason for item in find_bad_files(paths)}) == 2  # truncated, missing

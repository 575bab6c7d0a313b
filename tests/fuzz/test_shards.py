"""Damaged TFRecord shards, and damaged indices of packed folders: read, skipped and said, or refused in one line."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import shard_targets
from fuzzing import BINARY, TEXT, fuzz, mutants
from PIL import Image

from keras_effnet.datasets.packing import pack

SLICE = 8
TARGETS = {
    "shard": ("*.tfrecord*", shard_targets.shard, BINARY, ".tfrecord", 350),
    "checked": ("*.tfrecord*", shard_targets.checked, BINARY, ".tfrecord", 50),
    "index": ("index.json", shard_targets.index, TEXT, ".json", 50),
    "records": ("records.npz", shard_targets.records, BINARY, ".npz", 50),
}


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A packed folder of 24 images in two classes."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (folder / name).mkdir()
        for number in range(12):
            Image.fromarray(rng.integers(0, 256, (40, 36, 3)).astype("uint8")).save(folder / name / f"{number}.jpg")
    shutil.rmtree(shard_targets.PACKED, ignore_errors=True)
    pack(folder, shard_targets.PACKED)
    yield shard_targets.PACKED
    shutil.rmtree(shard_targets.PACKED, ignore_errors=True)


def damaged(kind, packed, folder, count):
    pattern, target, mutators, suffix, _ = TARGETS[kind]
    files = {path.name: path.read_bytes() for path in sorted(packed.glob(pattern))}
    tally = fuzz(target, mutants(files, count, mutators), folder, suffix=suffix)
    assert not tally.failures, tally
    return tally


@pytest.mark.slow
@pytest.mark.parametrize("kind", TARGETS)
def test_a_slice_of_damaged_shards_and_indices(kind, packed, tmp_path):
    damaged(kind, packed, tmp_path, SLICE)


@pytest.mark.soak
@pytest.mark.parametrize("kind", TARGETS)
def test_damaged_shards_and_indices(kind, packed, tmp_path):
    tally = damaged(kind, packed, tmp_path, TARGETS[kind][4])
    print(tally.row(f"TFRecord, {kind}", "tests/fuzz/test_shards.py"))

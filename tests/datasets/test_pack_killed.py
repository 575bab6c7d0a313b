"""`keras-effnet pack` killed at random moments: the pack is whole or absent, and the next run makes the same."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keras_effnet.datasets.tfrecord.packed import PARTIAL


def start(folder: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "keras_effnet", "pack", "images", "packed", "--size", "32", *options]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **silent)


def files(folder: Path) -> dict[str, str]:
    """Name and digest of every file of a pack; a pack in the making is a hidden folder."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("[!.]*"))}


@pytest.mark.parametrize(
    "kills", [pytest.param(1, marks=pytest.mark.slow), pytest.param(10, marks=pytest.mark.soak)], ids=["slice", "all"]
)
def test_a_killed_pack_is_whole_or_absent_and_the_next_one_is_the_same(image_folder, tmp_path, kills):
    image_folder({"cat": 200, "dog": 200}, size=300)
    started = time.perf_counter()
    assert start(tmp_path).wait() == 0
    whole, expected = time.perf_counter() - started, files(tmp_path / "packed")
    assert len(expected) >= 3
    moments = random.Random(kills)
    killed = 0
    for existing in [False, True] * (kills // 2) or [True]:
        if not existing:
            (tmp_path / "packed").rename(tmp_path / f"before-{killed}")
        process = start(tmp_path, "--overwrite")
        try:
            process.wait(moments.uniform(0.5, 1.0) * whole)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
        assert files(tmp_path / "packed") in ([expected] if existing else [expected, {}])
        if not existing:
            assert start(tmp_path, "--overwrite").wait() == 0
            assert files(tmp_path / "packed") == expected
    assert killed > kills // 2
    assert start(tmp_path, "--overwrite").wait() == 0
    assert files(tmp_path / "packed") == expected
    assert not (tmp_path / "packed" / PARTIAL).exists()

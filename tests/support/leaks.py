"""What a test must leave as it found it: tests of one process share it, and a later one would depend on the order."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import pytest
import tensorflow as tf

# Variables that pytest changes, and that libraries set when they are imported.
HARMLESS = ("PYTEST_", "KMP_", "OMP_", "PYTHONBREAKPOINT", "PYTORCH_", "RAY_", "TORCH", "TPU_")


def process_state() -> dict[str, object]:
    """Settings of the process by name: environment, working directory, global switches of Keras and TensorFlow."""
    environment = {f"${name}": value for name, value in os.environ.items() if not name.startswith(HARMLESS)}
    return environment | {
        "working directory": str(Path.cwd()),
        "dtype policy": keras.config.dtype_policy().name,
        "floatx": keras.config.floatx(),
        "image data format": keras.config.image_data_format(),
        "functions run eagerly": tf.config.functions_run_eagerly(),
        "logging level": logging.getLogger("keras_effnet").level,
    }


def changes(before: dict[str, object], after: dict[str, object]) -> list[str]:
    """One sentence for each setting that differs."""
    names = sorted(before.keys() | after.keys())
    return [
        f"{name} was {before.get(name)!r} and is {after.get(name)!r}"
        for name in names
        if before.get(name) != after.get(name)
    ]


@contextmanager
def unchanged_process() -> Iterator[None]:
    """Fail if what runs within changes the process; what it changed is put back."""
    before, environment = process_state(), dict(os.environ)
    yield
    found = changes(before, process_state())
    if found:
        _put_back(before, environment)
    assert not found, "this test leaks into later ones: " + "; ".join(found)


def _put_back(before: dict[str, object], environment: dict[str, str]) -> None:
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
    os.chdir(str(before["working directory"]))
    keras.config.set_dtype_policy(before["dtype policy"])
    keras.config.set_floatx(before["floatx"])
    keras.config.set_image_data_format(before["image data format"])
    tf.config.run_functions_eagerly(before["functions run eagerly"])
    logging.getLogger("keras_effnet").setLevel(before["logging level"])


@pytest.fixture(autouse=True)
def process_left_as_it_was() -> Iterator[None]:
    """Every test leaves its process as it found it."""
    with unchanged_process():
        yield

"""Targets: models and weights as every reader of this package opens them, within bounded memory."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from weight_files import TINY_LITE, tiny

from keras_effnet.errors import UserError
from keras_effnet.inference import artifacts
from keras_effnet.models.saving import load_model
from keras_effnet.system.machine import peak_resident_bytes
from keras_effnet.weights.loading import load_weights

MEMORY = 500 << 20  # bytes by which one file may raise the peak of the process, TensorFlow's first use included


def _bounded(read, path: Path) -> bool:
    """Read a file, and say whether it was accepted."""
    before = peak_resident_bytes()
    try:
        read(path)
    except UserError as error:
        refused = error
    else:
        refused = None
    grown = peak_resident_bytes() - before
    assert grown < MEMORY, f"the memory grew by {grown:,} bytes"
    assert refused is None or "safe_mode" not in str(refused)
    if refused:
        raise refused
    return True


@cache
def _network():
    return tiny(TINY_LITE)


def weights(path: Path) -> None:
    """Load a file of weights into a network, which stays as it is if the file is refused."""
    _bounded(lambda path: load_weights(_network(), path), path)


def model(path: Path) -> None:
    """Open a `.keras` file in every way that the package has; the refusal of the last one counts."""
    _network()
    refusals = []
    for read in (weights, lambda path: _bounded(load_model, path), lambda path: _bounded(artifacts.load, path)):
        try:
            read(path)
        except UserError as error:
            assert "\n" not in str(error), error
            refusals.append(error)
    if refusals:
        raise refusals[-1]

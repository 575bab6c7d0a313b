"""Rows of a study's `results.jsonl`, their check when they are read, and errors of writing them. Pure Python."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypedDict

from keras_effnet.errors import UserError
from keras_effnet.system import jsonl
from keras_effnet.system.files import WriteError
from keras_effnet.system.typed_values import conform

RESULTS_JSONL = "results.jsonl"


class _Row(TypedDict):
    kind: str
    member: str


class _Epoch(TypedDict):
    epoch: int
    seconds: float
    val_accuracy: float | None


class _TrainingCosts(TypedDict, total=False):
    train_seconds: float
    predicted_seconds: float
    input_bound: float | None
    energy_joules: float | None
    peak_memory_mb: float | None
    val_images: int | None
    test_accuracy: float
    test_images: int
    metric: Literal["AP"]
    resampled: list[float]
    curve: list[_Epoch]


class TrainingRow(_Row, _TrainingCosts):
    """A finished training."""

    seed: int
    epochs: int
    accuracy: float


class _CostFigures(TypedDict, total=False):
    metric: Literal["AP"]
    axis: str
    phi: float
    model: str
    image_size: int
    classes: int
    params: int
    macs: int
    activations: int
    step_iqr_ms: float
    train_images_per_second: float
    predict_iqr_ms: float
    predict_images_per_second: float
    tflite_bytes: int
    tflite_ms: float
    tflite_iqr_ms: float
    trace_seconds: float | None
    cores: int | None
    other_cores: float | None
    slowdown: dict[str, float]


class CostRow(_Row, _CostFigures):
    """Cost of a network."""

    step_ms: float
    predict_ms: float


class _Tried(TypedDict):
    learning_rate: float
    accuracy: float


class TuningRow(_Row):
    """Learning rate of a network, chosen by validation accuracy."""

    learning_rate: float
    epochs: int
    tried: list[_Tried]


class PaceRow(_Row):
    """Pace of a network's trainings, measured with as many at once as the study runs."""

    first_seconds: float
    epoch_seconds: float
    workers: int


class FailureRow(_Row):
    """A training that failed."""

    seed: int
    error: str


class _Peaks(TypedDict):
    gflops: float
    gbytes_per_s: float


class _Kind(TypedDict):
    kind: str
    intensity: float
    gflops: float


class RooflineRow(_Row):
    """Speed of each kind of convolution."""

    peaks: _Peaks
    kinds: list[_Kind]


_OPTIONAL = {"input_bound", "energy_joules", "classes", "val_images"}  # not measured by earlier versions
_OPTIONAL |= {"test_accuracy", "test_images"}  # no test images
_OPTIONAL |= {"metric", "resampled"}  # only of detectors
_OPTIONAL |= {"predicted_seconds"}  # only with a budget of seconds
_OPTIONAL |= {"trace_seconds", "cores", "other_cores"}
_OPTIONAL |= {"slowdown"}  # only of networks that were timed in another group than the first

_KINDS: dict[str, type] = {
    "training": TrainingRow,
    "cost": CostRow,
    "failure": FailureRow,
    "tuning": TuningRow,
    "pace": PaceRow,
    "roofline": RooflineRow,
}


@contextmanager
def kept_results(folder: Path) -> Iterator[None]:
    """End errors of writing to a study's folder with the option that resumes the study."""
    try:
        yield
    except WriteError as error:
        cure = f"Finished results are kept: free some space, or make the folder writable, then --resume {folder}."
        raise WriteError(error.what, error.reason, cure) from None


def read_complete_results(folder: str | Path) -> list[dict[str, Any]]:
    """Read the rows of a study with all figures that a summary or report needs.

    Raises:
        UserError: As `read_results`.
    """
    rows = read_results(folder)
    for number, row in enumerate(rows, start=1):
        needed = {"cost": CostRow, "training": TrainingRow}.get(row["kind"])
        missing = sorted(set(typing.get_type_hints(needed)) - row.keys() - _OPTIONAL) if needed else []
        if missing:
            raise UserError(f"{Path(folder) / RESULTS_JSONL}, row {number}: {missing[0]} is missing. Remove that row.")
    return rows


def read_results(folder: str | Path) -> list[dict[str, Any]]:
    """Read and check the rows of a study or search; a missing file has none.

    Raises:
        UserError: A row is not JSON or lacks a field; the message names file, row and field.
    """
    path = Path(folder) / RESULTS_JSONL
    rows = jsonl.read(path)
    for number, row in enumerate(rows, start=1):
        try:
            conform(row, _KINDS.get(str(row.get("kind")), _Row), "")
        except UserError as error:
            raise UserError(f"{path}, row {number}: {error}. Correct or remove that row.") from None
    return rows

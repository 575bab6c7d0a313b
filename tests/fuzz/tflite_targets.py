"""Commands that take a `.tflite` file, run on damaged ones."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from fuzzing import through_cli
from PIL import Image

from keras_effnet.errors import UserError
from keras_effnet.evaluation.metrics import check_finite, collect_outcomes, compute_metrics
from keras_effnet.export import benchmark, inspect
from keras_effnet.inference import artifacts

_RUNS = ("--runs", "2")


def _images(count: int, size: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3)).astype("float32")


@functools.cache
def _image_file() -> Path:
    path = Path(tempfile.mkdtemp(prefix="fuzz-")) / "image.png"
    Image.fromarray(_images(1, 32)[0].astype("uint8")).save(path)
    return path


def _each(*runs: Callable[[], object]) -> None:
    """Call all functions; raise the last refusal, or the first that is not one line."""
    refusal = None
    for run in runs:
        try:
            run()
        except UserError as error:
            refusal = error
            if "\n" in str(error).strip():
                break
    if refusal:
        raise refusal


def api(path: Path) -> None:
    """What `info`, `benchmark`, `predict` and `eval` call."""

    def predict() -> None:
        artifact = artifacts.load(path)
        size = artifact.image_spec.size
        if size > 64:  # a damaged shape that still works
            size = 1
        scores = artifact.predict(_images(3, size))
        check_finite(scores)
        compute_metrics(collect_outcomes([(scores, np.zeros(3, "int32"))]))

    _each(lambda: inspect(path), lambda: benchmark(path, runs=2, warmup=1), predict)


def commands(path: Path) -> None:
    """The commands themselves."""
    out = path.parent / "runs"
    _each(
        lambda: through_cli("info", path),
        lambda: through_cli("info", path, "--json"),
        lambda: through_cli("benchmark", path, *_RUNS),
        lambda: through_cli("predict", _image_file(), "--model", path),
        lambda: through_cli("eval", path, "digits", "--out", out),
    )

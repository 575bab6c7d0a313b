"""`keras-effnet checks`: check that this machine can train and export. Each check is a small real run."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import click

from keras_effnet.cli import console
from keras_effnet.errors import first_line


def _python() -> str:
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        raise RuntimeError(f"Python {sys.version_info[0]}.{sys.version_info[1]}; 3.11 to 3.13 are supported")
    return sys.version.split()[0]


def _packages() -> str:
    names = ("tensorflow", "keras", "ai-edge-litert", "tensorflow-model-optimization", "numpy")
    return ", ".join(f"{name} {metadata.version(name)}" for name in names)


def _devices() -> str:
    import tensorflow as tf

    from keras_effnet.training.by_task.networks import resolve_precision

    kinds = sorted({device.device_type for device in tf.config.list_physical_devices()})
    return f"{', '.join(kinds)}; precision auto is {resolve_precision('auto')}"


def _train_step() -> str:
    import numpy as np

    from keras_effnet.models.efficientnet import EfficientNet

    model = EfficientNet("lite0", classes=2, input_shape=(32, 32, 3))
    model.compile("sgd", "sparse_categorical_crossentropy")
    loss = float(model.train_on_batch(np.zeros((2, 32, 32, 3)), np.array([0, 1])))
    if not np.isfinite(loss):
        raise RuntimeError(f"loss is {loss}")
    return f"loss {loss:.2f}"


def _export() -> str:
    from keras_effnet.export import export_tflite
    from keras_effnet.models.efficientnet import EfficientNet

    model = EfficientNet("lite0", classes=2, input_shape=(32, 32, 3))
    with tempfile.TemporaryDirectory() as folder:
        result = export_tflite(model, Path(folder) / "check.tflite")
    return f"{result.size_bytes / 1e6:.1f} MB, differs from Keras by {result.report.max_abs_diff:.1e}"


CHECKS: dict[str, Callable[[], str]] = {
    "Python": _python,
    "packages": _packages,
    "devices": _devices,
    "training step": _train_step,
    "export and run": _export,
}


@click.command("checks")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json) -> None:
    """Check that this machine can train and export; exit status 1 if not."""
    console.prepare_tensorflow()
    results = {}
    for name, check in CHECKS.items():
        with console.status(name):
            try:
                results[name] = (True, check())
            except Exception as error:  # a check reports any failure
                results[name] = (False, f"{type(error).__name__}: {first_line(error)}")
    sound = all(ok for ok, _ in results.values())
    if as_json:
        console.emit_json({name: {"ok": ok, "detail": detail} for name, (ok, detail) in results.items()})
    else:
        rows = [(name, "ok" if ok else "FAILED", detail) for name, (ok, detail) in results.items()]
        console.table(("check", "", "detail"), rows)
        console.finish("all checks passed" if sound else "see above", ("keras-effnet", "quickstart"))
    if not sound:
        raise click.exceptions.Exit(1)

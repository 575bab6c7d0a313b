"""Shared fixtures: real and synthetic images, one small trained network, the command line."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "PYTEST_XDIST_WORKER" in os.environ:  # with `-n` the processes share the cores
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import keras
import numpy as np
import pytest
import tensorflow as tf
from exports import PRECISIONS
from leaks import process_left_as_it_was  # noqa: F401  # a fixture of every test
from longest_first import pytest_collection_modifyitems  # noqa: F401  # a hook of pytest
from once import folder_made_once
from PIL import Image

from keras_effnet import datasets
from keras_effnet.cli.app import main
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.export import ExportResult, export_tflite
from keras_effnet.models.saving import load_model
from keras_effnet.system.run_folders import new_run
from keras_effnet.training.run import TrainResult, train_dataset


def pytest_configure(config) -> None:
    # TensorFlow's converter says this of every quantization.
    config.addinivalue_line("filterwarnings", "ignore:Statistics for quantized inputs were expected")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item) -> None:
    keras.utils.set_random_seed(0)  # fixtures draw the same numbers in every order of tests


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item) -> None:
    keras.utils.set_random_seed(0)  # and so does a test, independently of its fixtures


@pytest.fixture(scope="session")
def images_root() -> Path:
    """The real images beside a developer's checkout; a test that asks for them skips where there are none."""
    root = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not root.is_dir():
        pytest.skip(f"the real images are not at {root}")
    return root


def _smooth(count: int, size: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 4, 4, 3)).astype("uint8")
    return np.stack([np.asarray(Image.fromarray(one).resize((size, size), Image.Resampling.BICUBIC)) for one in coarse])


@pytest.fixture(scope="session")
def smooth_images() -> Callable[..., np.ndarray]:
    """Function `(count, size, seed=0)` to `uint8` images of soft coloured blobs, unlike noise."""
    return _smooth


@pytest.fixture
def image_folder(tmp_path) -> Callable[..., Path]:
    """Function that writes a folder of class folders, `counts` images a class, each class of its own grey."""

    def write(counts: dict[str, int], *, root: str | Path = "images", size: int = 40, suffix: str = ".png") -> Path:
        folder = tmp_path / root
        folder.mkdir(parents=True, exist_ok=True)
        for label, (name, count) in enumerate(counts.items()):
            (folder / name).mkdir()
            for number in range(count):
                grey = np.full((size, size + 8, 3), 20 + 40 * label, "uint8")
                Image.fromarray(grey).save(folder / name / f"{number:03d}{suffix}")
        return folder

    return write


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 4 MB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=False).returncode
    ):
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture(scope="session")
def toy_model() -> Callable[..., keras.Model]:
    """Function that builds a classifier of two small layers, always with the same weights."""

    def build(classes: int = 3, size: int = 8, dtype: str | None = None) -> keras.Model:
        keras.utils.set_random_seed(0)
        image = keras.Input((size, size, 3))
        x = keras.layers.Rescaling(1 / 255, dtype="float32")(image)
        x = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", dtype=dtype)(x)
        x = keras.layers.GlobalAveragePooling2D(dtype=dtype)(x)
        x = keras.layers.Dense(classes, activation="softmax", dtype="float32")(x)
        model = keras.Model(image, x, name="toy")
        if dtype is not None:
            model.dtype_policy = keras.dtype_policies.get(dtype)
        return model

    return build


@pytest.fixture
def batches(smooth_images) -> tf.data.Dataset:
    """Four batches of eight in a fixed order, of three classes that differ in brightness."""
    labels = np.arange(32, dtype="int32") % 3
    images = smooth_images(len(labels), 8) * (0.3 + 0.3 * labels[:, None, None, None])
    return tf.data.Dataset.from_tensor_slices((images.astype("float32"), labels)).batch(8)


@pytest.fixture(scope="session")
def fragile_model() -> Callable[..., keras.Model]:
    """Function that builds a network which names the strongest colour of 8x8 images, exactly in float, never in int8.

    One channel, which the answer does not depend on, is `1 / small` times as large as those that it does depend on,
    and all share one tensor: its 256 steps are coarser than the colours are.
    """

    def build(small: float = 1e-3) -> keras.Model:
        image = keras.Input((8, 8, 3))
        x = keras.layers.Conv2D(4, 1, name="colours")(image)
        x = keras.layers.ReLU()(x)
        x = keras.layers.GlobalAveragePooling2D()(x)
        x = keras.layers.Dense(3, name="logits")(x)
        model = keras.Model(image, keras.layers.Softmax()(x), name="fragile")
        colours = np.concatenate([np.full((3, 1), 1.0), np.eye(3) * small], axis=1)
        model.get_layer("colours").set_weights([colours[None, None], np.zeros(4)])
        model.get_layer("logits").set_weights(
            [np.concatenate([np.zeros((1, 3)), np.eye(3) * 0.1 / small]), np.zeros(3)]
        )
        return model

    return build


@pytest.fixture(scope="session")
def digits() -> datasets.ImageDataset:
    return datasets.load("digits")


@pytest.fixture(scope="session")
def trained(digits, tmp_path_factory) -> TrainResult:
    """A small network trained on digits, with its run folder. Random weights would hide the effect of int8."""
    config = TrainConfig(
        model="lite0",
        depth=0.1,
        width=0.35,
        image_size=32,
        epochs=8,
        learning_rate=3e-3,
        warmup_epochs=1,
        crop_scale=0.7,
        dropout_rate=0.1,
        drop_connect_rate=0.0,
    )

    def make(folder: Path) -> None:
        result = train_dataset(digits, config, new_run("train", "digits", folder))
        (folder / "evaluation").write_bytes(pickle.dumps((result.evaluation, result.epochs)))

    folder = folder_made_once("trained", make, tmp_path_factory)
    evaluation, epochs = pickle.loads((folder / "evaluation").read_bytes())
    assert evaluation.accuracy >= 0.9, "the network that other tests rely on has not learned its digits"
    (run,) = (folder / "train").iterdir()
    return TrainResult(run, load_model(run / "weights/best.keras"), evaluation, epochs)


@pytest.fixture(scope="session")
def exported(trained, digits, tmp_path_factory) -> dict[str, ExportResult]:
    """The trained network at every precision, int8 with bytes as input, each compared on the held-out digits."""

    def make(folder: Path) -> None:
        results = {
            precision: export_tflite(
                trained.model,
                folder / f"digits_{precision}.tflite",
                precision,
                calibration=digits.train if precision == "int8" else None,
                verification=digits.test,
                input_type="uint8" if precision == "int8" else "float32",
                labels=digits.class_names,
            )
            for precision in PRECISIONS
        }
        (folder / "results").write_bytes(pickle.dumps(results))

    folder = folder_made_once("exported", make, tmp_path_factory)
    results = pickle.loads((folder / "results").read_bytes())
    (folder / "results").unlink()
    return {precision: replace(result, path=folder / result.path.name) for precision, result in results.items()}


class Outcome(NamedTuple):
    """Output and exit status of a command."""

    status: int
    out: str
    err: str


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path) -> Callable[..., Outcome]:
    """Runs the command line in this process, in an empty folder: `cli("info", "b4")`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    log = logging.getLogger("keras_effnet")
    handlers = list(log.handlers)

    def run(*args: object) -> Outcome:
        capsys.readouterr()
        status = 0
        try:
            main([str(arg) for arg in args])
        except SystemExit as stop:
            status = stop.code or 0
        finally:
            log.handlers[:] = handlers  # a handler of this call would write to a stream that is closed by the next
            log.propagate = True  # for caplog
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return run

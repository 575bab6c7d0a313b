"""Small trained networks for tests of fine-tuning in another process.

Such a process takes long to start, and longer the more layers it builds: the network for digits has half of
`trained`'s, and trainings that are not about the process share one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import keras
import numpy as np
import pytest

from keras_effnet import EfficientNet, architecture_spec, datasets
from keras_effnet.architecture.specs import ArchitectureSpec
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.export.calibration import load_images
from keras_effnet.export.finetune import parent
from keras_effnet.preprocessing import ImageSpec
from keras_effnet.training.run import train_dataset
from keras_effnet.transfer import reestimate_batch_norm

TINY = str(
    Path(__file__).with_name("tiny.yaml")
)  # one block: tracing a training is most of its time, and grows with them
IMAGES, LOGIT = 800, 8.0


@cache
def digits_network() -> keras.Model:
    """Three blocks that know their digits, the same for all tests of a session; none may change it.

    The last layers hold nearly all weights, as in networks of use: a file of few is mostly names and shapes.
    """
    lite = architecture_spec("lite0", width=0.35)
    return _knowing_digits(replace(lite, stages=(*lite.stages[:2], replace(lite.stages[2], filters=160)), depth=0.4))


@cache
def swish_network() -> keras.Model:
    """Two blocks with swish and squeeze-and-excite that know their digits; none may change it either."""
    b0 = architecture_spec("b0", width=0.35)
    return _knowing_digits(replace(b0, stages=(b0.stages[0], replace(b0.stages[1], filters=160)), depth=0.4))


def _knowing_digits(spec: ArchitectureSpec) -> keras.Model:
    """Random features and a classifier by ridge regression, which takes a fraction of a training."""
    digits = datasets.load("digits")
    keras.utils.set_random_seed(0)
    model = EfficientNet(spec, weights=None, classes=10, input_shape=(32, 32, 3))
    images = load_images(digits.train, ImageSpec.of_model(model), IMAGES)
    reestimate_batch_norm(model, np.split(images, 8))
    features = keras.Model(model.input, model.get_layer("avg_pool").output)(images)
    features = np.column_stack([features, np.ones(IMAGES)]).astype("float64")
    logits = LOGIT * (np.eye(10)[digits.train.sample(IMAGES, 0).labels] - 0.1)
    products = features.T @ features
    ridge = 0.01 * np.trace(products) / len(products) * np.eye(len(products))
    weights = np.linalg.solve(products + ridge, features.T @ logits)
    model.get_layer("predictions").set_weights([weights[:-1], weights[-1]])
    return model


TRAINER = """
import sys
from pathlib import Path
from keras_effnet.export.finetune.worker import main
for line in sys.stdin:
    main(Path(line.strip()))
    print("done", flush=True)
"""


@contextmanager
def one_trainer() -> Iterator[None]:
    """All trainings meanwhile in one process, of one thread: these networks are too small to share out."""
    environment = os.environ | {"TF_USE_LEGACY_KERAS": "1", "TF_NUM_INTRAOP_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (
        subprocess.Popen([sys.executable, "-c", TRAINER], env=environment, **pipes) as process,
        pytest.MonkeyPatch.context() as patch,
    ):

        def run(job: Path, announce) -> None:
            print(job, file=process.stdin, flush=True)
            assert "done\n" in iter(process.stdout.readline, ""), "the training failed"

        patch.setattr(parent, "_run", run)
        yield
        process.stdin.close()


# A weaker network has so many near ties that any rounding, not int8 alone, moves its accuracy by more than a point.
PHOTOGRAPHS = TrainConfig(model="b0", depth=0.5, width=0.5, image_size=64, epochs=10, crop_scale=0.5)


@cache
def photographs(root: Path) -> datasets.ImageDataset:
    return datasets.load(str(root / "tiny-imagenet-10"), image_size=PHOTOGRAPHS.image_size)


@cache
def photographs_network(root: Path) -> keras.Model:
    """Swish and squeeze-and-excite, trained from scratch on real images of ten classes: for slow tests."""
    with TemporaryDirectory() as folder:
        return train_dataset(photographs(root), PHOTOGRAPHS, Path(folder) / "run").model

"""CPU time of assigning true boxes to anchors and of the focal loss, for Lite0 at 320 pixels.

    python tests/benchmarks/detection_targets_and_losses.py

Prints CPU milliseconds of the process, which other programs disturb less than wall time does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_effnet import detector_spec
from keras_effnet.detection import TargetAssigner, focal_loss
from keras_effnet.system.machine import cpu_name

SIZE, BATCH = 320, 8


def cpu_ms(run: Callable[[], object], repeats: int) -> float:
    """Mean CPU time of one run after a first one."""
    run()
    start = time.process_time()
    for _ in range(repeats):
        run()
    return (time.process_time() - start) / repeats * 1e3


def assignment(count: int) -> float:
    """CPU time per image with `count` boxes, in a tf.data pipeline."""
    rng = np.random.default_rng(0)
    centers, sizes = rng.uniform(30, 290, (count, 2)), rng.uniform(10, 120, (count, 2))
    boxes = np.concatenate([centers - sizes / 2, centers + sizes / 2], axis=1).astype("float32")
    labels = np.zeros(count, "int32")
    images = tf.data.Dataset.from_tensors((boxes, labels)).repeat(200)
    data = images.map(TargetAssigner(detector_spec("det-lite0"), (SIZE, SIZE)))
    return cpu_ms(lambda: [None for _ in data], 2) / 200


def loss(classes: int) -> float:
    """CPU time of the focal loss of a batch and its gradient."""
    anchors = 19_206
    labels = np.full((BATCH, anchors), -1, "int32")
    labels[:, :400] = np.random.default_rng(0).integers(0, classes, (BATCH, 400))
    logits = tf.Variable(tf.random.stateless_normal((BATCH, anchors, classes), (0, 1)) - 4)

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            total = focal_loss(tf.constant(labels), logits)
        return tape.gradient(total, logits)

    return cpu_ms(step, 10)


if __name__ == "__main__":
    from recording import recorded

    with recorded():
        print(f"{cpu_name()}, {os.cpu_count()} cores; Lite0 at {SIZE} pixels.\n")
        print("| work | CPU ms |\n|---|---|")
        for boxes in (15, 100):
            print(f"| assign {boxes} boxes to the anchors of an image | {assignment(boxes):.1f} |", flush=True)
        for number in (3, 90):
            print(f"| focal loss and gradient, {number} classes, {BATCH} images | {loss(number):.0f} |", flush=True)

"""What augmentation does, to look at: every operation at every strength, or a batch as training would see it.

Imports `augment`, `augment_ops`, `augment_policies`, `plots`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_effnet.evaluation import plots
from keras_effnet.pipeline.augmentation import (
    Augmentation,
    augment_image,
    color_jitter,
    cutmix,
    mix_batch,
    mixup,
    random_erasing,
)
from keras_effnet.pipeline.image_ops import OPERATIONS, to_bytes
from keras_effnet.pipeline.policies import RAND_AUGMENT, Range, auto_augment, rand_augment

LEVELS = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0)


def operation_sheet(
    image,
    path: str | Path,
    *,
    ranges: Mapping[str, Range] = RAND_AUGMENT,
    levels: tuple[float, ...] = LEVELS,
) -> None:
    """One row an operation, one column a level, with the strength above each image.

    Args:
        image: Array of shape `(height, width, 3)`, values 0..255.
        path: Where the image goes.
        ranges: Operation -> `Range`, such as `augment_policies.RAND_AUGMENT` or `AUTO_AUGMENT`.
        levels: Floats in 0..10.
    """
    image = to_bytes(image)
    panels, titles = [], []
    for name, bounds in ranges.items():
        for level in levels:
            strength = bounds.at(level)[0]
            panels.append(OPERATIONS[name](image, tf.constant(strength, tf.float32)).numpy())
            titles.append(name if bounds.zero == bounds.ten else f"{name} {strength:.3g}")
    plots.image_grid(np.stack(panels), titles, path, columns=len(levels))


def kinds_sheet(images, path: str | Path, *, columns: int = 6, seed: int = 0) -> None:
    """One row for each kind of augmentation at its usual strength, `columns` draws of it.

    Args:
        images: Array of shape `(N, size, size, 3)`, values 0..255; the first is shown throughout, others mix into it.
        path: Where the image goes.
        columns: Int, draws a row.
        seed: Int.
    """
    images = tf.cast(images, tf.float32)
    kinds = {
        "as it is": lambda image, draw: image,
        "mirrored": lambda image, draw: augment_image(image, draw, Augmentation()),
        "RandAugment": rand_augment,
        "AutoAugment": auto_augment,
        "colour jitter": lambda image, draw: color_jitter(image, draw, 0.4),
        "random erasing": lambda image, draw: random_erasing(image, draw, 1.0),
    }
    draws = [tf.constant((seed, column)) for column in range(columns)]
    panels = [tf.cast(change(images[0], draw), tf.float32) for change in kinds.values() for draw in draws]
    titles = [name for name in kinds for _ in draws]
    for name, mix in {"MixUp": mixup, "CutMix": cutmix}.items():
        for column, draw in enumerate(draws):
            # The image before the first is the last: another one a column.
            pair = tf.stack([images[0], images[1 + column % (len(images) - 1)]])
            mixed, labels = mix(pair, tf.eye(2), draw, 1.0)
            panels.append(mixed[0])
            titles.append(f"{name} {labels[0, 0]:.0%}")
    plots.image_grid(np.stack(panels), titles, path, columns=columns)


def contact_sheet(images, augmentation: Augmentation, path: str | Path, seed: int = 0) -> None:
    """A batch as training would see it: each image augmented, then mixed, with what its label becomes.

    Args:
        images: Array of shape `(N, size, size, 3)`, values 0..255, cropped and resized.
        augmentation: `Augmentation`.
        path: Where the image goes.
        seed: Int.
    """
    count = len(images)
    batch = tf.stack(
        [augment_image(image, tf.constant((seed, place)), augmentation) for place, image in enumerate(images)]
    )
    batch, labels = mix_batch(batch, tf.eye(count), tf.constant((seed, count)), augmentation)
    titles = [
        " + ".join(f"{share:.0%} of {number}" for number, share in enumerate(row) if share >= 0.005)
        for row in labels.numpy()
    ]
    plots.image_grid(batch.numpy(), titles, path, columns=min(count, 8))


_SHOWN = 16  # images in augmented.png


def _draw_augmented(batches: tf.data.Dataset, class_names: Sequence[str], path: Path) -> None:
    """The first images of a batch as training sees them, with their classes, mixed ones by share."""
    images, labels = next(iter(batches.take(1)))

    def title(label) -> str:
        shares = [(float(share), class_names[index]) for index, share in enumerate(label) if share > 0.005]
        return shares[0][1] if len(shares) == 1 else "\n".join(f"{share:.0%} {name}" for share, name in shares)

    shown = slice(_SHOWN)
    plots.image_grid(images[shown].numpy(), [title(label) for label in labels[shown].numpy()], path, columns=8)

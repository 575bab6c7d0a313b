"""Contact sheets of augmentation: every operation at every strength, and batches as training sees them. TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_effnet.datasets.labels.mask_colours import overlay, palette
from keras_effnet.datasets.labels.masks import IGNORED
from keras_effnet.detection.boxes import decode
from keras_effnet.detection.precision import Truth
from keras_effnet.evaluation import plots
from keras_effnet.evaluation.by_task.box_drawings import box_grid, true_boxes
from keras_effnet.pipeline.augmentation import Augmentation, augment_image, color_jitter, mix_batch, random_erasing
from keras_effnet.pipeline.image_ops import OPERATIONS, to_bytes
from keras_effnet.pipeline.mixing import cutmix, mixup
from keras_effnet.pipeline.policies import RAND_AUGMENT, Range, auto_augment, rand_augment

LEVELS = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0)


def operation_sheet(
    image,
    path: str | Path,
    *,
    ranges: Mapping[str, Range] = RAND_AUGMENT,
    levels: tuple[float, ...] = LEVELS,
) -> None:
    """Draw augmentation operations: a row per operation, a column per level, titled with the strength.

    Args:
        image: Array of shape `(height, width, 3)`, values 0..255.
        path: File to write.
        ranges: Operation -> `Range`, such as `policies.RAND_AUGMENT` or `AUTO_AUGMENT`.
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
    """Draw each kind of augmentation at its usual strength: a row per kind, `columns` random draws of it.

    Args:
        images: Array of shape `(N, size, size, 3)`, values 0..255; all rows show the first, mixed with the others.
        path: File to write.
        columns: Int, draws per row.
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
            # Mix with another image in each column.
            pair = tf.stack([images[0], images[1 + column % (len(images) - 1)]])
            mixed, labels = mix(pair, tf.eye(2), draw, 1.0)
            panels.append(mixed[0])
            titles.append(f"{name} {labels[0, 0]:.0%}")
    plots.image_grid(np.stack(panels), titles, path, columns=columns)


def augmented_batch(images, augmentation: Augmentation, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Augment images as training does: each image first, then mixing among the batch.

    Args:
        images: Array of shape `(N, size, size, 3)`, values 0..255, cropped and resized.
        augmentation: `Augmentation`.
        seed: Int.

    Returns:
        Pair of the images, of the same shape, and of their labels, of shape `(N, N)`: the shares of the N images.
    """
    count = len(images)
    batch = tf.stack(
        [augment_image(image, tf.constant((seed, place)), augmentation) for place, image in enumerate(images)]
    )
    batch, labels = mix_batch(batch, tf.eye(count), tf.constant((seed, count)), augmentation)
    return batch.numpy(), labels.numpy()


def box_sheet(
    images, labels: Mapping[str, np.ndarray], anchors: np.ndarray, path: str | Path, class_names: Sequence[str]
) -> None:
    """Draw a training batch of a detector with the boxes that it learns, decoded from the targets of the anchors.

    Args:
        images: Array of shape `(N, height, width, 3)`, values 0..255.
        labels: Dict of `"labels"` and `"codes"`, as `image_pipeline` gives them.
        anchors: Array of shape `(anchors, 4)`, from `detection.anchor_boxes`.
        path: File to write.
        class_names: Names of the classes.
    """
    drawn = []
    for numbers, codes in zip(np.asarray(labels["labels"]), np.asarray(labels["codes"]), strict=True):
        own = numbers >= 0
        rows = np.column_stack([decode(codes[own], anchors[own]).round(1), numbers[own]])
        rows = np.unique(rows, axis=0)  # several anchors have the same box
        drawn.append(true_boxes(Truth(rows[:, :4], rows[:, 4].astype(int)), class_names))
    titles = [f"{len(each)} box{'' if len(each) == 1 else 'es'}" for each in drawn]
    box_grid(np.asarray(images), drawn, titles, path)


def contact_sheet(
    images,
    labels,
    path: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    columns: int = 8,
    task: str = "classification",
) -> None:
    """Draw a training batch, each image titled with its label, such as the shares of the classes that it mixes.

    Args:
        images: Array of shape `(N, height, width, 3)`, values 0..255.
        labels: Array of labels as `image_pipeline` gives them for the task: probabilities of shape `(N, classes)`,
            labels or values, or masks, which are drawn over the images.
        path: File to write.
        class_names: Names of the classes; their numbers by default.
        columns: Int, images per row.
        task: String, what the labels are for.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if task == "segmentation":
        colours = palette(len(class_names) if class_names else int(labels[labels < IGNORED].max(initial=0)) + 1)
        pairs = zip(images, labels, strict=True)
        images = np.stack([overlay(np.clip(image, 0, 255).astype("uint8"), mask, colours) for image, mask in pairs])
        titles = [""] * len(images)
    else:
        names = list(class_names or map(str, range(labels.shape[1])))
        titles = [_TITLES.get(task, _title)(label, names) for label in labels]
    plots.image_grid(images, titles, path, columns=min(len(images), columns))


def _title(label: np.ndarray, names: Sequence[str]) -> str:
    shares = [(float(share), names[index]) for index, share in enumerate(label) if share > 0.005]
    return shares[0][1] if len(shares) == 1 else "\n".join(f"{share:.0%} {name}" for share, name in shares)


def _labels_title(label: np.ndarray, names: Sequence[str]) -> str:
    shown = [
        name if share > 0.995 else f"{share:.0%} {name}"
        for share, name in zip(label, names, strict=True)
        if share > 0.005
    ]
    return "\n".join(shown) or "-"


def _values_title(label: np.ndarray, names: Sequence[str]) -> str:
    return "\n".join(f"{name} {value:.4g}" for value, name in zip(label, names, strict=True))


_TITLES = {"multilabel": _labels_title, "regression": _values_title}

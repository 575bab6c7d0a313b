"""`tf.data` pipeline from a split to batches: decode, crop, resize, augment, batch, mix, prefetch. TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_effnet.architecture.detectors import DetectorSpec
from keras_effnet.datasets.decoding import decode, decode_window
from keras_effnet.datasets.labels.boxes import Boxes
from keras_effnet.datasets.labels.masks import Masks
from keras_effnet.datasets.splits import ImageDataset, Split
from keras_effnet.detection.targets import TargetAssigner
from keras_effnet.errors import UserError, instance_of, whole_number
from keras_effnet.pipeline.augmentation import MOSAIC, Augmentation, augment_image, augment_mask, for_masks, mix_batch
from keras_effnet.pipeline.caching import (
    Cache,
    CachedSplit,
    cached_split,
    choose_cache,
    contents,
    decoded_label,
    elements,
    in_memory,
    without_autograph,
)
from keras_effnet.pipeline.element_order import epoch_elements, service_elements, sharding_policy
from keras_effnet.pipeline.geometry import (
    crop,
    crop_window,
    evaluation_image,
    evaluation_mask,
    resize,
    resize_mask,
    resize_window,
)
from keras_effnet.pipeline.scenes import PADDED, check_augmentation, evaluation_scene, mosaic, training_scene
from keras_effnet.preprocessing import ImageSpec

_CORES = os.cpu_count() or 1
_PREFETCHED = 2  # batches
_Sample = tuple[tf.Tensor, tf.Tensor, tf.Tensor]  # image, label, seed
_FILLING = (0.0, {"boxes": 0.0, "classes": -1, "crowd": False, "scale": 0.0})  # of batches of scenes
LABEL_OUT_OF_RANGE = "A label lies beyond the classes of the model"


def _as_split(dataset: ImageDataset | Split | CachedSplit, training: bool) -> Split:
    if isinstance(dataset, CachedSplit):
        return dataset.split
    if isinstance(dataset, ImageDataset):
        return dataset.train if training else dataset.val
    if isinstance(dataset, Split):
        return dataset
    raise UserError(f"image_pipeline takes an ImageDataset or a Split of it, got {type(dataset).__name__}.")


def image_pipeline(
    dataset: ImageDataset | Split | CachedSplit,
    input_spec: ImageSpec,
    batch_size: int,
    *,
    training: bool = False,
    augmentation: Augmentation | None = None,
    epochs: tuple[int, int] | None = None,
    classes: int | None = None,
    detector: DetectorSpec | None = None,
    cache: bool | str = "auto",
    service: str | None = None,
    seed: int = 0,
) -> tf.data.Dataset:
    """Create batches of images at the network's input size, with their labels.

    Args:
        dataset: `ImageDataset`, of which `training` selects the `train` or the `val` split, a `Split`, or a
            `CachedSplit`, which pipelines of several epochs or sizes can share.
        input_spec: `ImageSpec` of the network.
        batch_size: Int. In training a smaller last batch is dropped.
        training: Bool, whether to shuffle and augment; otherwise images are center-cropped, in order.
        augmentation: `Augmentation`; by default a random-resized crop, and flips unless the dataset forbids them.
        epochs: Pair of ints `(first, last)`: the batches of the epochs `first <= epoch < last`, in sequence. The
            batches of an epoch depend only on its number and on `seed`, so training can resume at any epoch. By
            default one epoch, drawn again in each iteration.
        classes: Int, makes class numbers one-hot; required for MixUp and CutMix of classes.
        detector: `DetectorSpec` to whose anchors boxes are assigned; required for training on boxes.
        cache: Bool or `"auto"`, whether to cache decoded files in memory, see `caching.choose_cache`. Ignored for a
            `CachedSplit` and in evaluation, which decodes files again every time.
        service: String, address of a tf.data service, `"grpc://host:5050"`, whose workers prepare the training
            images without a cache. The order of the images then depends on the workers, which may run ahead of each
            other into the next epoch; each of them reads a stream (`Encoded`) completely.
        seed: Int. The same seed gives the same batches, whatever the number of cores. Without `epochs` they also
            depend on the global seed (`keras.utils.set_random_seed`).

    Returns:
        A `tf.data.Dataset` of `(images, labels)`: images are `float32` of shape `(batch, size, size, 3)` with values
        in 0..255. Labels are by the split's: class numbers `int32` of shape `(batch,)`, or with `classes` `float32` of
        shape `(batch, classes)`; labels and values `float32` of shape `(batch, L)`; masks `int32` of shape
        `(batch, size, size)`, which follow crop, resizing and flip; boxes in training as
        `{"labels": (batch, anchors), "codes": (batch, anchors, 4)}` of `detection.TargetAssigner`, in evaluation as
        `boxes` of shape `(batch, B, 4)` in pixels of the input, `classes` and `crowd` of shape `(batch, B)`, filled up
        with the class -1, and `scale` of shape `(batch, 2)`, by which to divide for pixels of the images.

    Raises:
        UserError: The dataset is of the wrong type, or smaller than one training batch; masks or boxes cannot follow
            the augmentation.

    Example:

    >>> data = keras_effnet.datasets.load("digits")
    >>> batches = image_pipeline(data, ImageSpec(64), batch_size=32, training=True)
    >>> images, labels = next(iter(batches))
    >>> images.shape, labels.shape
    (TensorShape([32, 64, 64, 3]), TensorShape([32]))
    """
    split = _as_split(dataset, training)
    numbers = isinstance(split.labels, np.ndarray) and split.labels.ndim == 1  # of classes
    classes = classes if numbers else None
    instance_of("input_spec", input_spec, ImageSpec, "ImageSpec(224) is that of images of 224 pixels.")
    input_spec.check_rgb()
    batch_size = whole_number("batch_size", batch_size)
    if not training:
        return _evaluation(split, input_spec, batch_size, classes)
    if len(split) < batch_size:
        raise UserError(f"{len(split)} training images do not fill a batch of {batch_size}; lower the batch size.")
    augmentation = augmentation or Augmentation(flip=split.mirror)
    if isinstance(split.labels, Masks):
        augmentation = for_masks(augmentation)
    if isinstance(split.labels, Boxes):
        check_augmentation(augmentation)
        detector = instance_of("detector", detector, DetectorSpec, "detector_spec(name) looks one up.")
    if augmentation.mixes and numbers and classes is None:
        raise UserError("MixUp and CutMix mix labels too: pass image_pipeline the number of classes.")
    if service:  # a cache would be useless: its workers get different images every time and have disks of their own
        images = cached_split(split, Cache("none"))
    elif isinstance(dataset, CachedSplit):
        images = dataset
    else:
        kind = cache if isinstance(cache, str) else ("memory" if cache else "none")
        images = cached_split(split, choose_cache(split, kind))
    steps = len(split) // batch_size
    data = (
        service_elements(images, epochs, seed) if service else epoch_elements(images, epochs, steps * batch_size, seed)
    )
    data = data.map(
        _training_map(images, input_spec, augmentation),
        num_parallel_calls=tf.data.AUTOTUNE if service else _parallel_calls(images),  # a service has cores of its own
    )
    if detector is not None and isinstance(split.labels, Boxes):
        data = _with_targets(data, detector, input_spec, augmentation, batch_size)
    data = _with_one_hot_labels(data.batch(batch_size, drop_remainder=True), classes)
    # The seed of the first image is also that of the batch: each use folds a number of its own into it.
    data = data.map(_mixing(augmentation))
    first, last = epochs or (0, 1)
    if service:
        data = data.apply(tf.data.experimental.service.distribute(sharding_policy(split), service))
        if epochs is None:  # each worker drops its last, smaller batch, so the length is unknown
            return _prefetch(data)
        data = data.take(steps * (last - first))
    return _prefetch(data.apply(tf.data.experimental.assert_cardinality(steps * (last - first))))


def _with_targets(
    data: tf.data.Dataset, detector: DetectorSpec, input_spec: ImageSpec, augmentation: Augmentation, batch_size: int
) -> tf.data.Dataset:
    """Assign the boxes of scenes to anchors, after a mosaic within each batch."""
    assign = TargetAssigner(detector, (input_spec.size, input_spec.size))
    if augmentation.mosaic:

        @without_autograph
        def mixed(images, rows, seeds):
            return *mosaic(images, rows, tf.random.fold_in(seeds[0], MOSAIC), augmentation.mosaic), seeds

        filling = (0.0, PADDED, tf.constant(0, tf.int64))
        data = data.padded_batch(batch_size, padding_values=filling, drop_remainder=True).map(mixed).unbatch()

    @without_autograph
    def targets(image, rows, seed):
        known = tf.boolean_mask(rows, rows[:, 4] >= 0)
        return image, assign(known[:, :4], tf.cast(known[:, 4], tf.int32)), seed

    return data.map(targets, num_parallel_calls=_CORES)


def _mixing(augmentation: Augmentation) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    @without_autograph
    def mix(images, labels, seeds):
        return mix_batch(images, labels, seeds[0], augmentation) if augmentation.mixes else (images, labels)

    return mix


def _parallel_calls(images: CachedSplit) -> int:
    """Two calls per core, so that one works while another waits; one if they decode, which may take 0.5 GB each."""
    return 2 * _CORES if images.decoded else _CORES


def _evaluation(split: Split, input_spec: ImageSpec, batch_size: int, classes: int | None) -> tf.data.Dataset:
    @without_autograph
    def prepare(image, label):
        pixels = image if in_memory(split) else decode(contents(image, split))
        if isinstance(split.labels, Boxes):
            return evaluation_scene(pixels, label, input_spec)
        if isinstance(split.labels, Masks):
            label = tf.cast(evaluation_mask(decoded_label(label, split), input_spec), tf.int32)
        return evaluation_image(pixels, input_spec), label

    data = elements(split).map(prepare, num_parallel_calls=_CORES)
    if isinstance(split.labels, Boxes):
        return _prefetch(data.padded_batch(batch_size, padding_values=_FILLING))
    data = data.batch(batch_size)
    return _prefetch(_with_one_hot_labels(data, classes))


def _prefetch(data: tf.data.Dataset) -> tf.data.Dataset:
    """Prefetch batches, without autotuning: it restarts in every iteration and may end it half a second late."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return data.prefetch(_PREFETCHED).with_options(options)


def _training_map(images: CachedSplit, input_spec: ImageSpec, augmentation: Augmentation) -> Callable[..., _Sample]:
    """Return the function that maps an element, its seed and draws to an augmented image, its label and the seed."""

    @without_autograph
    def prepare(example, seed, draws):
        image, label = example
        if isinstance(images.split.labels, Boxes):
            pixels = image if images.decoded else decode(contents(image, images.split))
            return *training_scene(pixels, label, input_spec, augmentation, seed, draws), seed

        def box(shape):
            return crop_window(shape, draws, augmentation)

        if images.decoded:
            image = resize(crop(image, box(tf.shape(image))), input_spec.size, input_spec.interpolation)
        else:  # decodes only the window of a JPEG, at the scale that is needed
            window = decode_window(contents(image, images.split), box, input_spec.size)
            image = resize_window(window, input_spec.size, input_spec.interpolation)
        if isinstance(images.split.labels, Masks):
            label = mask(decoded_label(label, images.split), seed, draws)
        return augment_image(image, seed, augmentation), label, seed

    def mask(classes, seed, draws):
        box = crop_window(tf.shape(classes), draws, augmentation)  # the image's: both have the same shape
        return tf.cast(augment_mask(resize_mask(crop(classes, box), input_spec.size), seed, augmentation), tf.int32)

    return prepare


def _with_one_hot_labels(data: tf.data.Dataset, classes: int | None) -> tf.data.Dataset:
    if classes is None:
        return data
    return data.map(without_autograph(lambda images, labels, *rest: (images, one_hot(labels, classes), *rest)))


def one_hot(labels: tf.Tensor, classes: int) -> tf.Tensor:
    """Encode integer labels as `float32` of shape `(batch, classes)`.

    Args:
        labels: Int tensor of shape `(batch,)`.
        classes: Int, number of classes.

    Raises:
        tf.errors.InvalidArgumentError: A label is not in `range(classes)`.
    """
    inside = tf.reduce_all((labels >= 0) & (labels < classes))
    with tf.control_dependencies([tf.debugging.Assert(inside, [LABEL_OUT_OF_RANGE])]):
        return tf.one_hot(labels, classes)

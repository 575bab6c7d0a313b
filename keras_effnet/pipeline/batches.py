"""tf.data from a split to batches: decode, crop, resize to the network's size, augment, batch, mix, prefetch.

Imports `augment`, `caching`, `datasets`, `splits`, `images`, `preprocessing`, `errors`.
"""

from __future__ import annotations

import os

import tensorflow as tf

from keras_effnet.datasets.decoding import decode, decode_window
from keras_effnet.datasets.loading import ImageDataset, Split
from keras_effnet.datasets.splits import Encoded
from keras_effnet.errors import UserError
from keras_effnet.pipeline.augmentation import Augmentation, augment_image, mix_batch
from keras_effnet.pipeline.caching import Cache, CachedSplit, cached_split, choose_cache, contents, elements, in_memory
from keras_effnet.pipeline.geometry import crop, crop_window, evaluation_image, resize
from keras_effnet.preprocessing import ImageSpec

_CORES = os.cpu_count() or 1
_AHEAD = 2  # batches
CROP_DRAWS = 4  # that a crop takes: its area, its aspect ratio and its place
LABEL_OUT_OF_RANGE = "A label lies beyond the classes of the model"


def _as_split(dataset: ImageDataset | Split | CachedSplit, training: bool) -> Split:
    if isinstance(dataset, CachedSplit):
        return dataset.split
    if isinstance(dataset, ImageDataset):
        return dataset.train if training else dataset.val
    if isinstance(dataset, Split):
        return dataset
    raise UserError(f"image_pipeline takes what datasets.load returns, or a Split of it; got {type(dataset).__name__}.")


def image_pipeline(
    dataset: ImageDataset | Split | CachedSplit,
    input_spec: ImageSpec,
    batch_size: int,
    *,
    training: bool = False,
    augmentation: Augmentation | None = None,
    epochs: tuple[int, int] | None = None,
    classes: int | None = None,
    cache: bool | str = "auto",
    service: str | None = None,
    seed: int = 0,
) -> tf.data.Dataset:
    """Batches of images at the network's input size, with their labels.

    Args:
        dataset: `ImageDataset`, whose `train` or `val` split is taken according to `training`, a `Split`,
            or a `caching.Source`, which pipelines for several epochs or sizes share.
        input_spec: `ImageSpec` of the network.
        batch_size: Int. In training the last, smaller batch is dropped.
        training: Bool: shuffle and augment; otherwise a central crop, in order.
        augmentation: `Augmentation`; by default random-resized-crop, and flips unless the dataset forbids them.
        epochs: Pair `(first, last)`: the batches of the epochs `first <= epoch < last`, one after another. An epoch's
            batches depend on its number and `seed` alone, so a training can go on anywhere. By default one epoch, of
            another number each time that it is iterated.
        classes: Int, makes the labels one-hot; MixUp and CutMix need it.
        cache: Bool or `"auto"`, see `caching.choose_cache`: whether decoded pixels of files are kept in memory.
            Evaluation reads files anew each time, and a `CachedSplit` has been decided on.
        service: String, address of a tf.data service, `"grpc://host:5050"`, whose workers prepare the training
            images, of files decoded anew each time. Their order then depends on the workers, which may run ahead of
            each other from one epoch into the next; a stream (`Encoded`) is read whole by each of them.
        seed: Int. Batches are the same for the same seed, whatever the number of cores. Without `epochs` the global
            seed (`keras.utils.set_random_seed`) has a say too.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`: `float32` of shape `(batch, size, size, 3)` with values in 0..255,
        and `int32` of shape `(batch,)`, or `float32` of shape `(batch, classes)`.

    Raises:
        UserError: The dataset is of the wrong type, or smaller than one training batch.
    """
    split = _as_split(dataset, training)
    if not training:
        return _evaluation(split, input_spec, batch_size, classes)
    if len(split) < batch_size:
        raise UserError(f"{len(split)} training images do not fill a batch of {batch_size}; lower the batch size.")
    augmentation = augmentation or Augmentation(flip=split.mirror)
    if augmentation.mixes and classes is None:
        raise UserError("MixUp and CutMix mix labels too: pass image_pipeline the number of classes.")
    if service:  # its workers have other images each time, and disks of their own
        dataset = cached_split(split, Cache("none"))
    elif not isinstance(dataset, CachedSplit):
        dataset = cached_split(split, choose_cache(split, {True: "memory", False: "none"}.get(cache, cache)))
    steps = len(split) // batch_size
    data = (
        _service_elements(dataset, epochs, seed)
        if service
        else _epoch_elements(dataset, epochs, steps * batch_size, seed)
    )
    data = data.map(
        _training_map(dataset, input_spec, augmentation),
        num_parallel_calls=tf.data.AUTOTUNE if service else _parallel_calls(dataset),  # a service has cores of its own
    )
    data = _with_one_hot_labels(data.batch(batch_size, drop_remainder=True), classes)
    # The seed of the first image serves the batch, too: each use folds a number of its own into it.
    data = data.map(
        lambda images, labels, seeds: (
            mix_batch(images, labels, seeds[0], augmentation) if augmentation.mixes else (images, labels)
        )
    )
    first, last = epochs or (0, 1)
    if service:
        data = data.apply(tf.data.experimental.service.distribute(_sharding_policy(split), service))
        if epochs is None:  # each worker drops its last, smaller batch, so the length is unknown
            return _prefetch(data)
        data = data.take(steps * (last - first))
    return _prefetch(data.apply(tf.data.experimental.assert_cardinality(steps * (last - first))))


def _parallel_calls(images: CachedSplit) -> int:
    """Two a core, so that one works while another waits; one where they decode, each perhaps half a gigabyte."""
    return 2 * _CORES if images.decoded else _CORES


def _evaluation(split: Split, input_spec: ImageSpec, batch_size: int, classes: int | None) -> tf.data.Dataset:
    def prepare(image, label):
        pixels = image if in_memory(split) else decode(contents(image, split))
        return evaluation_image(pixels, input_spec), label

    data = elements(split).map(prepare, num_parallel_calls=_CORES).batch(batch_size)
    return _prefetch(_with_one_hot_labels(data, classes))


def _prefetch(data: tf.data.Dataset) -> tf.data.Dataset:
    """Some batches ahead, without autotuning: it learns anew in every iteration, and may end it half a second late."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return data.prefetch(_AHEAD).with_options(options)


def _epoch_elements(images: CachedSplit, epochs: tuple[int, int] | None, length: int, seed: int) -> tf.data.Dataset:
    """Epochs one after another, each in an order of its own: `((image, label), (epoch, place), draws)`.

    The pair of numbers seeds what happens to an image, so parallel workers may finish in any order. What every image
    needs is drawn for the whole epoch at once, in a fraction of the time.
    """
    if epochs is None:
        numbers = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).take(1)
    else:
        numbers = tf.data.Dataset.range(*epochs)
    count = len(images)

    def epoch(number):
        number += seed << 20
        tf.random.set_seed(1)  # of this function's graph alone, lest the global seed have a say in the order
        order = images.data.shuffle(images.buffer, seed=number, reshuffle_each_iteration=False)
        places = tf.range(count, dtype=tf.int64)
        seeds = tf.stack([tf.fill([count], number), places], axis=1)
        draws = tf.random.stateless_uniform((count, CROP_DRAWS), [number, count])
        data = tf.data.Dataset.zip((order, *map(tf.data.Dataset.from_tensor_slices, (seeds, draws))))
        if images.buffer > count:  # then the shuffle has read them to the end, which completes a cache
            return data.take(length)
        return data.filter(lambda example, seed, draws: seed[1] < length)

    return numbers.flat_map(epoch)


def _service_elements(images: CachedSplit, epochs: tuple[int, int] | None, seed: int) -> tf.data.Dataset:
    """Elements for a tf.data service, which deals them out among its workers; chance seeds what happens to them.

    One epoch without `epochs`, else no end of them: a service begins every job of its own with the same seeds.
    """
    seed += (epochs or (0, 1))[0] << 20
    shuffled = images.data.shuffle(images.buffer, seed=seed)
    if epochs is not None:
        shuffled = shuffled.repeat()

    def chance(*example):
        own = tf.random.uniform((2,), maxval=tf.int64.max, dtype=tf.int64, seed=seed)
        return example, own, tf.random.stateless_uniform((CROP_DRAWS,), own)

    return shuffled.map(chance)


def _sharding_policy(split: Split):
    """How a service divides the images: one by one where it can number them; of a stream all to every worker.

    A stream and its labels are two sources, which would be dealt out independently of each other.
    """
    policy = tf.data.experimental.service.ShardingPolicy
    return policy.OFF if isinstance(split.images, Encoded) else policy.DYNAMIC


def _training_map(images: CachedSplit, input_spec: ImageSpec, augmentation: Augmentation):
    """The function from an element, its seed and draws to an image of the network's size, its label and the seed."""

    def prepare(example, seed, draws):
        image, label = example

        def box(shape):
            return crop_window(shape, draws, augmentation)

        if images.decoded:
            image = crop(image, box(tf.shape(image)))
        else:  # of a JPEG the window alone is decoded
            image = decode_window(contents(image, images.split), box)
        image = resize(image, input_spec.size, input_spec.interpolation)
        return augment_image(image, seed, augmentation), label, seed

    return prepare


def _with_one_hot_labels(data: tf.data.Dataset, classes: int | None) -> tf.data.Dataset:
    if classes is None:
        return data
    return data.map(lambda images, labels, *rest: (images, one_hot(labels, classes), *rest))


def one_hot(labels, classes: int) -> tf.Tensor:
    """Integer labels as `float32` of shape `(batch, classes)`; a label beyond them is an `InvalidArgumentError`."""
    inside = tf.reduce_all((labels >= 0) & (labels < classes))
    with tf.control_dependencies([tf.debugging.Assert(inside, [LABEL_OUT_OF_RANGE])]):
        return tf.one_hot(labels, classes)

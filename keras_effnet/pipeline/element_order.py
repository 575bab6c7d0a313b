"""Order and random seeds of the training images, in epochs or for the workers of a tf.data service. TensorFlow."""

from __future__ import annotations

import tensorflow as tf

from keras_effnet.datasets.splits import Encoded, Split
from keras_effnet.pipeline.caching import CachedSplit, without_autograph

CROP_DRAWS = 4  # random numbers per crop: area, aspect ratio, vertical and horizontal position


def epoch_elements(images: CachedSplit, epochs: tuple[int, int] | None, length: int, seed: int) -> tf.data.Dataset:
    """Return the elements `((image, label), (epoch, place), draws)` of consecutive epochs, each shuffled differently.

    The pair `(epoch, place)` is the seed of an image's augmentation, so parallel workers may finish in any order. The
    random numbers of the crops are drawn for a whole epoch at once, in a fraction of the time.

    Args:
        images: `CachedSplit`.
        epochs: Pair of ints `(first, last)`, numbers of the epochs; None for one, drawn again in each iteration.
        length: Int, elements of an epoch; the others of its order are left out.
        seed: Int.
    """
    if epochs is None:
        numbers = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).take(1)
    else:
        numbers = tf.data.Dataset.range(*epochs)
    count = len(images)

    @without_autograph
    def epoch(number):
        number += seed << 20
        tf.random.set_seed(1)  # of this function's graph only, so that the order does not depend on the global seed
        order = images.data.shuffle(images.buffer, seed=number, reshuffle_each_iteration=False)
        places = tf.range(count, dtype=tf.int64)
        seeds = tf.stack([tf.fill([count], number), places], axis=1)
        draws = tf.random.stateless_uniform((count, CROP_DRAWS), [number, count])
        data = tf.data.Dataset.zip((order, *map(tf.data.Dataset.from_tensor_slices, (seeds, draws))))
        if images.buffer > count:  # the shuffle has read all elements, which completes a cache
            return data.take(length)
        return data.filter(without_autograph(lambda example, seed, draws: seed[1] < length))

    return numbers.flat_map(epoch)


def service_elements(images: CachedSplit, epochs: tuple[int, int] | None, seed: int) -> tf.data.Dataset:
    """Return the elements that a tf.data service distributes among its workers, with random seeds.

    One epoch without `epochs`, otherwise an infinite number: a service starts each of its jobs with the same seeds.

    Args:
        images: `CachedSplit`.
        epochs: Pair of ints, of which the first changes the order.
        seed: Int.
    """
    seed += (epochs or (0, 1))[0] << 20
    shuffled = images.data.shuffle(images.buffer, seed=seed)
    if epochs is not None:
        shuffled = shuffled.repeat()

    @without_autograph
    def with_random_seed(*example):
        image_seed = tf.random.uniform((2,), maxval=tf.int64.max, dtype=tf.int64, seed=seed)
        return example, image_seed, tf.random.stateless_uniform((CROP_DRAWS,), image_seed)

    return shuffled.map(with_random_seed)


def sharding_policy(split: Split) -> tf.data.experimental.service.ShardingPolicy:
    """Sharding policy of a tf.data service: dynamic, or off for a stream, so that each worker reads all of it.

    A stream and its labels are two sources, which would be sharded independently of each other.
    """
    policy = tf.data.experimental.service.ShardingPolicy
    return policy.OFF if isinstance(split.images, Encoded) else policy.DYNAMIC

"""tf.data from a split to batches: decode, crop, resize to the network's size, augment, batch, prefetch.

Imports `datasets`, `images`, `preprocessing`, `errors`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from keras_effnet.datasets import ImageDataset, Split
from keras_effnet.errors import UserError
from keras_effnet.images import decode
from keras_effnet.preprocessing import PIXELS, ImageSpec

CACHE_LIMIT = 2 << 30  # bytes of decoded pixels that are kept in memory without asking


@dataclass(frozen=True)
class Augmentation:
    """What training does to a picture before it is resized.

    Args:
        crop_scale: Pair of floats in (0, 1], smallest and largest share of the area that a random crop keeps.
        crop_ratio: Pair of floats, narrowest and widest aspect ratio of the crop.
        flip: Bool, whether half of the pictures are mirrored.

    Source: random-resized-crop, Szegedy et al. (CVPR 2015).
    """

    crop_scale: tuple[float, float] = (0.35, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True


def resize(image, size: int, interpolation: str = "bilinear") -> tf.Tensor:
    """Half-pixel centres, no antialiasing: bilinear is then what a browser's canvas computes, to half a grey level."""
    resized = tf.image.resize(tf.cast(image, tf.float32), (size, size), method=interpolation, antialias=False)
    # Beside an edge bicubic leaves the range of pixels.
    return tf.clip_by_value(resized, *PIXELS) if interpolation == "bicubic" else resized


def evaluation_image(image, input_spec: ImageSpec) -> tf.Tensor:
    """Cuts the central square of `input_spec.crop` of the shorter side and resizes it to `input_spec.size`.

    Args:
        image: `uint8` tensor of shape `(height, width, 3)`.
        input_spec: `ImageSpec`.

    Returns:
        A `float32` tensor of shape `(size, size, 3)`, values 0..255.
    """
    shape = tf.shape(image)[:2]
    side = tf.cast(tf.round(input_spec.crop * tf.cast(tf.reduce_min(shape), tf.float32)), tf.int32)
    top = (shape - side) // 2
    return resize(image[top[0] : top[0] + side, top[1] : top[1] + side], input_spec.size, input_spec.interpolation)


def _random_box(shape, seed, augmentation: Augmentation) -> tf.Tensor:
    """A crop window `[top, left, height, width]` within a picture of `shape`; its area is uniform in `crop_scale`.

    TensorFlow's own sampler favours small windows (a median of 0.57 for areas of 0.35 to 1, and hardly ever the whole
    picture), so that evaluation would show objects smaller than any seen in training.
    """
    sides = tf.cast(shape[:2], tf.float32)
    draws = tf.random.stateless_uniform((4,), seed)
    smallest, largest = augmentation.crop_scale
    narrowest, widest = map(math.log, augmentation.crop_ratio)
    area = tf.reduce_prod(sides) * (smallest + draws[0] * (largest - smallest))
    ratio = tf.exp(narrowest + draws[1] * (widest - narrowest))
    extent = tf.round(tf.sqrt(area * tf.stack([1 / ratio, ratio])))
    extent = tf.clip_by_value(extent, 1, sides)
    begin = tf.floor(draws[2:] * (sides - extent + 1))
    return tf.cast(tf.concat([begin, extent], axis=0), tf.int32)


def _crop(image, box) -> tf.Tensor:
    return image[box[0] : box[0] + box[2], box[1] : box[1] + box[3]]


def _cropped_pixels(image, seed, augmentation: Augmentation) -> tf.Tensor:
    return _crop(image, _random_box(tf.shape(image), seed, augmentation))


def _cropped_file(path, seed, augmentation: Augmentation) -> tf.Tensor:
    """Reads and crops a file; of a JPEG only the cropped window is decoded, which nearly halves the work."""
    contents = tf.io.read_file(path)

    def jpeg():
        box = _random_box(tf.io.extract_jpeg_shape(contents), seed, augmentation)
        return tf.io.decode_and_crop_jpeg(contents, box, channels=3)

    def other():
        return _cropped_pixels(decode(contents), seed, augmentation)

    return tf.ensure_shape(tf.cond(tf.io.is_jpeg(contents), jpeg, other), (None, None, 3))


def _decoded_file(path) -> tf.Tensor:
    return decode(tf.io.read_file(path))


def _decoded_bytes(split: Split) -> float:
    """Size of all pictures as pixels, estimated from a sample of 16."""
    sample = split.sample(16)
    sizes = [_decoded_file(path).shape.num_elements() for path in sample.images]
    return float(np.mean(sizes)) * len(split)


def _as_split(dataset: ImageDataset | Split, training: bool) -> Split:
    if isinstance(dataset, ImageDataset):
        return dataset.train if training else dataset.val
    if isinstance(dataset, Split):
        return dataset
    raise UserError(f"image_pipeline takes what datasets.load returns, or a Split of it; got {type(dataset).__name__}.")


def image_pipeline(
    dataset: ImageDataset | Split,
    input_spec: ImageSpec,
    batch_size: int,
    *,
    training: bool = False,
    augmentation: Augmentation | None = None,
    cache: bool | str = "auto",
    seed: int = 0,
) -> tf.data.Dataset:
    """Batches of pictures at the network's input size, with their labels.

    Args:
        dataset: `ImageDataset`, whose `train` or `val` split is taken according to `training`, or a `Split`.
        input_spec: `ImageSpec` of the network.
        batch_size: Int. In training the last, smaller batch is dropped.
        training: Bool: shuffle, random-resized-crop and flip; otherwise a central crop, in order.
        augmentation: `Augmentation`; by default the usual one, without flips where the dataset forbids them.
        cache: Bool or `"auto"`: keep decoded pixels in memory. Automatic when a training set of files takes less than
            2 GiB decoded; evaluation reads files anew each time.
        seed: Int. Batches are the same for the same seed and the same global one (`keras.utils.set_random_seed`),
            whatever the number of cores.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`: `float32` of shape `(batch, size, size, 3)` with values in 0..255,
        and `int32` of shape `(batch,)`.

    Raises:
        UserError: The dataset is of the wrong type, or smaller than one training batch.
    """
    split = _as_split(dataset, training)
    if training and len(split) < batch_size:
        raise UserError(f"{len(split)} training pictures do not fill a batch of {batch_size}; lower the batch size.")
    augmentation = augmentation or Augmentation(flip=split.mirror)
    workers = tf.data.AUTOTUNE

    files = isinstance(split.images, tuple)
    data = tf.data.Dataset.from_tensor_slices((list(split.images) if files else split.images, split.labels))
    if files and cache == "auto":
        cache = training and _decoded_bytes(split) < CACHE_LIMIT
    if files and cache:
        data = data.map(lambda path, label: (_decoded_file(path), label), num_parallel_calls=workers).cache()
        files = False  # from here on the elements are pixels

    if training:
        crop = _cropped_file if files else _cropped_pixels

        def prepare(example, number):
            image, label = example
            crop_seed, flip_seed = tf.unstack(tf.random.split(number))
            image = resize(crop(image, crop_seed, augmentation), input_spec.size, input_spec.interpolation)
            if augmentation.flip:
                image = tf.image.stateless_random_flip_left_right(image, flip_seed)
            return image, label

        # A number for each picture and epoch: parallel workers may finish in any order and change nothing.
        numbers = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).batch(2)
        data = tf.data.Dataset.zip((data.shuffle(len(split), seed=seed), numbers))
    else:
        pixels = _decoded_file if files else tf.identity

        def prepare(image, label):
            return evaluation_image(pixels(image), input_spec), label

    data = data.map(prepare, num_parallel_calls=workers)
    return data.batch(batch_size, drop_remainder=training, num_parallel_calls=workers).prefetch(workers)

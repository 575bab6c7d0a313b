"""Augmentation of training images as fast tensor ops: policies, colour jitter, random erasing, MixUp and CutMix.

Every function draws from the seed it is given and from nothing else, so that parallel workers may run in any order.
Imports `augment_ops`, `augment_policies`, `config`, `errors`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import tensorflow as tf

from keras_effnet.config.declarations import declared_options
from keras_effnet.config.train_config import Policy, TrainConfig
from keras_effnet.pipeline import image_ops as ops
from keras_effnet.pipeline.policies import auto_augment, rand_augment

_FLIP, _POLICY, _JITTER, _ERASING, _MIX = range(5)  # what each part folds into the seed that it shares with the others


@dataclass(frozen=True)
class Augmentation:
    """Augmentation of training images; defaults and bounds are those of `TrainConfig`.

    Args:
        crop_scale: Pair of floats in (0, 1], smallest and largest share of the area that a random crop keeps.
        crop_ratio: Pair of floats, narrowest and widest aspect ratio of the crop.
        flip: Bool, whether half of the images are mirrored.
        policy: `"none"`, `"randaugment"` or `"autoaugment"`.
        layers: Int, operations that RandAugment applies to an image.
        magnitude: Float in 0..10, strength of RandAugment's operations. 0 hardly changes an image.
        color_jitter: Float in 0..1: brightness, contrast and saturation change by a factor of up to 1 +- this, hue by
            up to a tenth of it as share of the colour circle. 0 is off.
        erasing: Float in 0..1, share of the images of which a rectangle becomes noise.
        mixup: Float, alpha of the Beta distribution that images are blended by. 0 is off.
        cutmix: Float, alpha of the Beta distribution of the area that comes from another image. 0 is off. With
            `mixup` as well, a coin decides for each batch.

    Raises:
        UserError: A value is out of its range.

    Source: random-resized-crop, Szegedy et al. (CVPR 2015); others at the functions that do it.
    """

    crop_scale: tuple[float, float] = (TrainConfig.crop_scale, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    policy: Policy = TrainConfig.policy
    layers: int = TrainConfig.policy_layers
    magnitude: float = TrainConfig.magnitude
    color_jitter: float = TrainConfig.color_jitter
    erasing: float = TrainConfig.erasing
    mixup: float = TrainConfig.mixup
    cutmix: float = TrainConfig.cutmix

    def __post_init__(self) -> None:
        options = declared_options(TrainConfig)
        for name in ("policy", "magnitude", "color_jitter", "erasing", "mixup", "cutmix"):
            options[name].check(getattr(self, name))
        options["policy_layers"].check(self.layers)

    @property
    def mixes(self) -> bool:
        """Whether images of a batch, and with them their labels, are mixed."""
        return self.mixup > 0 or self.cutmix > 0

    def scaled(self, strength: float) -> Augmentation:
        """The same in a milder form: RandAugment's magnitude and how much is mixed, times `strength`."""
        milder = {name: getattr(self, name) * strength for name in ("magnitude", "mixup", "cutmix")}
        return replace(self, **milder)


# ------------------------------------------------------------------ one image


_TO_YIQ = ((0.299, 0.596, 0.211), (0.587, -0.274, -0.523), (0.114, -0.322, 0.312))  # a row for each of red, green, blue


def hue_matrix(turn) -> tf.Tensor:
    """What turns a pixel's colour by a share of the circle and leaves its luma as it is."""
    to_yiq = tf.constant(_TO_YIQ)
    angle = turn * (2 * math.pi)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    zero, one = tf.zeros_like(cosine), tf.ones_like(cosine)
    rotation = tf.reshape(tf.stack([one, zero, zero, zero, cosine, sine, zero, -sine, cosine]), (3, 3))
    return to_yiq @ rotation @ tf.linalg.inv(to_yiq)


def color_jitter(image, seed, strength: float) -> tf.Tensor:
    """Changes brightness, contrast, saturation and hue, in this order, each by a random amount.

    All four are linear in the three values of a pixel, so that they are one product with a matrix; values are cut to
    0..255 once, at the end.

    Args:
        image: Tensor of shape `(height, width, 3)`, values 0..255.
        seed: Integer tensor of shape `(2,)`.
        strength: Float in 0..1. Factors are uniform in 1 +- `strength`; hue turns by up to a tenth of it either way, as
            share of the colour circle.

    Returns:
        A `float32` tensor of the same shape.
    """
    image = tf.cast(image, tf.float32)
    draws = tf.random.stateless_uniform((4,), seed, -strength, strength)
    bright, contrasted, saturated = tf.unstack(1 + draws[:3])
    grey = bright * tf.tensordot(tf.reduce_mean(image, axis=(0, 1)), tf.constant(ops.LUMA), 1)
    matrix = bright * contrasted * (ops.saturation_matrix(saturated) @ hue_matrix(draws[3] / 10))
    # Grey stays grey under saturation and hue, so the offset passes through them.
    return tf.clip_by_value(ops.mix_channels(image, matrix, (1 - contrasted) * grey), 0, 255)


def random_erasing(image, seed, probability: float) -> tf.Tensor:
    """Fills a rectangle with noise, uniform in 0..255, in a share of the images.

    Its area is uniform in 0.02..0.4 of the image's, its aspect ratio between 0.3 and 1 / 0.3 as far as it fits.

    Args:
        image: Tensor of shape `(height, width, 3)`, values 0..255.
        seed: Integer tensor of shape `(2,)`.
        probability: Float in 0..1.

    Returns:
        A `float32` tensor of the same shape.

    Source: Zhong et al., Random Erasing Data Augmentation (AAAI 2020).
    """
    image = tf.cast(image, tf.float32)
    draws = tf.random.stateless_uniform((5,), seed)
    sides = tf.shape(image)[:2]

    def erased():
        area = 0.02 + draws[1] * 0.38
        # Height over width, as shares of the image's sides. Beyond these bounds one of them would exceed 1.
        highest = tf.minimum(-math.log(0.3), -tf.math.log(area))
        ratio = tf.exp((2 * draws[2] - 1) * highest)
        shares = tf.sqrt(area * tf.stack([ratio, 1 / ratio]))
        extent = tf.maximum(tf.cast(tf.round(shares * tf.cast(sides, tf.float32)), tf.int32), 1)
        begin = tf.cast(draws[3:] * tf.cast(sides - extent + 1, tf.float32), tf.int32)
        margins = tf.concat([tf.stack([begin, sides - begin - extent], axis=1), tf.zeros((1, 2), tf.int32)], axis=0)
        noise = tf.random.stateless_uniform(tf.concat([extent, (3,)], axis=0), seed + 1, 0, 255)
        kept = tf.pad(tf.zeros(tf.concat([extent, (1,)], axis=0)), margins, constant_values=1)
        return image * kept + tf.pad(noise, margins)

    return tf.ensure_shape(tf.cond(draws[0] < probability, erased, lambda: image), image.shape)


def augment_image(image, seed, augmentation: Augmentation) -> tf.Tensor:
    """Mirrors, applies the policy, jitters colours and erases, as far as `augmentation` asks for it.

    Args:
        image: `uint8` or `float32` tensor of shape `(size, size, 3)`, values 0..255, cropped and resized.
        seed: Integer tensor of shape `(2,)`.
        augmentation: `Augmentation`.

    Returns:
        A `float32` tensor of the same shape, values 0..255.
    """
    if augmentation.flip:
        draw = tf.random.stateless_uniform((), tf.random.fold_in(seed, _FLIP))
        image = tf.cond(draw < 0.5, lambda: tf.reverse(image, axis=(1,)), lambda: image)
    if augmentation.policy == "randaugment":
        image = rand_augment(image, tf.random.fold_in(seed, _POLICY), augmentation.layers, augmentation.magnitude)
    elif augmentation.policy == "autoaugment":
        image = auto_augment(image, tf.random.fold_in(seed, _POLICY))
    if augmentation.color_jitter:
        image = color_jitter(image, tf.random.fold_in(seed, _JITTER), augmentation.color_jitter)
    if augmentation.erasing:
        image = random_erasing(image, tf.random.fold_in(seed, _ERASING), augmentation.erasing)
    return tf.cast(image, tf.float32)


# ------------------------------------------------------------------ batches


def _beta(count, seed, alpha: float) -> tf.Tensor:
    """`count` draws from Beta(alpha, alpha), as the share of one of two Gamma draws."""
    # A small alpha makes Gamma draws that float32 has no room for.
    pair = tf.random.stateless_gamma((2, count), seed, tf.constant(alpha, tf.float64), dtype=tf.float64)
    return tf.cast(tf.math.divide_no_nan(pair[0], pair[0] + pair[1]), tf.float32)


def _previous_in_batch(batch) -> tf.Tensor:
    """For each image the one before it: batches are shuffled, so any other serves, and it is never itself."""
    return tf.roll(batch, 1, axis=0)


def _mixed_labels(labels, own) -> tf.Tensor:
    return own[:, None] * labels + (1 - own[:, None]) * _previous_in_batch(labels)


def mixup(images, labels, seed, alpha: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Blends each image, and its label, with another of the batch, by a share drawn from Beta(alpha, alpha).

    Args:
        images: `float32` tensor of shape `(batch, height, width, 3)`.
        labels: `float32` tensor of shape `(batch, classes)`, probabilities.
        seed: Integer tensor of shape `(2,)`.
        alpha: Float above 0. Small values leave most images nearly alone.

    Returns:
        Images and labels of the same shapes.

    Source: Zhang et al., mixup (ICLR 2018).
    """
    own = _beta(tf.shape(images)[0], seed, alpha)
    shares = own[:, None, None, None]
    return shares * images + (1 - shares) * _previous_in_batch(images), _mixed_labels(labels, own)


def cutmix(images, labels, seed, alpha: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Replaces a rectangle of each image by the same one of another, and mixes labels by the area replaced.

    The rectangle has the image's aspect ratio and an area drawn from Beta(alpha, alpha); its centre lies anywhere. It
    is cut at the edges, and the labels count the pixels that were in fact replaced.

    Args:
        images: `float32` tensor of shape `(batch, height, width, 3)`.
        labels: `float32` tensor of shape `(batch, classes)`, probabilities.
        seed: Integer tensor of shape `(2,)`.
        alpha: Float above 0; 1 draws all areas alike.

    Returns:
        Images and labels of the same shapes.

    Source: Yun et al., CutMix (ICCV 2019).
    """
    count, height, width = tf.unstack(tf.shape(images)[:3])
    side = tf.sqrt(1 - _beta(count, seed, alpha))
    centres = tf.random.stateless_uniform((2, count), seed + 1)

    def inside(length, centre):
        """Which rows (or columns) of each image the rectangle covers."""
        length = tf.cast(length, tf.float32)
        first, last = (centre - side / 2) * length, (centre + side / 2) * length
        places = tf.range(length)[None, :] + 0.5
        return (places >= first[:, None]) & (places < last[:, None])

    rows, columns = inside(height, centres[0]), inside(width, centres[1])
    other = tf.cast(rows[:, :, None] & columns[:, None, :], tf.float32)[..., None]
    own = 1 - tf.reduce_mean(other, axis=(1, 2, 3))
    return images + other * (_previous_in_batch(images) - images), _mixed_labels(labels, own)


def mix_batch(images, labels, seed, augmentation: Augmentation) -> tuple[tf.Tensor, tf.Tensor]:
    """MixUp or CutMix as `augmentation` asks for; where it asks for both, by a coin for each batch.

    Args:
        images: `float32` tensor of shape `(batch, height, width, 3)`.
        labels: `float32` tensor of shape `(batch, classes)`, probabilities: one-hot, or softer.
        seed: Integer tensor of shape `(2,)`.
        augmentation: `Augmentation`.

    Returns:
        Images and labels of the same shapes; the same ones where neither is asked for.
    """
    seed = tf.random.fold_in(seed, _MIX)
    ways = [
        lambda way=way, alpha=alpha: way(images, labels, seed, alpha)
        for way, alpha in ((mixup, augmentation.mixup), (cutmix, augmentation.cutmix))
        if alpha
    ]
    if len(ways) == 2:
        return tf.cond(tf.random.stateless_uniform((), seed + 2) < 0.5, *ways)
    return ways[0]() if ways else (images, labels)

"""Augmentation of training images as fast tensor ops: flip, policies, colour jitter, random erasing, mixing.

All randomness comes from the seed passed to each function, so that parallel workers may run in any order.
TensorFlow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import tensorflow as tf

from keras_effnet.config.declarations import declared_options
from keras_effnet.config.train_config import Policy, TrainConfig
from keras_effnet.errors import UserError
from keras_effnet.pipeline import image_ops as ops
from keras_effnet.pipeline.mixing import cutmix, mixup
from keras_effnet.pipeline.policies import PHOTOMETRIC, RAND_AUGMENT, auto_augment, rand_augment

_FLIP, _POLICY, _JITTER, _ERASING, _MIX, MOSAIC = range(6)  # folded into the seed that all operations share


@dataclass(frozen=True)
class Augmentation:
    """Augmentation of training images; defaults and bounds are those of `TrainConfig`.

    Args:
        crop_scale: Pair of floats in (0, 1], smallest and largest area of a random crop as a share of the image.
        crop_ratio: Pair of floats, smallest and largest aspect ratio (width over height) of the crop.
        flip: Bool, whether to flip half of the images horizontally.
        policy: `"none"`, `"randaugment"` or `"autoaugment"`.
        layers: Int, number of operations that RandAugment applies to an image.
        magnitude: Float in 0..10, strength of RandAugment's operations. 0 hardly changes an image.
        color_jitter: Float in 0..1, strength of colour jitter: brightness, contrast and saturation are scaled by
            factors in 1 +- `color_jitter`, hue turns by up to a tenth of it as a share of the colour circle. 0 is off.
        erasing: Float in 0..1, probability of random erasing.
        mixup: Float, alpha of MixUp's Beta distribution. 0 is off.
        cutmix: Float, alpha of CutMix's Beta distribution. 0 is off. If `mixup` is on too, one of the two is chosen
            at random for each batch.
        scale_jitter: Pair of floats, smallest and largest scale of an image with boxes, whose `crop_scale` and
            `crop_ratio` are not used.
        mosaic: Float in 0..1, share of the images with boxes that are made of the quadrants of four.
        moving: Bool, whether RandAugment's operations may move pixels. False for masks, which do not follow them.

    Raises:
        UserError: A value is out of range.

    Example:

    >>> augmentation = Augmentation(policy="randaugment", magnitude=7.0, mixup=0.2)
    >>> options = {"training": True, "augmentation": augmentation, "classes": 10}
    >>> batches = keras_effnet.pipeline.image_pipeline(data, spec, batch_size=32, **options)

    Source: random-resized crop, Szegedy et al. (CVPR 2015); other sources at the functions that apply the options.
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
    scale_jitter: tuple[float, float] = (TrainConfig.scale_low, TrainConfig.scale_high)
    mosaic: float = TrainConfig.mosaic
    moving: bool = True

    def __post_init__(self) -> None:
        options = declared_options(TrainConfig)
        for name in ("policy", "magnitude", "color_jitter", "erasing", "mixup", "cutmix", "mosaic"):
            options[name].check(getattr(self, name))
        options["policy_layers"].check(self.layers)
        for name, scale in zip(("scale_low", "scale_high"), self.scale_jitter, strict=True):
            options[name].check(scale)

    @property
    def mixes(self) -> bool:
        """Whether images of a batch and their labels are mixed, so that labels must be one-hot."""
        return self.mixup > 0 or self.cutmix > 0

    def scaled(self, strength: float) -> Augmentation:
        """Scale RandAugment's magnitude and the alphas of MixUp and CutMix by `strength`, a float in 0..1."""
        return replace(
            self,
            magnitude=self.magnitude * strength,
            mixup=self.mixup * strength,
            cutmix=self.cutmix * strength,
        )


_TO_YIQ = ((0.299, 0.596, 0.211), (0.587, -0.274, -0.523), (0.114, -0.322, 0.312))  # a row for each of red, green, blue


def hue_matrix(turn: tf.Tensor) -> tf.Tensor:
    """Matrix of shape `(3, 3)` that rotates hue by a share of the colour circle and preserves luma."""
    to_yiq = tf.constant(_TO_YIQ)
    angle = turn * (2 * math.pi)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    zero, one = tf.zeros_like(cosine), tf.ones_like(cosine)
    rotation = tf.reshape(tf.stack([one, zero, zero, zero, cosine, sine, zero, -sine, cosine]), (3, 3))
    return to_yiq @ rotation @ tf.linalg.inv(to_yiq)


def color_jitter(image: tf.Tensor, seed: tf.Tensor, strength: float) -> tf.Tensor:
    """Jitter brightness, contrast, saturation and hue at random, in this order.

    All four are linear in the channels of a pixel, so they are one matrix product; values are clipped to 0..255 once,
    at the end.

    Args:
        image: Tensor of shape `(height, width, 3)`, values 0..255.
        seed: Integer tensor of shape `(2,)`.
        strength: Float in 0..1. Factors are uniform in 1 +- `strength`; hue turns by up to a tenth of it in either
            direction, as a share of the colour circle.

    Returns:
        A `float32` tensor of the same shape.
    """
    image = tf.cast(image, tf.float32)
    draws = tf.random.stateless_uniform((4,), seed, -strength, strength)
    bright, contrasted, saturated = tf.unstack(1 + draws[:3])
    grey = bright * tf.tensordot(tf.reduce_mean(image, axis=(0, 1)), tf.constant(ops.LUMA), 1)
    matrix = bright * contrasted * (ops.saturation_matrix(saturated) @ hue_matrix(draws[3] / 10))
    # Saturation and hue preserve grey, so the offset is unchanged by them.
    return tf.clip_by_value(ops.mix_channels(image, matrix, (1 - contrasted) * grey), 0, 255)


def random_erasing(image: tf.Tensor, seed: tf.Tensor, probability: float) -> tf.Tensor:
    """Random erasing: fill a rectangle with noise, uniform in 0..255, with a given probability.

    The rectangle's area is uniform in 0.02..0.4 of the image, its aspect ratio between 0.3 and 1 / 0.3 where it fits.

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
        # Height over width, in units of the image's sides. Beyond these bounds the rectangle would exceed the image.
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


def flips(seed: tf.Tensor) -> tf.Tensor:
    """Whether an image, and what belongs to it, is flipped: half of them are."""
    return tf.random.stateless_uniform((), tf.random.fold_in(seed, _FLIP)) < 0.5


def _flipped(pixels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Flip half of the images or masks horizontally; an image and its mask have the same seed."""
    return tf.cond(flips(seed), lambda: tf.reverse(pixels, axis=(1,)), lambda: pixels)


def augment_mask(mask: tf.Tensor, seed: tf.Tensor, augmentation: Augmentation) -> tf.Tensor:
    """Move a mask of shape `(size, size)` as `augment_image` moves its image: colours and erasing leave it alone."""
    return _flipped(mask, seed) if augmentation.flip else mask


def for_masks(augmentation: Augmentation) -> Augmentation:
    """Augmentation of images with masks: RandAugment without the operations that move pixels.

    Raises:
        UserError: AutoAugment, whose pairs of operations rotate and shear, or MixUp or CutMix.
    """
    if augmentation.policy == "autoaugment":
        raise UserError(
            f"policy {augmentation.policy} rotates and shears images, which masks do not follow; for segmentation use "
            "randaugment, of which only operations on colours are drawn there, or color_jitter."
        )
    if augmentation.mixes:
        raise UserError("mixup and cutmix mix one label per image; they are not for the masks of segmentation.")
    return replace(augmentation, moving=False)


def augment_image(image: tf.Tensor, seed: tf.Tensor, augmentation: Augmentation) -> tf.Tensor:
    """Apply the flip, policy, colour jitter and erasing of `augmentation` to one image.

    Args:
        image: `uint8` or `float32` tensor of shape `(size, size, 3)`, values 0..255, cropped and resized.
        seed: Integer tensor of shape `(2,)`.
        augmentation: `Augmentation`.

    Returns:
        A `float32` tensor of the same shape, values 0..255.
    """
    if augmentation.flip:
        image = _flipped(image, seed)
    if augmentation.policy == "randaugment":
        ranges = RAND_AUGMENT if augmentation.moving else PHOTOMETRIC
        draw = tf.random.fold_in(seed, _POLICY)
        image = rand_augment(image, draw, augmentation.layers, augmentation.magnitude, ranges)
    elif augmentation.policy == "autoaugment":
        image = auto_augment(image, tf.random.fold_in(seed, _POLICY))
    if augmentation.color_jitter:
        image = color_jitter(image, tf.random.fold_in(seed, _JITTER), augmentation.color_jitter)
    if augmentation.erasing:
        image = random_erasing(image, tf.random.fold_in(seed, _ERASING), augmentation.erasing)
    return tf.cast(image, tf.float32)


def mix_batch(
    images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor, augmentation: Augmentation
) -> tuple[tf.Tensor, tf.Tensor]:
    """Apply MixUp or CutMix to a batch; if both are on, choose one at random.

    Args:
        images: `float32` tensor of shape `(batch, height, width, 3)`.
        labels: `float32` tensor of shape `(batch, classes)`, probabilities, for instance one-hot.
        seed: Integer tensor of shape `(2,)`.
        augmentation: `Augmentation`.

    Returns:
        Images and labels of the same shapes, unchanged if both are off.
    """
    seed = tf.random.fold_in(seed, _MIX)
    mixers = [
        lambda mixer=mixer, alpha=alpha: mixer(images, labels, seed, alpha)
        for mixer, alpha in ((mixup, augmentation.mixup), (cutmix, augmentation.cutmix))
        if alpha
    ]
    if len(mixers) == 2:
        return tf.cond(tf.random.stateless_uniform((), seed + 2) < 0.5, *mixers)
    return mixers[0]() if mixers else (images, labels)

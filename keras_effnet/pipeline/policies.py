"""RandAugment and AutoAugment: operations, strengths and probabilities. TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import tensorflow as tf

from keras_effnet.pipeline import image_ops as ops

MAX_LEVEL = 10.0  # level of the largest strength of an operation


@dataclass(frozen=True)
class Range:
    """Linear range of an operation's strength.

    Args:
        zero: Float, strength at level 0.
        ten: Float, strength at level 10.
        signed: Bool, whether the distance from `zero` is negated half of the time.
    """

    zero: float
    ten: float
    signed: bool = False

    def at(self, level: float) -> tuple[float, float]:
        """Strengths at a level, with positive and negative sign; equal if the range is not signed."""
        distance = (self.ten - self.zero) * level / MAX_LEVEL
        return self.zero + distance, self.zero - distance if self.signed else self.zero + distance


# 150 of 331 pixels, as in the search for AutoAugment.
_SHIFT = 150 / 331
_GEOMETRY = {
    "rotate": Range(0, 30, signed=True),
    "shear_x": Range(0, 0.3, signed=True),
    "shear_y": Range(0, 0.3, signed=True),
    "translate_x": Range(0, _SHIFT, signed=True),
    "translate_y": Range(0, _SHIFT, signed=True),
}
_NO_STRENGTH = {name: Range(0, 0) for name in ("identity", "auto_contrast", "equalize", "invert")}

# Level 0 has no effect. The operations are the fourteen of the paper.
RAND_AUGMENT: Mapping[str, Range] = {
    **{name: _NO_STRENGTH[name] for name in ("identity", "auto_contrast", "equalize")},
    **_GEOMETRY,
    "posterize": Range(8, 4),
    "solarize": Range(256, 0),
    "color": Range(1, 1.9, signed=True),
    "contrast": Range(1, 1.9, signed=True),
    "brightness": Range(1, 1.9, signed=True),
    "sharpness": Range(1, 1.9, signed=True),
}

# For masks, which stay where they are: the operations of RandAugment that move no pixel.
PHOTOMETRIC: Mapping[str, Range] = {name: bounds for name, bounds in RAND_AUGMENT.items() if name not in _GEOMETRY}

# As published: factors have no effect at level 5, and posterize and solarize have the strongest effect at level 0.
AUTO_AUGMENT: Mapping[str, Range] = {
    **_NO_STRENGTH,
    **_GEOMETRY,
    "posterize": Range(0, 4),
    "solarize": Range(0, 256),
    "solarize_add": Range(0, 110),
    "color": Range(0.1, 1.9),
    "contrast": Range(0.1, 1.9),
    "brightness": Range(0.1, 1.9),
    "sharpness": Range(0.1, 1.9),
}

# ImageNet policy "v0" of the published EfficientNets: pairs of operation, probability, level.
SUB_POLICIES = (
    (("equalize", 0.8, 1), ("shear_y", 0.8, 4)),
    (("color", 0.4, 9), ("equalize", 0.6, 3)),
    (("color", 0.4, 1), ("rotate", 0.6, 8)),
    (("solarize", 0.8, 3), ("equalize", 0.4, 7)),
    (("solarize", 0.4, 2), ("solarize", 0.6, 2)),
    (("color", 0.2, 0), ("equalize", 0.8, 8)),
    (("equalize", 0.4, 8), ("solarize_add", 0.8, 3)),
    (("shear_x", 0.2, 9), ("rotate", 0.6, 8)),
    (("color", 0.6, 1), ("equalize", 1.0, 2)),
    (("invert", 0.4, 9), ("rotate", 0.6, 0)),
    (("equalize", 1.0, 9), ("shear_y", 0.6, 3)),
    (("color", 0.4, 7), ("equalize", 0.6, 0)),
    (("posterize", 0.4, 6), ("auto_contrast", 0.4, 7)),
    (("solarize", 0.6, 8), ("color", 0.6, 9)),
    (("solarize", 0.2, 4), ("rotate", 0.8, 9)),
    (("rotate", 1.0, 7), ("translate_y", 0.8, 9)),
    (("shear_x", 0.0, 0), ("solarize", 0.8, 4)),
    (("shear_y", 0.8, 0), ("color", 0.6, 4)),
    (("color", 1.0, 0), ("rotate", 0.6, 2)),
    (("equalize", 0.8, 4), ("equalize", 0.0, 8)),
    (("equalize", 1.0, 4), ("auto_contrast", 0.6, 2)),
    (("shear_y", 0.4, 7), ("solarize_add", 0.6, 7)),
    (("posterize", 0.8, 2), ("solarize", 0.6, 10)),
    (("solarize", 0.6, 8), ("equalize", 0.6, 1)),
    (("color", 0.8, 6), ("rotate", 0.4, 5)),
)


def _numbers(names) -> tf.Tensor:
    return tf.constant([ops.NAMES.index(name) for name in names])


def _choice(draw, count: int) -> tf.Tensor:
    """Convert a draw in [0, 1) to an index below `count`."""
    return tf.cast(draw * count, tf.int32)


def rand_augment(
    image: tf.Tensor,
    seed: tf.Tensor,
    layers: int = 2,
    magnitude: float = 9.0,
    ranges: Mapping[str, Range] = RAND_AUGMENT,
) -> tf.Tensor:
    """RandAugment: apply `layers` operations, drawn uniformly from fourteen, all at the same magnitude.

    Args:
        image: Tensor of shape `(height, width, 3)`, values 0..255; floats are rounded.
        seed: Integer tensor of shape `(2,)`.
        layers: Int, number of operations.
        magnitude: Float in 0..10; at 0 only `auto_contrast` and `equalize` change an image.
        ranges: Operation -> `Range`, the operations to draw from: `RAND_AUGMENT` or `PHOTOMETRIC`.

    Returns:
        A `uint8` tensor of the same shape.

    Source: Cubuk et al., RandAugment (NeurIPS 2020).
    """
    image = ops.to_bytes(image)
    # Two entries per operation, one for each sign: a single draw selects both.
    sides = [(name, strength) for name, bounds in ranges.items() for strength in bounds.at(magnitude)]
    chosen = _choice(tf.random.stateless_uniform((layers,), seed), len(sides))
    numbers = tf.gather(_numbers(name for name, _ in sides), chosen)
    strengths = tf.gather(tf.constant([strength for _, strength in sides], tf.float32), chosen)
    for number, strength in zip(tf.unstack(numbers), tf.unstack(strengths), strict=True):
        image = ops.apply(image, number, strength)
    return image


def auto_augment(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """AutoAugment: apply one of the 25 published ImageNet sub-policies, a pair of operations with probabilities.

    Args:
        image: Tensor of shape `(height, width, 3)`, values 0..255; floats are rounded.
        seed: Integer tensor of shape `(2,)`.

    Returns:
        A `uint8` tensor of the same shape.

    Source: Cubuk et al., AutoAugment (CVPR 2019); the policy is "v0" of the published EfficientNets.
    """
    image = ops.to_bytes(image)
    pairs = [[(name, chance, AUTO_AUGMENT[name].at(level)) for name, chance, level in pair] for pair in SUB_POLICIES]
    numbers = tf.stack([_numbers(name for name, _, _ in pair) for pair in pairs])
    chances = tf.constant([[chance for _, chance, _ in pair] for pair in pairs])
    strengths = tf.constant([[strength for _, _, strength in pair] for pair in pairs], tf.float32)
    draws = tf.random.stateless_uniform((5,), seed)
    pair = _choice(draws[0], len(pairs))
    applied, sides = tf.cast(draws[1:3] < chances[pair], tf.int32), _choice(draws[3:], 2)
    for place in range(2):
        # Operation 0, the identity, stands for one that is not applied.
        number = numbers[pair, place] * applied[place]
        image = ops.apply(image, number, strengths[pair, place, sides[place]])
    return image

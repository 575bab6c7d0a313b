"""Feature extraction: the feature maps of a network by stride. Keras only."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_effnet.architecture.network_parts import blocks
from keras_effnet.errors import one_of


def features(model: keras.Model, levels: Sequence[str] | None = None) -> keras.Model:
    """Build a feature extractor with one output per stride, for detection or segmentation.

    Level `"P3"` is the last block whose output has an eighth (2^-3) of the input's sides; the published networks have
    `"P1"` to `"P5"`. All layers are shared with `model`.

    Args:
        model: Model of this package, with or without classifier, built or reloaded from a `.keras` file.
        levels: Names of the wanted levels, all by default.

    Returns:
        A functional model with the same input. Its output is a dict from level name to feature map of shape
        `(N, ceil(height / stride), ceil(width / stride), channels)`, fine to coarse.

    Raises:
        UserError: The network lacks a level.

    Example:

    >>> backbone = keras_effnet.EfficientNetB0(include_top=False, weights=None, input_shape=(224, 224, 3))
    >>> {name: output.shape[1:] for name, output in keras_effnet.features(backbone, ["P4", "P5"]).output.items()}
    {'P4': (14, 14, 112), 'P5': (7, 7, 320)}

    Source: pyramid levels, Lin et al., Feature Pyramid Networks (CVPR 2017).
    """
    found = {f"P{block.stride.bit_length() - 1}": block.output for block in blocks(model)}
    wanted = list(found) if levels is None else [one_of("level", level, found) for level in levels]
    return keras.Model(model.input, {level: found[level] for level in wanted}, name=f"{model.name}_features")

"""Feature extraction: the feature maps of a network by stride. Keras only."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_effnet.errors import one_of
from keras_effnet.models.structure import structure_of


def features(model: keras.Model, levels: Sequence[str] | None = None) -> keras.Model:
    """Build a feature extractor with one output per stride, for detection or segmentation.

    Level `"P3"` is the last block whose output has an eighth (2^-3) of the input's sides; the published networks have
    `"P1"` to `"P5"`. In networks without block names, such as `keras.applications.ResNet50`, it is the map that the
    next convolution or pooling with a stride reads. All layers are shared with `model`.

    Args:
        model: Keras model with one image input: of this package, of `keras.applications` or another, with any head or
            none, nested in other models, or reloaded from a `.keras` file.
        levels: Names of the wanted levels, all by default.

    Returns:
        A functional model with the same input. Its output is a dict from level name to feature map of shape
        `(N, ceil(height / stride), ceil(width / stride), channels)`, fine to coarse.

    Raises:
        UserError: The network lacks a level, or has no feature maps.

    Example:

    >>> backbone = keras_effnet.EfficientNetB0(include_top=False, weights=None, input_shape=(224, 224, 3))
    >>> {name: output.shape[1:] for name, output in keras_effnet.features(backbone, ["P4", "P5"]).output.items()}
    {'P4': (14, 14, 112), 'P5': (7, 7, 320)}

    Source: pyramid levels, Lin et al., Feature Pyramid Networks (CVPR 2017).
    """
    structure = structure_of(model)
    found = structure.levels
    wanted = list(found) if levels is None else [one_of("level", level, found) for level in levels]
    maps = {level: found[level].output for level in wanted}
    return keras.Model(structure.model.input, maps, name=f"{model.name}_features")

"""Freeze the first parts of a network."""

from __future__ import annotations

import keras

from keras_effnet.architecture.network_parts import Part, computing_layers
from keras_effnet.errors import one_of
from keras_effnet.models.structure import containers, structure_of

BACKBONE = "backbone"


def stage_name(part: Part) -> str:
    """`"block5"` for `"block5b"`; other parts are stages themselves."""
    return f"block{part.stage}" if part.stage else part.name


def _thaw_containers(model: keras.Model) -> None:
    """Make models trainable that were frozen as a whole, which hides what their layers say; those stay as they are."""
    for each in containers(model):
        if not each.trainable:
            states = [(layer, layer.trainable) for layer in computing_layers(each)]
            each.trainable = True
            for layer, state in states:
                layer.trainable = state


def freeze(model: keras.Model, through: str | None = BACKBONE, *, batch_norm: bool = False) -> None:
    """Freeze the first parts of a network and make all later ones trainable.

    In Keras a frozen batch normalization runs in inference mode: its moving statistics are fixed, too. Stochastic depth
    stays active in frozen blocks; build with `drop_connect_rate=0` to avoid that. Each call replaces the effect of
    earlier ones. Call `compile` afterwards, because Keras reads `trainable` then.

    Args:
        model: Keras model with any head or none, nested or reloaded; of this package, of `keras.applications` or
            another one with convolutions.
        through: String, the last part to freeze: a level of `features` such as `"P3"`, or `"backbone"` for all but the
            head; in networks with the layer names of this package also `"stem"`, a stage such as `"block5"`, or a
            block such as `"block5b"`. None freezes nothing.
        batch_norm: Bool, whether to freeze batch normalization in later parts too, for small batches.

    Raises:
        UserError: The model has no such part, or no feature maps.

    Example:

    >>> keras_effnet.transfer.freeze(model, through="block4")
    >>> keras_effnet.transfer.freeze(keras.applications.ResNet50(weights=None), through="P4")

    Source: Keras' guide to transfer learning, on `trainable`.
    """
    structure = structure_of(model)
    backbone = structure.parts
    # For a stage the position of its last block remains.
    ends = {name: end for end, part in enumerate(backbone, 1) for name in (part.name, stage_name(part))}
    ends |= {level: backbone.index(part) + 1 for level, part in structure.levels.items()}
    ends[BACKBONE] = len(backbone)
    end = 0 if through is None else ends[one_of("part to freeze", through, ends)]
    _thaw_containers(model)
    frozen = [layer for part in backbone[:end] for layer in part.layers]
    later = [layer for part in backbone[end:] for layer in part.layers]
    for layer in frozen:
        layer.trainable = False
    for layer in (*later, *structure.head):
        layer.trainable = not (batch_norm and isinstance(layer, keras.layers.BatchNormalization))

"""A new classifier on a trained network."""

from __future__ import annotations

from itertools import count
from typing import Any, Literal, TypeAlias

import keras

from keras_effnet.errors import UserError, one_of
from keras_effnet.models.arguments import check_data_format, checked_classes
from keras_effnet.models.blocks import classifier
from keras_effnet.models.saving import policy_of
from keras_effnet.models.structure import Structure, structure_of

Replace: TypeAlias = Literal["classifier", "head"]


def _free_name(name: str, network: keras.Model) -> str:
    """A name that no layer has: `"predictions"`, `"predictions_1"`, ..."""
    taken = {layer.name for layer in network.layers}
    return next(each for number in count() if (each := f"{name}_{number}" if number else name) not in taken)


def _pooled(structure: Structure, policy: Any) -> Any:
    """Output of the pooling of a network without its head, which gets average pooling if it has none."""
    found = structure.pooling_of(structure.model.outputs[0])
    if found is not None:
        return found[1] if len(found[1].shape) == 2 else keras.layers.Flatten(dtype=policy)(found[1])
    pooling = keras.layers.GlobalAveragePooling2D(dtype=policy, name=_free_name("avg_pool", structure.model))
    return pooling(structure.parts[-1].output)


def _kept(structure: Structure, policy: Any) -> tuple[Any, float]:
    """Tensor that a new classifier reads so that no other layer with weights is lost, and the old dropout rate."""
    output = structure.model.outputs[0]
    old, _ = structure.classifier_of(output)
    if old is None:
        if len(output.shape) == 2:
            return output, 0.0
        lost = [layer.name for layer in structure.head if layer.weights]
        if lost:
            names = ", ".join(lost[:3]) + (", ..." if len(lost) > 3 else "")
            raise UserError(
                f"A new classifier would drop layers of {structure.model.name} with weights ({names}): "
                "pass replace='head' to drop all that follows the backbone."
            )
        return _pooled(structure, policy), 0.0
    (given,) = structure.inputs[old]
    before = structure.producer(given)
    if isinstance(before, keras.layers.Dropout):
        return structure.inputs[before][0], before.rate
    return given, 0.0


def swap_head(
    model: keras.Model,
    classes: int,
    *,
    dropout_rate: float | None = None,
    classifier_activation: str | None = "softmax",
    replace: Replace = "classifier",
) -> keras.Model:
    """Replace the classifier of a network by a randomly initialized one.

    Only the last dense layer is dropped, with the dropout before it and the activation behind it: other trained layers
    of the head, such as a hidden dense layer, are kept unless `replace="head"` says otherwise. The result is a flat
    functional model that shares all other layers with `model`, so training one trains the other; `model` itself keeps
    its classifier. A model without classifier gets one, with average pooling if it has no pooling.

    Args:
        model: Keras model with one output, nested or reloaded; of this package, of `keras.applications` or another one
            with convolutions.
        classes: Int, outputs of the new classifier.
        dropout_rate: Float in [0, 1), before the classifier; the model's by default.
        classifier_activation: `"softmax"`, `"sigmoid"`, or None for logits.
        replace: `"classifier"` to replace the last dense layer, or `"head"` to replace all that follows the pooling.

    Returns:
        A functional `keras.Model` with the dtype policy of `model`, not compiled.

    Raises:
        UserError: `classes` is no whole number from 1, Keras is set to channels first, the model has several outputs,
            or layers with weights would be lost, such as a segmentation decoder.

    Example:

    >>> model = keras_effnet.transfer.swap_head(keras_effnet.load_model("flowers.keras"), classes=3)
    """
    check_data_format()
    classes = checked_classes(classes)
    one_of("replace", replace, ("classifier", "head"))
    structure = structure_of(model)
    if len(structure.model.outputs) != 1:
        raise UserError(f"swap_head takes a model with one output; {model.name} has {len(structure.model.outputs)}.")
    policy = policy_of(model)
    if replace == "head":
        _, rate = _kept(structure, policy) if structure.classifier_of(structure.model.outputs[0])[0] else (None, 0.0)
        features = _pooled(structure, policy)
    else:
        features, rate = _kept(structure, policy)
    kept = keras.Model(structure.model.input, features, name=model.name)
    rate = rate if dropout_rate is None else dropout_rate
    name = _free_name("predictions", kept)
    outputs = classifier(features, classes, classifier_activation, rate, policy, name)
    swapped = keras.Model(structure.model.input, outputs, name=model.name)
    swapped.dtype_policy = policy  # `compile` reads it to decide on loss scaling
    return swapped

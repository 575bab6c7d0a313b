"""Grad-CAM heat maps: where in an image a network finds a class. TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_effnet.errors import UserError, one_of, whole_number
from keras_effnet.models.structure import Structure, structure_of

_MOST_PROBABLE = -1


@dataclass(frozen=True, eq=False)
class Heatmap:
    """Grad-CAM heat map of a class.

    Args:
        map: Float array of shape `(height, width)`, the size of the layer's feature map, not of the image. Values in
            [0, 1], with 1 at the strongest evidence for the class; all 0 if there is none.
        class_index: Int, the class explained; of a single sigmoid output, 1 for yes and 0 for no.
        probabilities: Float array of shape `(classes,)`, the predicted probabilities; a softmax is applied to several
            logits. A single sigmoid output p gives `(1 - p, p)`, a single linear one its value.
        layer: String, name of the Keras layer whose feature map is weighted.
    """

    map: np.ndarray
    class_index: int
    probabilities: np.ndarray
    layer: str

    @property
    def probability(self) -> float:
        """Probability of the class explained."""
        return float(self.probabilities[self.class_index])


@dataclass(frozen=True, eq=False)
class _Head:
    """An output to explain: how its logits follow from a tensor of the network, and its probabilities from those.

    Args:
        source: Symbolic tensor of shape `(N, features)`, or of logits.
        dense: Dense layer from `source` to the logits, or None.
        activation: Function behind the logits.
    """

    source: Any
    dense: keras.layers.Dense | None
    activation: Any

    @property
    def is_binary(self) -> bool:
        return self.units == 1 and self.activation is keras.activations.sigmoid

    @property
    def units(self) -> int:
        return self.dense.units if self.dense else self.source.shape[-1]

    @property
    def classes(self) -> int:
        return 2 if self.is_binary else self.units

    def logits(self, source: Any) -> Any:
        """Scores to explain, of shape `(N, classes)`: no is the opposite of yes."""
        logits = tf.cast(source, tf.float32)
        if self.dense:
            logits = logits @ tf.cast(self.dense.kernel, tf.float32)
            if self.dense.use_bias:
                logits += tf.cast(self.dense.bias, tf.float32)
        return tf.concat([-logits, logits], axis=-1) if self.is_binary else logits

    def probabilities(self, logits: Any) -> Any:
        # Several logits are treated as those of a softmax.
        softmax = self.activation is keras.activations.linear and self.units > 1
        return keras.ops.softmax(logits) if softmax else self.activation(logits)


def _output(model: keras.Model, output: int | str | None) -> int:
    """Position of an output that is named, or given by its position."""
    count = len(model.outputs)
    if output is None and count == 1:
        return 0
    named = {} if isinstance(model, keras.Sequential) or not isinstance(model.output, dict) else model.output
    keys = {id(tensor): key for key, tensor in named.items()}
    names = [str(keys.get(id(tensor), name)) for tensor, name in zip(model.outputs, model.output_names, strict=True)]
    if output is None:
        raise UserError(f"{model.name} has the outputs {', '.join(names)}: choose the one to explain by output=.")
    if isinstance(output, str):
        return names.index(one_of("output", output, names))
    if not 0 <= whole_number("output", output, -count) < count:
        raise UserError(f"output must be an index from 0 to {count - 1} or a name, got {output}.")
    return int(output)


def _head(structure: Structure, tensor: Any) -> _Head:
    if len(tensor.shape) != 2:
        raise UserError(f"Grad-CAM explains outputs of shape (N, classes), got {tuple(tensor.shape)}.")
    dense, behind = structure.classifier_of(tensor)
    if dense is None and not behind:
        raise UserError(
            f"{structure.model.name} does not end with its classifier; give it one with transfer.swap_head."
        )
    found = [_activation(layer) for layer in behind] + ([dense.activation] if dense else [])
    activations = [each for each in found if each is not keras.activations.linear]
    if len(activations) > 1:
        raise UserError("Grad-CAM explains the logits of one activation; this output has two, one behind the other.")
    activation = activations[0] if activations else keras.activations.linear
    if dense:
        return _Head(structure.inputs[dense][0], dense, activation)
    return _Head(structure.inputs[behind[-1]][0] if behind else tensor, None, activation)


def _activation(layer: Any) -> Any:
    by_kind = {"Softmax": keras.activations.softmax, "Sigmoid": keras.activations.sigmoid}
    return by_kind.get(type(layer).__name__) or getattr(layer, "activation", keras.activations.linear)


def _feature_map(structure: Structure, name: str | None, output: Any) -> tuple[str, Any]:
    """Find a feature map by the name of its layer or part; by default the one that is pooled for the output."""
    layers = {id(tensor): layer.name for layer, tensor in structure.outputs.items() if len(tensor.shape) == 4}
    if name is None:
        found = structure.pooling_of(output)
        if found is None or id(found[0]) not in layers:
            raise UserError(f"{structure.model.name} pools no feature map for this output: name one by layer=.")
        return layers[id(found[0])], found[0]
    # Parts first: an error message lists the first names.
    maps = {part.name: part.output for part in structure.parts}
    maps |= {layer.name: tensor for layer, tensor in structure.outputs.items() if id(tensor) in layers}
    tensor = maps[one_of("layer", name, maps)]
    return layers[id(tensor)], tensor


def _index(class_index: int | str | None, labels: Sequence[str] | None, classes: int) -> int:
    if class_index is None:
        return _MOST_PROBABLE
    if isinstance(class_index, str):
        if labels is None:
            raise UserError(f"The class {class_index!r} is a name: pass the names of all classes as labels=.")
        class_index = list(labels).index(one_of("class", class_index, labels))
    if not 0 <= whole_number("class_index", class_index, -classes) < classes:
        raise UserError(f"The class must be an index from 0 to {classes - 1}, got {class_index}.")
    return class_index


def _check(image: np.ndarray, shape: tuple[int | None, ...]) -> None:
    fits = image.ndim == 3 and all(side in (None, given) for side, given in zip(shape, image.shape, strict=True))
    if not fits:
        raise UserError(f"Grad-CAM takes one image of shape {shape}, got {image.shape}.")


def _build_grad_cam(model: keras.Model, target: Any, head: _Head) -> Callable:
    """Return a function, traced once, that maps an image and a class to its heat map, the class and the logits."""
    network = keras.Model(model.inputs, [target, head.source])

    # A graph omits unused gradients. An eager tape also computes the gradients of all kernels, and that of a strided
    # 1x1 convolution with batch size 1 corrupts the memory of TensorFlow 2.21 on a CPU.
    @tf.function(input_signature=[tf.TensorSpec(model.inputs[0].shape[1:]), tf.TensorSpec((), tf.int32)])
    def weigh(image, index):
        features, source = network(image[None], training=False)
        logits = head.logits(source)
        index = tf.where(index == _MOST_PROBABLE, tf.argmax(logits[0], output_type=tf.int32), index)
        (gradient,) = tf.gradients(logits[0, index], features)
        gradient, features = tf.cast(gradient, tf.float32), tf.cast(features, tf.float32)
        weights = tf.reduce_mean(gradient, axis=(1, 2), keepdims=True)
        return tf.nn.relu(tf.reduce_sum(weights * features, axis=-1))[0], index, logits

    return weigh


def explainer(
    model: keras.Model,
    layer: str | None = None,
    *,
    output: int | str | None = None,
    labels: Sequence[str] | None = None,
) -> Callable[..., Heatmap]:
    """Create a reusable Grad-CAM function for many images, traced only once.

    Args:
        model: As in `grad_cam`.
        layer: As in `grad_cam`.
        output: As in `grad_cam`.
        labels: As in `grad_cam`.

    Returns:
        A function `(image, class_index=None)` that returns a `Heatmap`.

    Raises:
        UserError: As in `grad_cam`.

    Example:

    >>> explain = keras_effnet.evaluation.explainer(model)
    >>> heats = [explain(image) for image in images]
    """
    if keras.config.backend() != "tensorflow":
        raise UserError(f"Grad-CAM needs the TensorFlow backend of Keras; this one is {keras.config.backend()}.")
    structure = structure_of(model)
    network = structure.model
    if len(network.inputs) != 1:
        raise UserError(f"Grad-CAM explains networks of one image; {model.name} has {len(network.inputs)} inputs.")
    tensor = network.outputs[_output(model, output)]
    name, target = _feature_map(structure, layer, tensor)
    head = _head(structure, tensor)
    if labels is not None and len(labels) != head.classes:
        raise UserError(f"labels must name the {head.classes} classes, got {len(labels)} names.")
    weigh = _build_grad_cam(network, target, head)

    def explain(image: np.ndarray, class_index: int | str | None = None) -> Heatmap:
        if isinstance(image, str | os.PathLike):
            raise UserError(f"image must be an array of pixels, got {image!r}; read it by inference.image_files.image.")
        image = np.asarray(image, "float32")
        _check(image, network.inputs[0].shape[1:])
        heat, index, logits = weigh(image, _index(class_index, labels, head.classes))
        heat = heat.numpy()
        return Heatmap(heat / (heat.max() or 1), int(index), head.probabilities(logits)[0].numpy(), name)

    return explain


def grad_cam(
    model: keras.Model,
    image: np.ndarray,
    *,
    class_index: int | str | None = None,
    layer: str | None = None,
    output: int | str | None = None,
    labels: Sequence[str] | None = None,
) -> Heatmap:
    """Compute a Grad-CAM heat map: where in the image the network finds a class.

    Each channel of a feature map is weighted by the gradient of the class's logit, averaged over the map; negative
    evidence is dropped. The logit is used because the probability also depends on the other classes.

    Args:
        model: Keras model of one image with softmax, sigmoid or linear outputs, under the TensorFlow backend: of this
            package, of `keras.applications` or another one, with any head, nested, fine-tuned, frozen, of mixed
            precision or reloaded from a `.keras` file.
        image: Array of shape `(height, width, channels)`, one image at the model's input size with values 0..255;
            normalised if the model was built with `include_preprocessing=False`.
        class_index: Int, the class to explain, or its name among `labels`; by default the most probable one. A single
            sigmoid output has the classes 1, yes, and 0, no: evidence against yes. A single linear output has class 0.
        layer: String, name of a part, `"block5c"`, or of a layer, `"block5c_add"`, whose output is weighted. By
            default the last feature map before pooling; earlier ones are finer but less specific to classes.
        output: Int or string, the output to explain, by position or name, for a model with several.
        labels: Sequence of strings, the names of the classes, so that `class_index` can be one of them.

    Returns:
        A `Heatmap`.

    Raises:
        UserError: The output is not of shape `(N, classes)`, the image has a different shape, or the class, the layer
            or the output does not exist.

    Example:

    >>> heat = keras_effnet.grad_cam(model, image)
    >>> heat.map.shape, heat.class_index, heat.layer
    ((7, 7), 281, 'top_activation')

    Source: Selvaraju et al., Grad-CAM (ICCV 2017), section 3.
    """
    return explainer(model, layer, output=output, labels=labels)(image, class_index)

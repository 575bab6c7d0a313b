"""Grad-CAM heat maps: where in an image a network of this package finds a class. TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from keras_effnet.architecture.network_parts import parts
from keras_effnet.errors import UserError, one_of, whole_number

_MOST_PROBABLE = -1


@dataclass(frozen=True, eq=False)
class Heatmap:
    """Grad-CAM heat map of a class.

    Args:
        map: Float array of shape `(height, width)`, the size of the layer's feature map, not of the image. Values in
            [0, 1], with 1 at the strongest evidence for the class; all 0 if there is none.
        class_index: Int, the class explained.
        probabilities: Float array of shape `(classes,)`, the predicted probabilities; a softmax is applied to logits.
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


def _classifier(model: keras.Model) -> keras.layers.Dense:
    last = model.layers[-1]
    if last.name != "predictions" or not isinstance(last, keras.layers.Dense):
        raise UserError(f"{model.name} does not end with its classifier; give it one with transfer.swap_head.")
    return last


def _feature_layer(model: keras.Model, name: str | None) -> keras.layers.Layer:
    """Find a layer by its own name or by the part that it ends; by default the last layer before pooling."""
    found = [part for part in parts(model) if part.name != "classifier"]
    # Parts first: an error message lists the first names.
    layers = {part.name: part.layers[-1] for part in found}
    layers |= {layer.name: layer for part in found for layer in part.layers if len(layer.output.shape) == 4}
    return layers[one_of("layer", name or found[-1].name, layers)]


def _check(image: np.ndarray, class_index: int | None, shape: tuple[int | None, ...], classes: int) -> None:
    fits = image.ndim == 3 and all(side in (None, given) for side, given in zip(shape, image.shape, strict=True))
    if not fits:
        raise UserError(f"Grad-CAM takes one image of shape {shape}, got {image.shape}.")
    if class_index is not None and not 0 <= whole_number("class_index", class_index, -classes) < classes:
        raise UserError(f"The class must be an index from 0 to {classes - 1}, got {class_index}.")


def _build_grad_cam(model: keras.Model, target: keras.layers.Layer, classifier: keras.layers.Dense) -> Callable:
    """Return a function, traced once, that maps an image and a class to its heat map, the class and the logits."""
    network = keras.Model(model.inputs, [target.output, classifier.input])

    # A graph omits unused gradients. An eager tape also computes the gradients of all kernels, and that of a strided
    # 1x1 convolution with batch size 1 corrupts the memory of TensorFlow 2.21 on a CPU.
    @tf.function(input_signature=[tf.TensorSpec(model.input_shape[1:]), tf.TensorSpec((), tf.int32)])
    def weigh(image, index):
        features, pooled = network(image[None], training=False)
        logits = tf.cast(pooled, tf.float32) @ classifier.kernel
        if classifier.use_bias:
            logits += classifier.bias
        index = tf.where(index == _MOST_PROBABLE, tf.argmax(logits[0], output_type=tf.int32), index)
        (gradient,) = tf.gradients(logits[0, index], features)
        gradient, features = tf.cast(gradient, tf.float32), tf.cast(features, tf.float32)
        weights = tf.reduce_mean(gradient, axis=(1, 2), keepdims=True)
        return tf.nn.relu(tf.reduce_sum(weights * features, axis=-1))[0], index, logits

    return weigh


def explainer(model: keras.Model, layer: str | None = None) -> Callable[..., Heatmap]:
    """Create a reusable Grad-CAM function for many images, traced only once.

    Args:
        model: As in `grad_cam`.
        layer: As in `grad_cam`.

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
    target, classifier = _feature_layer(model, layer), _classifier(model)
    # A model that ends in logits is treated as a softmax classifier.
    logits_only = classifier.activation is keras.activations.linear
    activation = keras.ops.softmax if logits_only else classifier.activation
    weigh = _build_grad_cam(model, target, classifier)

    def explain(image: np.ndarray, class_index: int | None = None) -> Heatmap:
        if isinstance(image, str | os.PathLike):
            raise UserError(f"image must be an array of pixels, got {image!r}; read it by inference.image_files.image.")
        image = np.asarray(image, "float32")
        _check(image, class_index, model.input_shape[1:], classifier.units)
        heat, index, logits = weigh(image, _MOST_PROBABLE if class_index is None else class_index)
        heat = heat.numpy()
        return Heatmap(heat / (heat.max() or 1), int(index), activation(logits)[0].numpy(), target.name)

    return explain


def grad_cam(
    model: keras.Model, image: np.ndarray, *, class_index: int | None = None, layer: str | None = None
) -> Heatmap:
    """Compute a Grad-CAM heat map: where in the image the network finds a class.

    Each channel of a feature map is weighted by the gradient of the class's logit, averaged over the map; negative
    evidence is dropped. The logit is used because the probability also depends on the other classes.

    Args:
        model: Classifier of this package under the TensorFlow backend; it may be fine-tuned, frozen, of mixed
            precision or reloaded from a `.keras` file.
        image: Array of shape `(height, width, channels)`, one image at the model's input size with values 0..255;
            normalised if the model was built with `include_preprocessing=False`.
        class_index: Int, the class to explain; by default the most probable one.
        layer: String, name of a part, `"block5c"`, or of a layer, `"block5c_add"`, whose output is weighted. By
            default the last feature map before pooling; earlier ones are finer but less specific to classes.

    Returns:
        A `Heatmap`.

    Raises:
        UserError: The model is not a classifier of this package, the image has a different shape, or the class or the
            layer does not exist.

    Example:

    >>> heat = keras_effnet.grad_cam(model, image)
    >>> heat.map.shape, heat.class_index, heat.layer
    ((7, 7), 281, 'top_activation')

    Source: Selvaraju et al., Grad-CAM (ICCV 2017), section 3.
    """
    return explainer(model, layer)(image, class_index)

"""Where in an image a network finds a class: Grad-CAM, on any network of this package.

TensorFlow for the gradient; imports `anatomy` and `errors`. `plots.explanation` draws what comes out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from keras_effnet.architecture.network_parts import parts
from keras_effnet.errors import UserError, one_of

_MOST_PROBABLE = -1


@dataclass(frozen=True, eq=False)
class Heatmap:
    """How much each place of an image speaks for a class.

    Args:
        map: Float array of shape `(height, width)`, the size of the layer's feature map, not of the image. In
            [0, 1], 1 where most speaks for the class; all 0 where nothing does.
        class_index: Int, the class explained.
        probabilities: Float array of shape `(classes,)`, the network's answer; softmax of what ends in logits.
        layer: String, name of the Keras layer whose feature map was weighed.
    """

    map: np.ndarray
    class_index: int
    probabilities: np.ndarray
    layer: str

    @property
    def probability(self) -> float:
        """Of the class explained."""
        return float(self.probabilities[self.class_index])


def _classifier(model: keras.Model) -> keras.layers.Dense:
    last = model.layers[-1]
    if last.name != "predictions" or not isinstance(last, keras.layers.Dense):
        raise UserError(f"{model.name} does not end with its classifier; give it one with transfer.swap_head.")
    return last


def _feature_layer(model: keras.Model, name: str | None) -> keras.layers.Layer:
    """The layer that a name means, its own or that of the part which it ends; by default the last before pooling."""
    found = [part for part in parts(model) if part.name != "classifier"]
    # Parts first: they are what an error lists.
    layers = {part.name: part.layers[-1] for part in found}
    layers |= {layer.name: layer for part in found for layer in part.layers if len(layer.output.shape) == 4}
    return layers[one_of("layer", name or found[-1].name, layers)]


def _check(image: np.ndarray, class_index: int | None, shape: tuple[int | None, ...], classes: int) -> None:
    fits = image.ndim == 3 and all(side in (None, given) for side, given in zip(shape, image.shape, strict=True))
    if not fits:
        raise UserError(f"Grad-CAM takes one image of shape {shape}, got {image.shape}.")
    if class_index is not None and not 0 <= class_index < classes:
        raise UserError(f"The class must be an index from 0 to {classes - 1}, got {class_index}.")


def _build_grad_cam(model: keras.Model, target: keras.layers.Layer, classifier: keras.layers.Dense) -> Callable:
    """A function from an image and a class to heat, class and logits, traced once for as many images as come."""
    network = keras.Model(model.inputs, [target.output, classifier.input])

    # A graph leaves out what nobody asks for. An eager tape computes the gradient of every kernel too, and that of a
    # strided 1x1 convolution, for one image, corrupts the memory of TensorFlow 2.21 on a CPU.
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
    """`grad_cam` of one model and layer for many images: what the first one waits for, the others do not.

    Args:
        model, layer: As in `grad_cam`.

    Returns:
        A function `(image, class_index=None)` to `Heatmap`.

    Raises:
        UserError: As in `grad_cam`.

    Example:

    >>> explain = keras_effnet.evaluation.gradcam.explainer(model)
    >>> heats = [explain(image) for image in images]
    """
    if keras.config.backend() != "tensorflow":
        raise UserError(f"Grad-CAM needs the TensorFlow backend of Keras; this one is {keras.config.backend()}.")
    target, classifier = _feature_layer(model, layer), _classifier(model)
    # What ends in logits is taken for a softmax without one.
    logits_only = classifier.activation is keras.activations.linear
    activation = keras.ops.softmax if logits_only else classifier.activation
    weigh = _build_grad_cam(model, target, classifier)

    def explain(image: np.ndarray, class_index: int | None = None) -> Heatmap:
        image = np.asarray(image, "float32")
        _check(image, class_index, model.input_shape[1:], classifier.units)
        heat, index, logits = weigh(image, _MOST_PROBABLE if class_index is None else class_index)
        heat = heat.numpy()
        return Heatmap(heat / (heat.max() or 1), int(index), activation(logits)[0].numpy(), target.name)

    return explain


def grad_cam(
    model: keras.Model, image: np.ndarray, *, class_index: int | None = None, layer: str | None = None
) -> Heatmap:
    """Weighs a feature map by what it contributes to a class: where in the image does the network find it?

    Each channel counts by the gradient of the class's logit, averaged over the map; what speaks against the class is
    left out. The logit it is, not the probability, in which the other classes have their say.

    Args:
        model: Classifier of this package under the TensorFlow backend: fine-tuned, frozen, of mixed precision or
            reloaded from a `.keras`, all the same.
        image: One image, array of shape `(height, width, channels)` in 0..255, at the model's size; normalised only
            where the model was built with `include_preprocessing=False`.
        class_index: Int, the class to explain, by default the most probable.
        layer: String, whose output is weighed: a part, `"block5c"`, or a layer by itself, `"block5c_add"`. The last
            feature map before pooling by default; earlier ones are finer and know less of classes.

    Returns:
        A `Heatmap`.

    Raises:
        UserError: The model is no classifier of this package, the image has another shape, or there is no class or
            layer of that name.

    Example:

    >>> heat = keras_effnet.grad_cam(model, image)
    >>> heat.map.shape, heat.class_index, heat.layer
    ((7, 7), 281, 'top_activation')

    Source: Selvaraju et al., Grad-CAM (ICCV 2017), section 3.
    """
    return explainer(model, layer)(image, class_index)

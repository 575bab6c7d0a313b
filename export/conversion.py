"""A Keras model as the one function that every precision is converted from: float32, batch 1, fixed size."""

from __future__ import annotations

from math import prod

import keras
import tensorflow as tf

from keras_effnet.errors import UserError
from keras_effnet.saving import computing_layers


def float32_copy(model: keras.Model) -> keras.Model:
    """The same network computing in float32; a model that does so already is returned as it is.

    A network trained in mixed precision converts, but into a file full of casts that phones refuse.
    """
    if all(layer.compute_dtype == "float32" for layer in computing_layers(model)):
        return model

    def rebuild(layer):
        return type(layer).from_config(layer.get_config() | {"dtype": "float32"})

    copy = keras.models.clone_model(model, clone_function=rebuild, recursive=True)
    copy.set_weights(model.get_weights())
    return copy


def weight_count(model: keras.Model) -> int:
    """Elements of all kernels: what a file must hold at the least. Batch normalization is folded away."""
    return sum(prod(layer.kernel.shape) for layer in computing_layers(model) if hasattr(layer, "kernel"))


def check_exportable(model: keras.Model) -> None:
    """Refuses what has no single picture of fixed size coming in and no single output going out.

    Raises:
        UserError: With what the model has instead.
    """
    inputs, outputs = len(model.inputs), len(model.outputs)
    if (inputs, outputs) != (1, 1):
        raise UserError(f"Export takes one input and one output; the model has {inputs} and {outputs}.")
    shape = model.input_shape
    if len(shape) != 4 or None in shape[1:]:
        raise UserError(f"The model's input {shape} has no fixed size; build it with input_shape=(H, W, 3).")


def serving_function(model: keras.Model):
    """A float32 model as a concrete function of one picture, `(1, height, width, channels)` float32 in 0..255.

    Batch is fixed at 1: browsers and phones fail on an unknown one.
    """
    signature = tf.TensorSpec((1, *model.input_shape[1:]), tf.float32, name="image")
    return tf.function(lambda image: model(image, training=False)).get_concrete_function(signature)

"""Channel equalization of swish networks for int8: the same function in float, with activations that fit in 8 bits.

Swish needs a small step near 0, where it is curved, but the batch normalization gain of a single channel can widen the
range of the tensor, and so the step, a hundredfold: a trained B0 loses the whole signal (0 dB). Here each channel of a
pre-activation `a` is divided by its own factor s, `u = a / s`, and swish becomes `u * sigmoid(s * u)`, which is
`swish(a) / s`. The division is folded into the preceding batch normalization, the multiplication into the following
layers; the float function is unchanged. Every channel then fills the same range, and only a sigmoid reads `s * u`, so
values beyond 8 may saturate. Keras, LiteRT and numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product

import keras
import numpy as np

from keras_effnet.export.conversion.structure import copied
from keras_effnet.export.int8.range_fitting import (
    LOGISTIC_RANGE,
    ActivationFit,
    Channels,
    relative_error,
    rounded,
    swish,
)
from keras_effnet.export.tflite_file.tensors import layer_of

# Layers allowed between the activation and the layer that absorbs the factor: linear in each channel.
_TRANSPARENT = ("GlobalAveragePooling2D", "Multiply", "ZeroPadding2D", "Dropout")
_ABSORBING = ("Conv2D", "DepthwiseConv2D", "Dense")

_LOWER_BOUNDS = (0.1, 0.2, 0.4, 0.7, 1.0)
_SPREADS = (1.0, 0.75, 0.5, 0.25, 0.0)  # exponents of the factors: 0 is one factor for all channels
_LEAST = 1e-3  # factor of a channel that is always 0


@dataclass(frozen=True, eq=False)
class Equalization:
    """Scaling of one swish activation.

    Args:
        scale: `float32` array of shape `(channels,)`, the factors s.
        low: Float, minus the lower end of the range of u; the upper end is 1.
        error: Float, expected squared error of the swish over the variance of the signal, weighted by importance.
    """

    scale: np.ndarray
    low: float
    error: float


class ScaledSwish(keras.layers.Layer):
    """Compute `u * sigmoid(s * u)`. Used only in the graph that is converted, never in a saved model."""

    def __init__(self, scale, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale

    def get_config(self):
        return super().get_config() | {"scale": self.scale}

    def call(self, inputs):
        return inputs * keras.ops.sigmoid(inputs * self.scale)


def _producers(model: keras.Model) -> dict[int, keras.layers.Layer]:
    return {id(tensor): layer for layer in model.layers for tensor in keras.tree.flatten(layer.output)}


def _is_swish(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.Activation) and layer.activation is keras.activations.silu


def _absorbers(model: keras.Model, layer: keras.layers.Layer) -> list[keras.layers.Layer] | None:
    """Find the layers that can absorb a factor on `layer`'s output channels; None if any other layer reads them."""
    found, pending = [], [layer]
    while pending:
        tensor = pending.pop().output
        for consumer in model.layers:
            if not any(tensor is item for item in keras.tree.flatten(consumer.input)) or consumer.output is tensor:
                continue
            kind = type(consumer).__name__
            if kind in _ABSORBING:
                found.append(consumer)
            elif kind in _TRANSPARENT:
                pending.append(consumer)
            else:
                return None
    return found


def _choose(
    seen: Channels, weight: np.ndarray, kernel_error: Callable[[np.ndarray], float] = lambda scale: 0.0
) -> Equalization:
    """Choose the factors of one tensor, with the lower end of u whose 8 bits cause the least error after the swish.

    Each channel fills the range up to 1 by its maximum, and down to the lower end by its minimum, or by -8, below which
    swish is flat.

    Args:
        seen: `Channels` of the pre-activation.
        weight: Array of shape `(channels,)`, importance of a squared error in each channel.
    """
    target = swish(seen.rows)
    signal = max(float(target.var(axis=0, dtype="float64") @ weight), 1e-30)
    choices = []
    for low, spread in product(_LOWER_BOUNDS, _SPREADS):
        scale = np.maximum(np.maximum(seen.high, np.minimum(-LOGISTIC_RANGE[0], -seen.low) / low), _LEAST)
        scale = scale.max() * (scale / scale.max()) ** spread
        unit = scale.max() / 255  # the constant itself is quantized per tensor to 8 bits
        scale = (np.maximum(np.round(scale / unit), 1) * unit).astype("float32")
        output = scale * rounded(swish(rounded(seen.rows / scale, -low, 1.0) * scale) / scale, -low / 2, 1.0)
        error = relative_error(output, target, weight) + kernel_error(scale) / signal
        choices.append(Equalization(scale, low, error))
    return min(choices, key=lambda choice: choice.error)


def _plan(model: keras.Model) -> dict[str, tuple[str, list[str]]]:
    """Name of each swish that can be scaled -> its batch normalization and the layers that absorb the factor."""
    producers, plan = _producers(model), {}
    for layer in model.layers:
        if _is_swish(layer) and type(producers.get(id(layer.input))).__name__ == "BatchNormalization":
            absorbers = _absorbers(model, layer)
            if absorbers:
                plan[layer.name] = (producers[id(layer.input)].name, [item.name for item in absorbers])
    return plan


def scalable(model: keras.Model) -> bool:
    """Whether a model has a swish that can be scaled per channel."""
    return bool(_plan(model))


def choose_factors(fit: ActivationFit, model: keras.Model) -> dict[str, Equalization]:
    """Choose the factors of every swish that can be scaled.

    Args:
        fit: `ActivationFit` of the model's float file.
        model: Functional Keras model.

    Returns:
        Name of a swish layer -> `Equalization`; empty if the model has no swish to scale.
    """
    plan, tensors = _plan(model), fit.file.subgraphs[0].tensors
    layers = [layer.name for layer in model.layers]
    names = {given: layer_of(tensors[output].name, layers) for given, output in fit.swishes.items()}
    return {
        name: _choose(fit.channels[given], fit.weight(output), partial(fit.kernel_error, output))
        for given, output in fit.swishes.items()
        if (name := names[given]) in plan
    }


def equalize(model: keras.Model, factors: Mapping[str, Equalization]) -> keras.Model:
    """Scale swishes of a model per channel without changing its function.

    Args:
        model: Functional Keras model.
        factors: Name of a swish layer -> its `Equalization`, see `choose_factors`.

    Returns:
        A model for conversion.
    """
    plan = _plan(model)

    def rebuild(layer):
        if layer.name in factors:
            return ScaledSwish(factors[layer.name].scale, name=layer.name)
        return copied(layer)

    copy = keras.models.clone_model(model, clone_function=rebuild)
    copy.set_weights(model.get_weights())
    for name, factor in factors.items():
        (norm, absorbers), s = plan[name], factor.scale
        layer = copy.get_layer(norm)
        gamma, beta, *statistics = layer.get_weights()
        layer.set_weights([gamma / s, beta / s, *statistics])
        for absorber in absorbers:
            layer = copy.get_layer(absorber)
            kernel, *bias = layer.get_weights()
            # Input channels are the last axis but one in every kernel: (h, w, in, out), (h, w, in, 1), (in, out).
            layer.set_weights([kernel * s[:, None], *bias])
    return copy

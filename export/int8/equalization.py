"""Channel equalization of swish networks for int8: the same function in float, with activations that fit in 8 bits.

Swish needs a small step near 0, where it is curved, but the batch normalization gain of a single channel can widen the
range of the tensor, and so the step, a hundredfold: a trained B0 loses the whole signal (0 dB). Here each channel of a
pre-activation `a` is divided by its own factor s, `u = a / s`, and swish becomes `u * sigmoid(s * u)`, which is
`swish(a) / s`. The division is folded into the preceding batch normalization, the multiplication into the following
layers; the float function is unchanged. Every channel then fills the same range, and only a sigmoid reads `s * u`, so
values beyond 8 may saturate. Keras, LiteRT and numpy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import keras
import numpy as np

from keras_effnet.export.conversion.structure import copied
from keras_effnet.export.int8.range_fitting import (
    LOGISTIC_RANGE,
    ActivationFit,
    Channels,
    error_against,
    rounded,
    signal,
    swish,
)
from keras_effnet.export.tflite_file.tensors import layer_of
from keras_effnet.system.private_api import graph_steps

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


def _is_swish(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.Activation) and layer.activation is keras.activations.silu


def _is_channel_norm(layer: Any) -> bool:
    """Whether a layer is batch normalization of the last axis."""
    return type(layer) is keras.layers.BatchNormalization and layer.axis in (-1, 3)


class _Graph:
    """What reads and what makes each tensor of a functional model, call by call."""

    def __init__(self, model: keras.Model):
        self.steps = graph_steps(model)
        self.makers: dict[int, Any] = {id(output): operation for operation, _, output in self.steps}
        self.calls = Counter(id(operation) for operation, _, _ in self.steps)
        self.results = {id(tensor) for tensor in model.outputs}

    def readers(self, tensor: keras.KerasTensor) -> list[tuple[Any, Any]]:
        """Each layer or operation that reads a tensor, with its output, once for each argument that it is."""
        return [(reader, output) for reader, inputs, output in self.steps for each in inputs if each is tensor]

    def normalized_swishes(self) -> Iterator[tuple[Any, Any, Any, Any]]:
        """Each swish behind batch normalization, the latter, what the swish reads and what it gives."""
        for layer, (given, *_), output in self.steps:
            norm = self.makers.get(id(given))
            if _is_swish(layer) and _is_channel_norm(norm):
                yield layer, norm, given, output

    def called_once(self, *layers: Any) -> bool:
        """Whether no layer is called again, where scaling it would change another function."""
        return all(self.calls[id(layer)] == 1 for layer in layers)

    def absorbers(self, tensor: keras.KerasTensor) -> list[keras.layers.Layer] | None:
        """Find the layers that can absorb a factor on a tensor's channels; None if anything else sees them."""
        found, pending = [], [tensor]
        while pending:
            tensor = pending.pop()
            readers = self.readers(tensor)
            if id(tensor) in self.results or len(readers) > len({id(reader) for reader, _ in readers}):
                return None  # an output of the model, or multiplied by itself
            for reader, output in readers:
                kind = type(reader).__name__
                if kind in _ABSORBING and self.called_once(reader) and getattr(reader, "groups", 1) == 1:
                    found.append(reader)
                elif kind in _TRANSPARENT:
                    pending.append(output)
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
    rounding, power = error_against(target, weight), signal(target, weight)
    choices = []
    for low, spread in product(_LOWER_BOUNDS, _SPREADS):
        scale = np.maximum(np.maximum(seen.high, np.minimum(-LOGISTIC_RANGE[0], -seen.low) / low), _LEAST)
        scale = scale.max() * (scale / scale.max()) ** spread
        unit = scale.max() / 255  # the constant itself is quantized per tensor to 8 bits
        scale = (np.maximum(np.round(scale / unit), 1) * unit).astype("float32")
        output = scale * rounded(swish(rounded(seen.rows / scale, -low, 1.0) * scale) / scale, -low / 2, 1.0)
        error = rounding(output) + kernel_error(scale) / power
        choices.append(Equalization(scale, low, error))
    return min(choices, key=lambda choice: choice.error)


def _plan(model: keras.Model) -> dict[str, tuple[str, list[str]]]:
    """Name of each swish that can be scaled -> its batch normalization and the layers that absorb the factor.

    The swish is all that sees the normalization, and none of these layers is called again.
    """
    graph, plan = _Graph(model), {}
    for layer, norm, given, output in graph.normalized_swishes():
        alone = graph.called_once(layer, norm) and len(graph.readers(given)) == 1 and id(given) not in graph.results
        if alone and (absorbers := graph.absorbers(output)):
            plan[layer.name] = (norm.name, [each.name for each in absorbers])
    return plan


def normalizes_swishes(model: keras.Model) -> bool:
    """Whether a model has a swish behind batch normalization."""
    return any(_Graph(model).normalized_swishes())


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
    scales = {plan[name][0]: factor.scale for name, factor in factors.items()}

    def rebuild(layer):
        if layer.name in factors:
            return ScaledSwish(factors[layer.name].scale, name=layer.name)
        return copied(layer, scale=True, center=True) if layer.name in scales else copied(layer)

    copy = keras.models.clone_model(model, clone_function=rebuild)
    for layer in filter(lambda layer: layer.weights, copy.layers):
        before = model.get_layer(layer.name)
        divided = layer.name in scales
        layer.set_weights(_divided(before, scales[layer.name]) if divided else before.get_weights())
    for name, factor in factors.items():
        for absorber in plan[name][1]:
            layer = copy.get_layer(absorber)
            kernel, *bias = layer.get_weights()
            # Input channels are the last axis but one in every kernel: (h, w, in, out), (h, w, in, 1), (in, out).
            layer.set_weights([kernel * factor.scale[:, None], *bias])
    return copy


def _divided(norm: keras.layers.BatchNormalization, s: np.ndarray) -> list[np.ndarray]:
    """Gain, offset and statistics of a batch normalization that gives `1 / s` of what it gave."""
    gamma = norm.gamma if norm.scale else np.ones_like(s)
    beta = norm.beta if norm.center else np.zeros_like(s)
    return [gamma / s, beta / s, norm.moving_mean, norm.moving_variance]

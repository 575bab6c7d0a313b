"""Channel equalization of swish networks for int8: the same function in float, with activations that fit in 8 bits.

Swish needs a small step near 0, where it is curved, but the batch normalization gain of a single channel can widen the
range of the tensor, and so the step, a hundredfold: a trained B0 loses the whole signal (0 dB). Here each channel of a
pre-activation `a` is divided by its own factor s, `u = a / s`, and swish becomes `u * sigmoid(s * u)`, which is
`swish(a) / s`. The division is folded into the preceding batch normalization, the multiplication into the following
layers; the float function is unchanged. Every channel then fills the same range, and only a sigmoid reads `s * u`, so
values beyond 8 may saturate. Keras and numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np

# Layers allowed between the activation and the layer that absorbs the factor: linear in each channel.
_TRANSPARENT = ("GlobalAveragePooling2D", "Multiply", "ZeroPadding2D", "Dropout")
_ABSORBING = ("Conv2D", "DepthwiseConv2D", "Dense")

LOGISTIC_RANGE = (-8.0, 8.0)
_LOWER_BOUNDS = (0.125, 0.25, 0.5, 1.0, 2.0)
_ROWS = 2048  # values per channel from which its factor is chosen


@dataclass(frozen=True, eq=False)
class Equalization:
    """Scaling of one swish activation.

    Args:
        scale: `float32` array of shape `(channels,)`, the factors s.
        low: Float, lower end of the range of u; the upper end is 1.
    """

    scale: np.ndarray
    low: float


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


def _swish(a: np.ndarray) -> np.ndarray:
    return a / (1 + np.exp(-np.clip(a, -60, 60)))


def _choose(samples: np.ndarray) -> Equalization:
    """Choose the factors of one tensor: per channel the s whose 8-bit u has the least error after swish.

    Args:
        samples: Array of shape `(n, channels)`, pre-activations.
    """
    target = _swish(samples)
    top = np.maximum(np.abs(samples).max(axis=0), 1e-3)
    grid = np.geomspace(0.02, 1.5, 24)
    choices: list[tuple[float, float, np.ndarray]] = []
    for low in _LOWER_BOUNDS:
        step = (1 + low) / 255
        rows = []
        for share in grid:
            s = share * top
            u = np.clip(np.round(samples / s / step) * step, -low, 1)
            rows.append(np.mean((_swish(u * s) - target) ** 2, axis=0))
        errors = np.stack(rows)
        choices.append((float(errors.min(axis=0).sum()), low, grid[errors.argmin(axis=0)] * top))
    _, low, scale = min(choices, key=lambda choice: choice[0])
    unit = scale.max() / 255  # the constant itself is quantized per tensor to 8 bits
    return Equalization((np.maximum(np.round(scale / unit), 1) * unit).astype("float32"), low)


def _sample_preactivations(
    model: keras.Model, layers: list[keras.layers.Layer], images: np.ndarray
) -> list[np.ndarray]:
    probe = keras.Model(model.inputs, [layer.input for layer in layers])
    rng = np.random.default_rng(0)
    samples: list[list[np.ndarray]] = [[] for _ in layers]
    positions = max(1, _ROWS // len(images))
    for start in range(0, len(images), 8):
        outputs = probe.predict_on_batch(images[start : start + 8])
        for kept, output in zip(samples, outputs, strict=True):
            flat = np.asarray(output).reshape(len(output), -1, output.shape[-1])
            where = rng.integers(flat.shape[1], size=min(positions, flat.shape[1]))
            kept.append(flat[:, where].reshape(-1, flat.shape[-1]))
    return [np.concatenate(kept) for kept in samples]


def equalize(model: keras.Model, images: np.ndarray) -> tuple[keras.Model, list[Equalization]]:
    """Scale every swish of a model per channel without changing its function.

    Args:
        model: Functional Keras model.
        images: Array of shape `(N, height, width, channels)`.

    Returns:
        A model for conversion, and the factors; the model itself and an empty list if it has no swish to scale.
    """
    producers = _producers(model)
    plan = {}
    for layer in model.layers:
        if _is_swish(layer) and type(producers.get(id(layer.input))).__name__ == "BatchNormalization":
            absorbers = _absorbers(model, layer)
            if absorbers:
                plan[layer.name] = (producers[id(layer.input)].name, [item.name for item in absorbers])
    if not plan:
        return model, []
    layers = [model.get_layer(name) for name in plan]
    chosen = {
        name: _choose(samples)
        for name, samples in zip(plan, _sample_preactivations(model, layers, images), strict=True)
    }

    def rebuild(layer):
        if layer.name in chosen:
            return ScaledSwish(chosen[layer.name].scale, name=layer.name)
        return type(layer).from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=rebuild)
    copy.set_weights(model.get_weights())
    for name, (norm, absorbers) in plan.items():
        s = chosen[name].scale
        layer = copy.get_layer(norm)
        gamma, beta, *statistics = layer.get_weights()
        layer.set_weights([gamma / s, beta / s, *statistics])
        for absorber in absorbers:
            layer = copy.get_layer(absorber)
            kernel, *bias = layer.get_weights()
            # Input channels are the last axis but one in every kernel: (h, w, in, out), (h, w, in, 1), (in, out).
            layer.set_weights([kernel * s[:, None], *bias])
    return copy, list(chosen.values())

"""Weights files that the EfficientNets of `keras.applications` load. Keras only."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

from keras_effnet.architecture.baselines import SPECS
from keras_effnet.architecture.block_specs import ConvSpec
from keras_effnet.architecture.specs import expand
from keras_effnet.errors import UserError, check_model, check_path, listed
from keras_effnet.preprocessing import ImageSpec
from keras_effnet.system.files import atomic
from keras_effnet.weights.pretrained import PRETRAINED, KerasDownload
from keras_effnet.weights.torch_layers import geometry
from keras_effnet.weights.torch_names import TENSORFLOW

_SUFFIX = ".weights.h5"
_SIZE = 32  # pixels; no weight depends on it
_ACTIVATIONS = (keras.activations.silu, keras.activations.sigmoid)


def _channels(name: str) -> dict[str, int]:
    """Output channels of each convolution of a published network, by layer name."""
    network = expand(SPECS[name])
    parts = (network.stem, *(part for block in network.blocks for part in block.weighted), network.head)
    return {part.name: part.out_channels for part in parts if isinstance(part, ConvSpec)}


def _published_name(model: keras.Model) -> str:
    """Name of the published network that a model has the convolutions of."""
    convolutions = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    found = {layer.name: layer.output.shape[-1] for layer in model.layers if isinstance(layer, convolutions)}
    names = [name for name, weights in PRETRAINED.items() if isinstance(weights, KerasDownload)]
    for name in names:
        if _channels(name) == found:
            return name
    raise UserError(f"keras.applications has no network with the layers of {model.name}; it has {', '.join(names)}.")


def _check_computation(model: keras.Model) -> None:
    """Refuse a network that computes something else from the same weights."""
    paddings, epsilons = geometry(model)
    if paddings != {TENSORFLOW[0]} or epsilons != {TENSORFLOW[1]}:
        raise UserError(
            f"keras.applications has padding 'same' and bn_epsilon 1e-3, {model.name} has {'/'.join(sorted(paddings))} "
            f"and {'/'.join(f'{epsilon:g}' for epsilon in sorted(epsilons))}: its weights would compute other features."
        )
    for layer in model.layers:
        if isinstance(layer, keras.layers.Activation) and layer.activation not in _ACTIVATIONS:
            raise UserError(f"keras.applications has swish, {layer.name} of {model.name} does not.")


def _normalisation(model: keras.Model, name: str) -> list[np.ndarray]:
    """Mean, variance and count of the Normalization layer that computes what our Rescaling does."""
    channels = model.input_shape[-1]
    own, published = ImageSpec.of_model(model, size=_SIZE), ImageSpec.of(SPECS[name], channels=channels)
    if name.startswith("v2-") and own.in_network:  # constants there, for three channels or for none in particular
        same = np.allclose(own.mean, published.mean) and np.allclose(own.std, published.std)
        if not same or (channels != 3 and "b" in name):
            raise UserError(f"keras.applications normalises pixels otherwise than {model.name}.")
    mean, std = (np.broadcast_to(np.asarray(values, "float32") / 255, channels) for values in (own.mean, own.std))
    return [mean, std**2, np.zeros((), "int32")]


def save_weights_for_keras_applications(model: keras.Model, path: str | Path) -> None:
    """Save the weights of a network for `load_weights` of its counterpart in `keras.applications`.

    A file of plain `model.save_weights` lacks the weights of the `Normalization` layer that their V1 networks have.
    Here they are written too, so a network built with `weights=None` (not `"imagenet"`, which adds a layer) gives the
    same outputs.

    Args:
        model: One of `EfficientNetB0` to `B7` or `EfficientNetV2B0` to `V2L`, with or without classifier, for any
            classes, input size and channels.
        path: Path of the file, ending in `.weights.h5`.

    Raises:
        UserError: `keras.applications` has no such network, or one that computes something else with these weights.

    Example:

    >>> keras_effnet.save_weights_for_keras_applications(model, "b0.weights.h5")
    >>> keras.applications.EfficientNetB0(weights=None).load_weights("b0.weights.h5")
    """
    check_model(model)
    check_path("path", path)
    path = Path(path)
    if not path.name.endswith(_SUFFIX):
        raise UserError(f"path must end in {_SUFFIX}, got {path.name}.")
    name = _published_name(model)
    _check_computation(model)
    own = {layer.name: layer for layer in model.layers if layer.weights}
    head = own.get("predictions")
    theirs = getattr(keras.applications, f"EfficientNet{name.replace('-', '').upper()}")(
        include_top=head is not None,
        weights=None,
        classes=head.units if head else 1000,
        input_shape=(_SIZE, _SIZE, model.input_shape[-1]),
    )
    weighted = [layer for layer in theirs.layers if layer.weights]
    copied = [layer for layer in weighted if not isinstance(layer, keras.layers.Normalization)]
    if differing := sorted(own.keys() ^ {layer.name for layer in copied}):
        raise UserError(f"{model.name} and the network of keras.applications do not both have {listed(differing, 3)}.")
    for layer in copied:
        layer.set_weights(own[layer.name].get_weights())
    statistics = _normalisation(model, name)
    for layer in weighted:
        if layer not in copied:
            layer.set_weights(statistics)
    with atomic(path) as temporary:
        theirs.save_weights(temporary)

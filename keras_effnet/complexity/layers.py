"""Cost of the layers of any Keras model.

Pure Python: layers are read by their attributes.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

from keras_effnet.architecture.network_parts import computing_layers
from keras_effnet.complexity.cost import Cost
from keras_effnet.errors import UserError
from keras_effnet.system.private_api import Calls, call_shapes

# Each has a `kernel` that is applied once per position of its output, or of its input where it is transposed.
_KERNELS = ("Conv1D", "Conv2D", "Conv3D", "DepthwiseConv1D", "DepthwiseConv2D", "Dense")
_TRANSPOSED = ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
_SEPARABLE = ("SeparableConv1D", "SeparableConv2D")
# Layers with weights of two or more dimensions that multiply elementwise or look up.
_ELEMENTWISE = ("PReLU", "Embedding", "Normalization", "LayerNormalization", "BatchNormalization")
# Layers without weights, and operations of a functional model, that multiply matrices.
_PRODUCTS = ("Dot", "Attention", "AdditiveAttention")
_OPERATIONS: tuple[str, ...] = (
    "Matmul",
    "Dot",
    "Tensordot",
    "Einsum",
    "Inner",
    "Outer",
    "Vdot",
    "Conv",
    "ConvTranspose",
)
_OPERATIONS += ("DepthwiseConv", "SeparableConv")


def layer_costs(model: Any) -> Iterator[Cost]:
    """Cost of each layer of a Keras model for one image, input side first, nested models included.

    Raises:
        UserError: The MACs of a layer are not known, it has no fixed size, or the model no graph.
    """
    _refuse_products(model)
    calls = call_shapes(model) if getattr(model, "outputs", None) else {}
    for layer in computing_layers(model):
        yield _layer_cost(layer, calls.get(id(layer), []))


def _refuse_products(model: Any) -> None:
    """Refuse operations of functional models that multiply matrices."""
    for operation in getattr(model, "operations", ()):
        if type(operation).__name__ in _OPERATIONS and not hasattr(operation, "weights"):
            raise _unknown(operation)
    for layer in getattr(model, "layers", ()):
        _refuse_products(layer)


def _unknown(layer: Any) -> UserError:
    kind = type(layer).__name__
    return UserError(
        f"The MACs of layer {layer.name!r} ({kind}) cannot be counted: only convolutions and Dense layers can. Without "
        "it the total would be too low; count the network without this layer, and add its share."
    )


def _kind(layer: Any) -> str:
    """Name of the layer's class, or of the first of its bases whose cost is known."""
    known = (*_KERNELS, *_TRANSPOSED, *_SEPARABLE, *_ELEMENTWISE, *_PRODUCTS)
    names = [each.__name__ for each in type(layer).__mro__]
    return next((name for name in names if name in known), names[0])


def _is_elementwise(layer: Any, kind: str) -> bool:
    """Whether it has no weights but vectors, as for scales and offsets of channels."""
    if kind in _ELEMENTWISE:
        return True
    return kind not in _PRODUCTS and all(sum(side > 1 for side in each.shape) < 2 for each in layer.weights)


def _layer_cost(layer: Any, calls: Calls) -> Cost:
    params = sum(prod(weight.shape) for weight in layer.trainable_weights)
    frozen = sum(prod(weight.shape) for weight in layer.non_trainable_weights)
    kind = _kind(layer)
    if kind in (*_KERNELS, *_TRANSPOSED, *_SEPARABLE):
        macs, activations = _products(layer, kind, calls)
        return Cost(layer.name, macs, params, activations, frozen)  # a frozen layer computes as much as a trained one
    if not _is_elementwise(layer, kind):
        raise _unknown(layer)
    return Cost(layer.name, params=params, non_trainable=frozen)


def _products(layer: Any, kind: str, calls: Calls) -> tuple[int, int]:
    """MACs and output elements of all calls of a convolution or dense layer."""
    if not calls:
        raise UserError(
            f"Layer {layer.name!r} is called outside of a graph, such as in a class of your own: count a functional or "
            "Sequential model that begins with keras.Input."
        )
    macs = elements = 0
    for given, output in calls:  # a detector's heads run on all levels
        positions, inputs = _positions(layer, output), _positions(layer, given)
        size = prod(side for side in output if side)
        channels = size // positions
        if kind in _SEPARABLE:
            weights = prod(layer.depthwise_kernel.shape) + prod(layer.pointwise_kernel.shape)
        else:
            weights = prod(layer.kernel.shape)
        macs += weights * (inputs if kind in _TRANSPOSED else positions) + layer.use_bias * channels * positions
        elements += size
    return macs, elements


def _positions(layer: Any, shape: tuple[int | None, ...]) -> int:
    """Number of positions of a feature map: all dimensions but that of channels."""
    sides = shape[1:] if getattr(layer, "data_format", None) == "channels_first" else shape[:-1]
    if None in shape:
        raise UserError(f"Layer {layer.name!r} has no fixed size; build the model with an input_shape to count it.")
    return prod(side for side in sides if side is not None)

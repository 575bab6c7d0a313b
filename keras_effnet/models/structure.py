"""Structure of any image network: its flat graph, its backbone stage by stage, and its head. Keras only.

Networks of this package and of `keras.applications`' EfficientNet families are divided by their layer names, all others
by the strides of their feature maps. Nested models, `Sequential` ones too, are looked through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import keras

from keras_effnet.architecture.network_parts import Part, parts
from keras_effnet.errors import UserError, check_model
from keras_effnet.system.private_api import graph_steps

CLASSIFIER = "classifier"

_PADDING = ("ZeroPadding2D", "Cropping2D")
_ENLARGING = ("UpSampling2D", "Conv2DTranspose", "Resizing")
_BEHIND_CLASSIFIER = ("Activation", "Softmax", "Sigmoid", "Dropout", "Identity")
_POOLED = ("GlobalAveragePooling2D", "GlobalMaxPooling2D")

Rebuild: TypeAlias = Callable[[keras.layers.Layer], keras.layers.Layer]
Step: TypeAlias = tuple[Any, tuple[Any, ...], Any]  # operation, inputs, output


@dataclass(frozen=True, eq=False)
class Structure:
    """Backbone and head of a network, see `structure_of`.

    Args:
        model: Functional model without nested ones that shares all layers with the network.
        parts: Tuple of `Part`s of the backbone, input side first: stem, blocks and top of networks with such names,
            else one part `"P1"`, `"P2"`, ... per stride. Their outputs are tensors of `model`.
        head: Tuple of layers behind the backbone, input side first: pooling, dropout, dense layers, activations.
        outputs: Dict from layer to its symbolic output in `model`.
        inputs: Dict from layer to its symbolic inputs in `model`, a tuple.
    """

    model: keras.Model
    parts: tuple[Part, ...]
    head: tuple[keras.layers.Layer, ...]
    outputs: dict[Any, Any]
    inputs: dict[Any, tuple[Any, ...]]

    @property
    def levels(self) -> dict[str, Part]:
        """Part with the last feature map of each stride, by level: `"P3"` has an eighth (2^-3) of the input's sides."""
        named = [part for part in self.parts if part.stage]
        return {f"P{part.stride.bit_length() - 1}": part for part in named or self.parts}

    def producer(self, tensor: Any) -> Any:
        """Layer or operation that computes a tensor of `model`; None for an input."""
        return next((operation for operation, output in self.outputs.items() if output is tensor), None)

    def classifier_of(self, tensor: Any) -> tuple[keras.layers.Dense | None, list[Any]]:
        """The dense layer that computes an output, and the activations and dropout between them, output side first.

        The layer is None if the output is not that of a dense layer, such as a pooled feature map.
        """
        behind: list[Any] = []
        operation = self.producer(tensor)
        while operation is not None and type(operation).__name__ in _BEHIND_CLASSIFIER:
            behind.append(operation)
            operation = self.producer(self.inputs[operation][0])
        return (operation, behind) if isinstance(operation, keras.layers.Dense) else (None, behind)

    def pooling_of(self, tensor: Any) -> tuple[Any, Any] | None:
        """The last feature map that an output is computed from, and the tensor that pooling makes of it.

        None if there is no feature map on the way from the input.
        """
        operation = self.producer(tensor)
        while operation is not None:
            output, given = self.outputs[operation], self.inputs[operation][0]
            pooled = not _is_map(output) or type(operation).__name__ in _POOLED
            if pooled and _is_map(given) and type(self.producer(given)).__name__ not in _POOLED:
                return given, output
            operation = self.producer(given)
        return None


def structure_of(model: keras.Model) -> Structure:
    """Find backbone and head of a network.

    Args:
        model: Keras model with one image input: of this package, of `keras.applications`, or another one; with a head
            of any kind or none; nested, `Sequential` or reloaded.

    Raises:
        UserError: It is no Keras model, has no feature maps, or nested models have layers of the same name.

    Example:

    >>> base = keras_effnet.EfficientNetB0(include_top=False, pooling="avg", weights=None)
    >>> head = keras.layers.Dense(3, name="flowers")
    >>> found = structure_of(keras.Sequential([keras.Input((224, 224, 3)), base, head]))
    >>> [part.name for part in found.parts][:2], [layer.name for layer in found.head]
    (['stem', 'block1a'], ['avg_pool', 'flowers'])
    """
    flat = flattened(model)
    steps = graph_steps(flat)
    outputs = {operation: output for operation, _, output in steps}
    inputs = {operation: given for operation, given, _ in steps}
    try:
        named = parts(flat)
    except UserError:
        found = _by_stride(flat, steps, _head(flat, steps))
    else:
        backbone = [part for part in named if part.name != CLASSIFIER]
        found = tuple(replace(part, tensor=outputs[part.layers[-1]]) for part in backbone)
    behind = _behind(steps, {layer for part in found for layer in part.layers})
    return Structure(flat, found, tuple(layer for layer in behind if _is_layer(layer)), outputs, inputs)


def is_nested(layer: Any) -> bool:
    """Whether a layer is a model with a graph of its own."""
    return isinstance(layer, keras.Model)


def functional(model: keras.Model) -> keras.Model:
    """The graph of a functional or `Sequential` model, one tensor each instead of lists and dicts of one."""
    inputs, outputs = (ports[0] if len(ports) == 1 else ports for ports in (model.inputs, model.outputs))
    return keras.Model(inputs, outputs, name=model.name)


def _called(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
    return layer(*args, **kwargs)


def inlined(model: keras.Model, rebuild: Rebuild, call: Callable[..., Any] = _called) -> keras.Model:
    """Functional model with the layers of nested models in place of them.

    Args:
        model: Functional or `Sequential` model.
        rebuild: Function from a layer that is no model to the layer of the result: a copy, or itself.
        call: Function from such a layer and its inputs to its output.

    Raises:
        UserError: Two nested models have layers of the same name.
    """

    def inline(network: keras.Model) -> keras.Model:
        return keras.models.clone_model(functional(network), clone_function=replacement, call_function=connect)

    def replacement(layer):
        return inline(layer) if is_nested(layer) else rebuild(layer)

    def connect(layer, *args, **kwargs):
        return layer.call(*args, **kwargs) if is_nested(layer) else call(layer, *args, **kwargs)

    try:
        return inline(model)
    except ValueError as error:
        if "unique" not in str(error):
            raise
        cure = "give those of each nested model names of their own."
        raise UserError(f"Nested models of {model.name} have layers of the same name; {cure}") from None


def flattened(model: keras.Model) -> keras.Model:
    """A model as one functional graph of its own layers; a flat functional model is returned unchanged.

    Raises:
        UserError: It is no Keras model, or two nested models have layers of the same name.
    """
    check_model(model)
    if any(map(is_nested, model.layers)):
        return inlined(model, lambda layer: layer)
    return functional(model) if isinstance(model, keras.Sequential) else model


def containers(model: keras.Model) -> list[keras.Model]:
    """A model and all models nested in it, the outermost first."""
    return [model, *(each for layer in model.layers if is_nested(layer) for each in containers(layer))]


def _is_layer(operation: Any) -> bool:
    return isinstance(operation, keras.layers.Layer)


def _is_map(tensor: Any) -> bool:
    return len(tensor.shape) == 4


def _head(model: keras.Model, steps: Sequence[Step]) -> tuple[Any, ...]:
    """Operations from the outputs back to the last feature map, without the one that computes it."""
    needed, found = {id(tensor) for tensor in model.outputs}, []
    for operation, given, output in reversed(steps):
        pooled = not _is_map(output) or type(operation).__name__ in _POOLED
        if id(output) in needed and pooled:
            found.append(operation)
            needed |= {id(tensor) for tensor in given}
    return tuple(reversed(found))


def _behind(steps: Sequence[Step], backbone: set[Any]) -> tuple[Any, ...]:
    """Operations that follow the backbone: they depend on it and are none of its own."""
    after: set[int] = set()
    found = []
    for operation, given, output in steps:
        if operation in backbone:
            after.add(id(output))
        elif any(id(tensor) in after for tensor in given):
            after.add(id(output))
            found.append(operation)
    return tuple(found)


def _by_stride(model: keras.Model, steps: Sequence[Step], head: tuple[Any, ...]) -> tuple[Part, ...]:
    """Divide a network by the strides of its feature maps; each part ends with the map that the next one reduces."""
    strides = _strides(model, steps)
    groups: dict[int, list[Step]] = {}
    reduced: set[int] = set()
    for step in reversed(steps):
        operation, given, output = step
        stride = strides.get(id(output))
        if operation in head or stride is None:
            continue
        groups.setdefault(stride, []).insert(0, step)
        # A map that is padded before it is reduced is still the map of its own part.
        if type(operation).__name__ in _PADDING and id(output) in reduced:
            reduced.add(id(given[0]))
        reduced |= {id(tensor) for tensor in given if strides.get(id(tensor), stride) < stride}
    if not groups:
        raise UserError(f"{model.name} has no feature maps: no convolution between its input and its head.")
    found = []
    for stride in sorted(groups):
        maps = [output for op, _, output in groups[stride] if _is_map(output) and type(op).__name__ not in _PADDING]
        ends = [output for output in maps if id(output) in reduced] or maps
        layers = tuple(operation for operation, _, _ in groups[stride] if _is_layer(operation))
        found.append(Part(f"P{stride.bit_length() - 1}", layers, stride, tensor=ends[-1]))
    return tuple(found)


def _strides(model: keras.Model, steps: Sequence[Step]) -> dict[int, int]:
    """Input pixels per pixel of each tensor, by its id, from the first convolution to where maps are enlarged again."""
    strides, convolved = {id(tensor): 1 for tensor in model.inputs}, set()
    for operation, given, output in steps:
        kind, behind = type(operation).__name__, any(id(tensor) in convolved for tensor in given)
        enlarged = (kind in _ENLARGING and behind) or any(id(tensor) not in strides for tensor in given)
        if enlarged:
            continue
        step = getattr(operation, "strides", None) if _is_map(output) else None
        strides[id(output)] = max(strides[id(tensor)] for tensor in given) * (step[0] if step else 1)
        if behind or "Conv" in kind:
            convolved.add(id(output))
    return {tensor: stride for tensor, stride in strides.items() if tensor in convolved}

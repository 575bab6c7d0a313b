"""Networks in the form that exports start from: one functional graph of layers, a tensor in, a tensor out. Keras."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import keras

from keras_effnet.architecture.network_parts import computing_layers
from keras_effnet.errors import UserError, check_model
from keras_effnet.models.structure import functional, inlined, is_nested
from keras_effnet.system.private_api import graph_steps


def plain(model: keras.Model, image_size: int | None = None) -> keras.Model:
    """Return a model as one functional graph: without nested models, dicts, lists, or an open image size.

    The layers of nested models keep their names, so that blocks can be named and batch normalization folds. Their first
    calls are those of the graph. A model that has this form is returned unchanged.

    Args:
        model: Keras model; `Sequential` too.
        image_size: Int, the size that a network for images of any size gets. Others keep theirs.

    Raises:
        UserError: It is no Keras model, or two nested models have layers of the same name.
    """
    check_model(model)
    if any(map(is_nested, model.layers)):
        model = _inlined(model)
    elif isinstance(model, keras.Sequential) or _is_structured(model):
        model = functional(model)
    if not _has_first_calls(model):
        model = _copy(model, copied)
    shape = tuple(model.inputs[0].shape)
    if image_size is not None and len(model.inputs) == 1 and len(shape) == 4 and None in shape[1:3]:
        return _of_size(model, (image_size, image_size, shape[3]))
    return model


def copied(layer: keras.layers.Layer, **changes: object) -> keras.layers.Layer:
    """Copy a layer from its configuration, without weights.

    Args:
        layer: Keras layer.
        **changes: Options of its configuration that differ.

    Raises:
        UserError: It cannot be copied, such as a `Lambda` or a class without `get_config`.
    """
    try:
        return type(layer).from_config(layer.get_config() | changes)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise UserError(
            f"Layer {layer.name!r} of class {type(layer).__name__} cannot be copied for the export: put functions of "
            "keras.ops in its place, or a layer class with get_config."
        ) from error


def float32_copy(model: keras.Model) -> keras.Model:
    """Copy a network to float32, its input too; a plain float32 model is returned unchanged.

    A mixed-precision network would convert to a file full of CAST operators that phones refuse.
    """
    model = plain(model)
    converted = partial(_copy, model, partial(copied, dtype="float32"))
    if any(_is_other_float(tensor.dtype) for tensor in model.inputs):
        return converted(keras.tree.map_structure(_float32_input, model.input))
    return model if all(layer.compute_dtype == "float32" for layer in computing_layers(model)) else converted()


def _is_other_float(dtype: str) -> bool:
    return "float" in dtype and dtype != "float32"


def _float32_input(tensor: keras.KerasTensor) -> keras.KerasTensor:
    dtype = "float32" if _is_other_float(tensor.dtype) else tensor.dtype
    return keras.Input(batch_shape=tensor.shape, dtype=dtype, name=tensor.name)


def _copy(
    model: keras.Model,
    rebuild: Callable[[keras.layers.Layer], keras.layers.Layer],
    inputs: Any = None,
) -> keras.Model:
    copy = keras.models.clone_model(model, clone_function=rebuild, input_tensors=inputs)
    copy.set_weights(model.get_weights())
    return copy


def _has_first_calls(model: keras.Model) -> bool:
    """Whether `input` and `output` of each layer, those of its first call, are tensors of this model.

    They are not where layers were called in another model before, and in a `Sequential` that was loaded from a file.
    """
    steps = graph_steps(model)
    tensors = {id(output) for _, _, output in steps}
    return all(tensors & {*map(id, keras.tree.flatten(operation.output))} for operation, _, _ in steps)


def unshared(model: keras.Model) -> keras.Model:
    """Copy a network in which every layer is called once: a layer that several levels of a detector share is repeated.

    Batch normalization then folds at every level, and each copy can be quantized and corrected by itself. The first
    call keeps the layer's name, the others get a number. A model without shared layers is returned unchanged.

    Args:
        model: Functional Keras model without nested models.
    """
    calls: Counter[str] = Counter()
    repeated: dict[str, str] = {}

    def connect(layer, *args, **kwargs):
        calls[layer.name] += 1
        if calls[layer.name] == 1:
            return layer(*args, **kwargs)
        name = f"{layer.name}_{calls[layer.name]}"
        repeated[name] = layer.name
        return copied(layer, name=name)(*args, **kwargs)

    copy = keras.models.clone_model(model, clone_function=copied, call_function=connect)
    if not repeated:
        return model
    for layer in copy.layers:
        if layer.weights:
            layer.set_weights(model.get_layer(repeated.get(layer.name, layer.name)).get_weights())
    return copy


def _is_structured(model: keras.Model) -> bool:
    """Whether a model has dicts or lists of one tensor."""
    structured = any(isinstance(part, dict | list | tuple) for part in (model.input, model.output))
    return structured and len(model.inputs) == 1 and len(model.outputs) == 1


def _inlined(model: keras.Model) -> keras.Model:
    """Copy a model with the layers of nested models in place of them."""
    originals: dict[str, keras.layers.Layer] = {}

    def rebuild(layer):
        originals[layer.name] = layer
        return copied(layer)

    # The copies of a nested model's layers belong to two graphs, that of their own model and this one. Reading the
    # graph from its config gives layers that belong to it alone.
    config = inlined(model, rebuild).get_config()
    classes = {type(layer).__name__: type(layer) for layer in originals.values()}
    with keras.utils.custom_object_scope(classes):
        flat = keras.Model.from_config(config)
    for layer in flat.layers:
        if layer.weights:
            layer.set_weights(originals[layer.name].get_weights())
    return functional(flat)


def _of_size(model: keras.Model, shape: tuple[int, int, int]) -> keras.Model:
    copy = keras.models.clone_model(model, input_tensors=keras.Input(shape, name=model.inputs[0].name))
    copy.set_weights(model.get_weights())
    return copy

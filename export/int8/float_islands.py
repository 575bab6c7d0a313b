"""Blocks that stay in float inside an int8 file: named by the user, or found by measuring what each one costs.

Imports `conversion`, `integer`, `tensors`, `interpreter`, `verification` beside it, and `anatomy`, `errors` above.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import keras

from keras_effnet.architecture.network_parts import parts
from keras_effnet.errors import UserError, one_of
from keras_effnet.export.conversion import FloatGraph
from keras_effnet.export.int8.quantizers import best_calibrated, quantize_int8
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.export.tflite_file.schema import parse
from keras_effnet.export.tflite_file.tensors import layer_of
from keras_effnet.export.verification import sqnr_db

_MOST_PARTS = 24  # measured one by one; in deeper networks whole stages are
_IMAGES = 32  # that a part is measured on


def float_parts(model: keras.Model) -> dict[str, frozenset[str]]:
    """What can stay in float, and the names of its layers: `stem`, `block1a`, ..., stages as `block1`, `top`, ...

    In a network that is not of this package every layer is a part of its own.
    """
    try:
        found = parts(model)
    except UserError:
        layers = (layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer))
        return {layer.name: frozenset([layer.name]) for layer in layers}
    groups = {part.name: frozenset(layer.name for layer in part.layers) for part in found}
    for stage in sorted({part.stage for part in found if part.stage}):
        groups[f"block{stage}"] = frozenset().union(*(groups[part.name] for part in found if part.stage == stage))
    return groups


def check_parts(model: keras.Model, names: Collection[str]) -> None:
    """Raises a `UserError` with the closest match for a name that is no part of the model."""
    for name in names:
        one_of("block", name, float_parts(model))


def _tensors(content: bytes, layers: Collection[str]) -> list[str]:
    """Names of the tensors that the operators of some layers write."""
    graph = parse(content).subgraphs[0]
    outputs = (graph.tensors[int(index)].name.decode() for operator in graph.operators for index in operator.outputs)
    return [name for name in outputs if layer_of(name, layers)]


def with_islands(calibrated: bytes, model: keras.Model, names: Sequence[str], input_type: str) -> bytes:
    """An int8 file in which some parts compute in float.

    Args:
        calibrated: The model's float file with ranges.
        model: Functional Keras model.
        names: Of parts, see `float_parts`.
        input_type: `"float32"` or `"uint8"`.
    """
    groups = float_parts(model)
    layers = frozenset().union(*(groups[name] for name in names)) if names else ()
    return quantize_int8(calibrated, input_type, _tensors(calibrated, layers))


def _candidates(model: keras.Model) -> list[str]:
    """The parts that are measured: blocks, or stages where there are many blocks; together the whole network."""
    names = list(float_parts(model))
    stages = [name for name in names if name[-1].isdigit() and name.startswith("block")]
    blocks = [name for name in names if name not in stages]
    if len(blocks) <= _MOST_PARTS or not stages:
        return blocks
    return [name for name in blocks if not name.startswith("block")] + stages


def by_sensitivity(graph: FloatGraph, input_type: str) -> Iterator[tuple[tuple[str, ...], bytes]]:
    """Files with more and more float: none, then the part that costs most in int8, two, four, eight parts.

    What a part costs is measured: the file is made with that part alone in float, and run.

    Args:
        graph: `FloatGraph` with images.
        input_type: `"float32"` or `"uint8"`.

    Yields:
        Names of the parts in float, and the file.
    """
    images = graph.images[:_IMAGES]
    calibrated = best_calibrated(graph, images)
    answers = TFLiteModel(graph.content).predict(images)

    def fidelity(name: str) -> float:
        file = TFLiteModel(with_islands(calibrated, graph.model, (name,), "float32"))
        return sqnr_db(answers, file.predict(images))

    gains = {name: fidelity(name) for name in _candidates(graph.model)}
    ranked = sorted(gains, key=gains.get, reverse=True)
    count = 0
    while count < len(ranked):
        chosen = tuple(name for name in gains if name in ranked[:count])  # in the network's order
        yield chosen, with_islands(calibrated, graph.model, chosen, input_type)
        count = max(1, 2 * count)

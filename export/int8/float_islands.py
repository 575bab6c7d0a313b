"""Mixed precision: blocks of an int8 file that compute in float, named by the user or chosen by measured sensitivity.

Keras, LiteRT and TensorFlow.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import keras

from keras_effnet.architecture.network_parts import parts
from keras_effnet.errors import UserError, one_of
from keras_effnet.export.conversion.float_graph import FloatGraph
from keras_effnet.export.int8.quantizers import best_calibrated, quantize_int8
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.export.tflite_file.schema import parse
from keras_effnet.export.tflite_file.tensors import layer_of

_MOST_PARTS = 24  # networks with more blocks are measured by stage
_IMAGES = 32  # on which each part is measured


def float_parts(model: keras.Model) -> dict[str, frozenset[str]]:
    """Return the parts that can stay in float, with the names of their layers: `stem`, `block1a`, `block1`, `top`, ...

    `block1` is the whole first stage. In networks that were not built by this package every layer is a part.
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
    """Check names of parts.

    Raises:
        UserError: A name is not a part of the model; the message gives the closest match.
    """
    for name in names:
        one_of("block", name, float_parts(model))


def _tensors(content: bytes, layers: Collection[str]) -> list[str]:
    """Names of the output tensors of all operators of some layers."""
    graph = parse(content).subgraphs[0]
    outputs = (graph.tensors[int(index)].name.decode() for operator in graph.operators for index in operator.outputs)
    return [name for name in outputs if layer_of(name, layers)]


def with_islands(calibrated: bytes, model: keras.Model, names: Sequence[str], input_type: str) -> bytes:
    """Quantize to int8 with some parts in float.

    Args:
        calibrated: The model's float file with ranges.
        model: Functional Keras model.
        names: Names of parts, see `float_parts`.
        input_type: `"float32"` or `"uint8"`.
    """
    groups = float_parts(model)
    layers = frozenset(layer for name in names for layer in groups[name])
    return quantize_int8(calibrated, input_type, _tensors(calibrated, layers))


def _candidates(model: keras.Model) -> list[str]:
    """Parts to measure, which together cover the network: blocks, or stages in networks with many blocks."""
    names = list(float_parts(model))
    stages = [name for name in names if name[-1].isdigit() and name.startswith("block")]
    blocks = [name for name in names if name not in stages]
    if len(blocks) <= _MOST_PARTS or not stages:
        return blocks
    return [name for name in blocks if not name.startswith("block")] + stages


def by_sensitivity(graph: FloatGraph, input_type: str) -> Iterator[tuple[tuple[str, ...], bytes]]:
    """Yield files with a growing number of float parts, most sensitive first: 0, 1, 2, 4, 8, ... parts.

    The sensitivity of a part is the SQNR gained when only that part computes in float.

    Args:
        graph: `FloatGraph` with images.
        input_type: `"float32"` or `"uint8"`.

    Yields:
        Names of the float parts, and the bytes of the file.
    """
    images = graph.images[:_IMAGES]
    calibrated = best_calibrated(graph, images)
    answers = TFLiteModel(graph.content).predict(images)

    def fidelity(name: str) -> float:
        file = TFLiteModel(with_islands(calibrated, graph.model, (name,), "float32"))
        return graph.outputs.sqnr_db(answers, file.predict(images))

    gains = {name: fidelity(name) for name in _candidates(graph.model)}
    ranked = sorted(gains, key=gains.__getitem__, reverse=True)
    count = 0
    while count < len(ranked):
        chosen = tuple(name for name in gains if name in ranked[:count])  # in the network's order
        yield chosen, with_islands(calibrated, graph.model, chosen, input_type)
        count = max(1, 2 * count)

"""Conditions of rules: functions from a graph to the names of its culprits, and factories of such. Pure Python."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from keras_effnet.export.tflite_file.graph import Graph, Operator
from keras_effnet.export.tflite_file.metadata.reading import has_normalization
from keras_effnet.export.tflite_file.metadata.tables import ENTRY, RUNTIME_ENTRY

Culprits = Callable[[Graph], list[str]]

_INTEGERS = ("int8", "uint8", "int4")


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _everything(graph: Graph) -> tuple[Operator, ...]:
    return graph.steps + graph.called


def foreign_operators(graph: Graph) -> list[str]:
    """TensorFlow (Flex) and custom operators: only builtin names are all upper-case."""
    return _unique(one.name for one in _everything(graph) if one.name != one.name.upper())


def outside(supported: frozenset[str]) -> Culprits:
    """Builtin operators not in `supported`; foreign operators have their own rule."""

    def find(graph: Graph) -> list[str]:
        return _unique(
            one.name for one in _everything(graph) if one.name == one.name.upper() and one.name not in supported
        )

    return find


def computing_in(*dtypes: str) -> Culprits:
    """Operators with an output activation of one of the dtypes."""
    return lambda graph: _unique(one.name for one in graph.steps if graph.activations(one.outputs, frozenset(dtypes)))


def hybrid_operators(graph: Graph) -> list[str]:
    """Operators with float activations and integer weights (dynamic-range quantization)."""
    return list(graph.hybrid)


def float_file(graph: Graph) -> list[str]:
    """The precision of the file if no operator computes in integers."""
    return [] if graph.integer_dtypes else [graph.precision]


def _unpack(graph: Graph, *dtypes: str) -> bool:
    """Whether a DEQUANTIZE turns weights of one of the dtypes into float32."""
    return any(
        one.name == "DEQUANTIZE" and graph.tensors[one.inputs[0]].dtype in dtypes
        for one in graph.operators
        if graph.constants.issuperset(one.outputs)
    )


def half_weights(graph: Graph) -> list[str]:
    """float16 weights, all or those of small kernels, as a culprit."""
    return ["float16 weights"] if _unpack(graph, "float16") else []


def unpacked_weights(graph: Graph) -> list[str]:
    """Integer weights that a DEQUANTIZE turns into floats, as a culprit."""
    return ["int8 weights unpacked to float32"] if _unpack(graph, *_INTEGERS) else []


def dynamic_tensors(graph: Graph) -> list[str]:
    """The first tensor without a fixed shape; inputs and outputs are checked first."""
    ends = [graph.tensors[index] for index in graph.inputs + graph.outputs]
    found = [tensor for tensor in (*ends, *graph.tensors) if -1 in tensor.signature]
    return [f"{tensor.name} {list(tensor.signature)}" for tensor in found[:1]]


def dtype_outside(side: Literal["inputs", "outputs"], *dtypes: str) -> Culprits:
    """Inputs or outputs whose dtype is not in `dtypes`."""

    def find(graph: Graph) -> list[str]:
        found = [graph.tensors[index].dtype for index in (graph.inputs if side == "inputs" else graph.outputs)]
        return [dtype for dtype in found if dtype not in dtypes]

    return find


def not_one_rgb_image(graph: Graph) -> list[str]:
    """Input shapes that are not a single RGB image."""
    ports = [graph.tensors[index].signature for index in graph.inputs]
    right = len(ports) == 1 and len(ports[0]) == 4 and ports[0][0] in (1, -1) and ports[0][3] == 3
    return [] if right else [", ".join(str(list(shape)) for shape in ports)]


def several_images(graph: Graph) -> list[str]:
    """Activation shapes with more than one image."""
    activations = (i for one in graph.steps for i in one.outputs if i not in graph.constants)
    shapes = (graph.tensors[index].shape for index in activations)
    return _unique(str(list(shape)) for shape in shapes if len(shape) > 3 and max(shape[:-3]) > 1)[:2]


def unlike_scores(graph: Graph) -> list[str]:
    """Output shapes that are not class scores."""
    shapes = [graph.tensors[index].shape for index in graph.outputs]
    return [] if any(len(shape) in (2, 4) for shape in shapes) else [", ".join(str(list(shape)) for shape in shapes)]


def float_input_without_normalisation(graph: Graph) -> list[str]:
    """float32, where the metadata lacks NormalizationOptions."""
    takes_float = any(graph.tensors[index].dtype == "float32" for index in graph.inputs)
    return [] if not takes_float or has_normalization(graph.metadata.get(ENTRY)) else ["float32"]


def quantizing_input(graph: Graph) -> list[str]:
    """QUANTIZE operators that read the input of the file."""
    return _unique(one.name for one in graph.steps if one.name == "QUANTIZE" and set(one.inputs) & set(graph.inputs))


def integer_file(graph: Graph) -> list[str]:
    """The precision of the file if an operator computes in integers."""
    return [graph.precision] if graph.integer_dtypes else []


def any_file(graph: Graph) -> list[str]:
    """The precision of the file: for remarks that hold for all files."""
    return [graph.precision]


def needing_runtime_above(newest: str) -> Culprits:
    """The oldest runtime that the file states, if it is newer than `newest`."""

    def find(graph: Graph) -> list[str]:
        stated = graph.metadata.get(RUNTIME_ENTRY, b"").rstrip(b"\0").decode(errors="replace")
        parts = stated.split(".")
        newer = all(part.isdigit() for part in parts) and [*map(int, parts)] > [*map(int, newest.split("."))]
        return [stated] if newer else []

    return find

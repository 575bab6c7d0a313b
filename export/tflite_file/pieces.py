"""Files of some of the operators of another file. LiteRT's schema and numpy; never TensorFlow."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from copy import copy
from typing import TYPE_CHECKING

from keras_effnet.export.tflite_file.schema import pack

if TYPE_CHECKING:
    from ai_edge_litert.schema_py_generated import ModelT, OperatorT, SubGraphT, TensorT


def read_by(operators: Collection[OperatorT]) -> set[int]:
    """Indices of the tensors that operators read, constants included, and -1 if an input is omitted."""
    return {int(index) for operator in operators for index in operator.inputs}


def written_by(operators: Collection[OperatorT]) -> set[int]:
    """Indices of the tensors that operators write."""
    return {int(index) for operator in operators for index in operator.outputs}


def split_constant(graph: SubGraphT) -> tuple[list[OperatorT], list[OperatorT]]:
    """Split operators into those that compute from constants alone, such as the DEQUANTIZE of a weight, and others."""
    varying = set(map(int, graph.inputs))
    constant: list[OperatorT] = []
    others: list[OperatorT] = []
    for operator in graph.operators:
        if read_by([operator]) & varying:
            others.append(operator)
            varying |= written_by([operator])
        else:
            constant.append(operator)
    return constant, others


def needed_for(wanted: Collection[int], operators: Sequence[OperatorT]) -> list[OperatorT]:
    """Those of some operators, in their order, that compute the wanted tensors, and what these are computed from."""
    tensors, found = set(wanted), []
    for operator in reversed(operators):
        if written_by([operator]) & tensors:
            tensors |= read_by([operator])
            found.append(operator)
    return found[::-1]


def piece(model: ModelT, operators: Sequence[OperatorT], inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
    """Build a file of some of the operators and their tensors.

    Args:
        model: The whole file, which is not changed.
        operators: Some of its operators, in their order.
        inputs, outputs: Indices of the tensors that become inputs and outputs of the new file.
    """
    from ai_edge_litert import schema_py_generated as schema

    used = sorted(index for index in read_by(operators) | set(outputs) | written_by(operators) if index >= 0)
    place = {index: number for number, index in enumerate(used)} | {-1: -1}  # -1: an omitted bias
    made, graph = copy(model), copy(model.subgraphs[0])
    made.buffers, graph.operators = [schema.BufferT()], []

    def moved(tensor: TensorT) -> TensorT:
        tensor = copy(tensor)
        made.buffers.append(model.buffers[tensor.buffer])
        tensor.buffer = len(made.buffers) - 1
        return tensor

    graph.tensors = [moved(model.subgraphs[0].tensors[index]) for index in used]
    for operator in map(copy, operators):
        operator.inputs = [place[int(index)] for index in operator.inputs]
        operator.outputs = [place[int(index)] for index in operator.outputs]
        graph.operators.append(operator)
    graph.inputs, graph.outputs = [place[index] for index in inputs], [place[index] for index in outputs]
    called = [copy(each) for each in model.subgraphs[1:]]  # bodies and conditions of loops, by their places
    for each in called:
        each.tensors = list(map(moved, each.tensors))
    made.subgraphs, made.signatureDefs, made.metadata = [graph, *called], None, None
    return pack(made)

"""Activation memory of a file: lifetimes of its tensors and the arena that holds them.

The plan reproduces the one of LiteRT's interpreter without a delegate, tensor for tensor; a test compares the two.
It excludes weights, scratch buffers inside kernels (large in dynamic-range kernels), and the memory of XNNPACK and GPU
delegates, which plan their own. `peak_memory` measures all of these on this machine. Pure Python.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from keras_effnet.export.tflite_file.graph import Graph

_ALIGNMENT = 64
_SCALAR = 4
# LiteRT may compute these in place, over an input of the output's size that has no other reader: `inplace_operator`
# in its kernels.
_OVERWRITING = frozenset(("ADD", "SUB", "MUL", "DIV"))
_RENAMING = frozenset(("RESHAPE", "EXPAND_DIMS", "SQUEEZE", "BITCAST"))


class ArenaPlan(NamedTuple):
    """Bytes of activation memory: the peak of live tensors, and the arena that holds them."""

    live_bytes: int
    arena_bytes: int


class _Block(NamedTuple):
    size: int
    first: int
    last: int


def _owners(graph: Graph) -> dict[int, int]:
    """Activation -> the activation whose memory it uses; itself, unless it is computed in place."""
    readers = Counter(index for step in graph.operators for index in step.inputs)
    readers.update(graph.inputs + graph.outputs)
    owners = {index: index for index in graph.inputs}
    for step in graph.steps:
        for index in step.outputs:
            owners[index] = index
        if step.name not in _OVERWRITING | _RENAMING or step.outputs[0] in graph.outputs:
            continue
        output = step.outputs[0]
        for index in step.inputs[:1] if step.name in _RENAMING else step.inputs[:2]:
            if index in graph.constants or index in graph.inputs or index not in owners:  # a variable has no owner
                continue
            owner = owners[index]
            size = graph.tensors[index].bytes
            alone = readers[index] == 1 and readers[owner] == 1
            if step.name in _RENAMING or (alone and size == graph.tensors[output].bytes and size > _SCALAR):
                owners[output] = owner
                break
    return owners


def _blocks(graph: Graph) -> list[_Block]:
    """Memory blocks: their size and the steps between which they are live."""
    owners = _owners(graph)
    end = len(graph.steps)
    first = dict.fromkeys(graph.inputs, 0)
    last: dict[int, int] = {}
    for number, step in enumerate(graph.steps):
        for index in step.outputs:
            first.setdefault(owners[index], number)
            last.setdefault(owners[index], number)
        for index in step.inputs:
            if index in owners:
                last[owners[index]] = number
    for index in graph.inputs + graph.outputs:  # inputs and outputs are never overwritten
        if index in owners:
            last[owners[index]] = end
    return [_Block(graph.tensors[index].bytes, begin, last[index]) for index, begin in first.items()]


def _arena(blocks: list[_Block], end: int) -> int:
    """Size of the arena, greedy by size: largest block first, each in the smallest gap among blocks live with it."""

    def priority(block: _Block) -> tuple[bool, int, int]:
        throughout = block.first == 0 and block.last == end
        return not throughout, 0 if throughout else -block.size, block.first

    placed: list[tuple[int, _Block]] = []
    for block in sorted(blocks, key=priority):
        best, smallest, free = None, None, 0
        for start, other in sorted(placed):
            if other.last < block.first or other.first > block.last:
                continue
            gap = start - free
            if gap >= block.size and (smallest is None or gap < smallest):
                best, smallest = free, gap
            free = max(free, -(-(start + other.size) // _ALIGNMENT) * _ALIGNMENT)
        placed.append((free if best is None else best, block))
    return max((start + block.size for start, block in placed), default=0)


def plan(graph: Graph) -> ArenaPlan:
    """Plan the memory of a graph's activations."""
    blocks = _blocks(graph)
    moments = range(len(graph.steps) or 1)
    live = max(sum(block.size for block in blocks if block.first <= now <= block.last) for now in moments)
    return ArenaPlan(live, _arena(blocks, len(graph.steps)))

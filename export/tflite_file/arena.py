"""How much working memory a file's activations need, planned from when each is written and last read.

The plan is the one that LiteRT's interpreter makes without a delegate, tensor for tensor; a test compares the two.
Imports `graph` beside it.

What it leaves out: weights; scratch space inside kernels (dynamic-range ones have much of it); what XNNPACK and GPUs,
which plan for themselves, take instead. `memory.peak_memory` measures all of that on this machine.
"""

from __future__ import annotations

from typing import NamedTuple

from keras_effnet.export.tflite_file.graph import Graph

_ALIGNMENT = 64
_SCALAR = 4
# LiteRT lets these write over an input of the output's size that nothing else reads: `inplace_operator` in its kernels.
_OVERWRITING = frozenset(("ADD", "SUB", "MUL", "DIV"))
_RENAMING = frozenset(("RESHAPE", "EXPAND_DIMS", "SQUEEZE", "BITCAST"))


class Plan(NamedTuple):
    """Bytes for activations: what is alive at the worst moment, and the arena in which that finds room."""

    live_bytes: int
    arena_bytes: int


class _Block(NamedTuple):
    size: int
    first: int
    last: int


def _owners(graph: Graph) -> dict[int, int]:
    """Activation -> the one whose memory it takes; itself, mostly."""
    readers = [index for step in graph.operators for index in step.inputs] + list(graph.inputs + graph.outputs)
    owners = {index: index for index in graph.inputs}
    for step in graph.steps:
        for index in step.outputs:
            owners[index] = index
        if step.name not in _OVERWRITING | _RENAMING or step.outputs[0] in graph.outputs:
            continue
        output = step.outputs[0]
        for index in step.inputs[:1] if step.name in _RENAMING else step.inputs[:2]:
            if index in graph.constants or index in graph.inputs:
                continue
            owner = owners[index]
            size = graph.tensors[index].bytes
            alone = readers.count(index) == 1 and readers.count(owner) == 1
            if step.name in _RENAMING or (alone and size == graph.tensors[output].bytes and size > _SCALAR):
                owners[output] = owner
                break
    return owners


def _blocks(graph: Graph) -> list[_Block]:
    """The memory blocks: how large, and from which step to which."""
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
    for index in graph.inputs + graph.outputs:  # never overwritten
        if index in owners:
            last[owners[index]] = end
    return [_Block(graph.tensors[index].bytes, begin, last[index]) for index, begin in first.items()]


def _arena(blocks: list[_Block], end: int) -> int:
    """Greedy by size: the largest first, each into the smallest gap among those alive at the same time."""

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


def plan(graph: Graph) -> Plan:
    """Plans the memory of a graph's activations."""
    blocks = _blocks(graph)
    moments = range(len(graph.steps) or 1)
    live = max(sum(block.size for block in blocks if block.first <= now <= block.last) for now in moments)
    return Plan(live, _arena(blocks, len(graph.steps)))

"""Operations of a lowered program, read from its text: StableHLO as JAX writes it, HLO as TensorFlow does.

Pure Python. A function that is called twice counts twice, at the layers that call it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod

BITS = {"f64": 64, "f32": 32, "f16": 16, "bf16": 16}


@dataclass(frozen=True)
class Tensor:
    """Shape and element type, such as `(8, 32, 32, 16)` and `"bf16"`."""

    shape: tuple[int, ...]
    element: str

    @property
    def bytes(self) -> int:
        """Bytes of a floating-point tensor."""
        return prod(self.shape) * BITS[self.element] // 8


@dataclass(frozen=True)
class Operation:
    """One operation of a program.

    Args:
        name: String without dialect, such as `"convolution"` or `"dot_general"`.
        operands: Tuple of `Tensor`.
        results: Tuple of `Tensor`.
        scope: String, where it came from: names of layers and transformations, separated by slashes.
        text: String, the line.
    """

    name: str
    operands: tuple[Tensor, ...]
    results: tuple[Tensor, ...]
    scope: str
    text: str

    @cached_property
    def macs(self) -> int:
        """Multiply-adds of a convolution or matrix product, zeros between the inputs of a dilated one left out."""
        if self.name != "convolution":
            left, (result, *_) = self.operands[0], self.results
            return prod(result.shape) * prod(left.shape[int(axis)] for axis in _numbers(_CONTRACTED, self.text))
        kernel = self.operands[1]
        found = _KERNEL_AXES.search(self.text)
        axes = re.findall(r"\w", found[1]) if found else ()
        terms = prod(size for size, axis in zip(kernel.shape, axes, strict=True) if axis != "o")
        return prod(self.results[0].shape) * terms // prod(int(n) for n in _numbers(_DILATION, self.text))

    @property
    def bytes(self) -> int:
        """Bytes of operands and results."""
        return sum(tensor.bytes for tensor in (*self.operands, *self.results))


_TENSOR = re.compile(r"tensor<(?:([\dx]*)x)?([a-z]\w*)>")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_KERNEL_AXES = re.compile(r"(?:\]x\[|_)([\dio, ]+)\]?->")
_CONTRACTED = re.compile(r"(?:contracting_dims = \[|lhs_contracting_dims=\{)([\d, ]*)")
_DILATION = re.compile(r"(?:lhs_dilate = \[([\d, ]*)|lhs_dilate=([\dx]*))")


def _numbers(pattern: re.Pattern[str], text: str) -> list[str]:
    found = pattern.search(text)
    return re.findall(r"\d+", next(filter(None, found.groups()), "")) if found else []


# ------------------------------------------------------------------ StableHLO

_FUNCTION = re.compile(r"^ *func\.func \w+ @(\w+)\(")
_LINE = re.compile(r"^\s*(?:%\S+ = )?\"?(?:(?:stablehlo|chlo|func)\.)?(\w+)\"?[ (](.*?)(?: loc\((\S+)\))?$")
_LOCATION = re.compile(r"^(#loc\d*) = loc\(\"([^\"]*)\"", re.M)
_CALLED = re.compile(r"@(\w+)")


def _tensors(text: str) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(tuple(map(int, shape.split("x"))) if shape else (), element) for shape, element in _TENSOR.findall(text)
    )


def stablehlo(text: str) -> list[Operation]:
    """Operations in the order of the text, with functions in the place of their calls."""
    scopes = dict(_LOCATION.findall(text))
    bodies: dict[str, list[Operation]] = {}
    body: list[Operation] = []
    for line in text.splitlines():
        if function := _FUNCTION.match(line):
            body = bodies.setdefault(function[1], [])
        elif (found := _LINE.match(line)) and ("stablehlo." in line or " call @" in line or "chlo." in line):
            operands, arrow, results = found[2].rpartition(" : ")[2].partition(" -> ")
            given = _tensors(operands)
            made = _tensors(results) if arrow else given[:1]
            body.append(Operation(found[1], given, made, scopes.get(found[3] or "", ""), line))

    def flat(name: str, scope: str) -> Iterator[Operation]:
        for each in bodies[name]:
            within = scope or each.scope
            if each.name == "call":
                called = _CALLED.search(each.text)
                assert called is not None
                yield from flat(called[1], within)
            else:
                yield Operation(each.name, each.operands, each.results, within, each.text)

    return list(flat("main", ""))


# ------------------------------------------------------------------ HLO

_ASSIGNED = re.compile(r"^\s*(ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)")
_NAME = re.compile(r"%([\w.-]+)")
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_SPELLED = {"dot": "dot_general", "custom-call": "custom_call"}


def _arrays(text: str) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(tuple(map(int, shape.split(","))) if shape else (), element) for element, shape in _ARRAY.findall(text)
    )


def hlo(text: str) -> list[Operation]:
    """Operations of all computations, without those whose results nobody reads: XLA removes them first of all."""
    operations: list[Operation] = []
    for computation in re.split(r"^}", text, flags=re.M):
        needed: set[str] = set()
        live = []
        for line in reversed(computation.splitlines()):
            found = _ASSIGNED.match(line)
            if found is None or not (found[1] or found[2] in needed):
                continue
            results, name, rest = found.groups()[2:]
            needed.update(_NAME.findall(rest))
            scope = _OP_NAME.search(rest)
            given = _arrays(rest.partition(")")[0])
            live.append(Operation(_SPELLED.get(name, name), given, _arrays(results), scope[1] if scope else "", line))
        operations += reversed(live)
    return operations

"""Bounds-checked reading of flatbuffers whose tables are described by a text. Pure Python and numpy.

The `flatbuffers` package reads without checks: a damaged offset raises some `struct.error`, or returns other bytes of
the file. Here every offset, length and table is checked before it is followed.

Source: https://flatbuffers.dev/internals/
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from mmap import mmap
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

Content = bytes | mmap

_MAX_TABLES = 250_000  # shared tables may unfold without end; the largest language models have some ten thousand
_SCALARS = {
    kind: (struct.Struct(f"<{code}"), np.dtype(code).newbyteorder("<"))
    for kind, code in zip(
        ("u8", "i8", "bool", "u16", "i16", "u32", "i32", "u64", "i64", "f32"), "BbBHhIiQqf", strict=True
    )
}
_SOFFSET, _UOFFSET = struct.Struct("<i"), struct.Struct("<I")


class MalformedError(ValueError):
    """A flatbuffer violates the format: `"subgraphs[0].tensors[12].name ends outside of the file"`."""

    def __init__(self, fault: str, place: str = ""):
        super().__init__(f"{place.lstrip('.') or 'the first table'} {fault}")
        self.fault, self.place = fault, place

    def inside(self, place: str) -> MalformedError:
        """The same fault as seen from an enclosing table."""
        return MalformedError(self.fault, place + self.place)


class Field(NamedTuple):
    """A field of a table: its name, its type, and whether it is a vector of that type."""

    name: str
    kind: str
    vector: bool

    @property
    def default(self) -> Any:
        """Value of an absent field."""
        if self.vector:
            return ()
        return 0 if self.kind in _SCALARS else None


Schema = Mapping[str, tuple[Field | None, ...]]


def schema(text: str) -> Schema:
    """Parse a description of tables: `"Tensor: shape:[i32] type:i8 name:string quantization:Quantization - -"`.

    The fields are in the order of their slots. Types are scalars (`u8` to `f32`), `string`, tables, and `union`, a
    table whose type is in the slot before; brackets make a vector. `-` is a slot that is not read.
    """
    tables: dict[str, list[Field | None]] = {}
    for word in text.split():
        name, colon, kind = word.partition(":")
        if word.endswith(":"):
            fields = tables.setdefault(name, [])
        else:
            fields.append(Field(name, kind.strip("[]"), kind.startswith("[")) if colon else None)
    return {name: tuple(fields) for name, fields in tables.items()}


class Reader:
    """Reads the tables of a flatbuffer as namespaces, without copying vectors of numbers.

    Absent numbers are 0, which must be their default, absent vectors are empty, other absent fields are None. Strings
    are bytes.

    Args:
        content: Bytes or a memory map.
        schema: `Schema`. Tables that it lacks are checked, but none of their fields are read.
        union: Function `(table, field, type)` to the name of a union's table.
    """

    def __init__(self, content: Content, schema: Schema, union: Callable[[str, str, int], str]):
        self._view = memoryview(content)
        self._schema, self._union = schema, union
        self._vtables: dict[int, tuple[int, tuple[int, ...]]] = {}
        self._count = 0

    def root(self, kind: str) -> SimpleNamespace:
        """Read the first table, and with it the whole file.

        Raises:
            MalformedError: The file violates the format.
        """
        self._within(0, _UOFFSET.size)
        return self._table(self._follow(0), kind)

    def _within(self, start: int, size: int, fault: str = "lies outside of the file") -> None:
        if start < 0 or start + size > len(self._view):
            raise MalformedError(fault)

    def _follow(self, at: int) -> int:
        target = at + _UOFFSET.unpack_from(self._view, at)[0]
        self._within(target, _UOFFSET.size)
        return target

    def _slots(self, at: int) -> tuple[int, tuple[int, ...]]:
        """Size of the table at a position, and the offsets of its fields."""
        start = at - _SOFFSET.unpack_from(self._view, at)[0]
        if start not in self._vtables:
            self._within(start, 4, "has its list of fields outside of the file")
            size, table_size = struct.unpack_from("<HH", self._view, start)
            self._within(start, size, "has its list of fields outside of the file")
            if size < 4 or size % 2 or table_size < 4:
                raise MalformedError("has a damaged list of fields")
            offsets = struct.unpack_from(f"<{size // 2 - 2}H", self._view, start + 4)
            if offsets and max(offsets) >= table_size:
                raise MalformedError("has a field outside of itself")
            self._vtables[start] = table_size, offsets
        return self._vtables[start]

    def _table(self, at: int, kind: str) -> SimpleNamespace:
        self._count += 1
        if self._count > _MAX_TABLES:
            raise MalformedError(f"is one of more than {_MAX_TABLES:,} tables")
        size, offsets = self._slots(at)
        self._within(at, size)
        values: dict[str, Any] = {}
        previous = 0  # the type of a union
        for slot, field in enumerate(self._schema.get(kind, ())):
            if field is None:
                continue
            offset = offsets[slot] if slot < len(offsets) else 0
            try:
                if field.kind == "union":
                    field = field._replace(kind=self._union(kind, field.name, previous))
                value = self._value(field, at + offset, size - offset) if offset else field.default
            except MalformedError as error:
                raise error.inside(f".{field.name}") from None
            values[field.name] = previous = value
        return SimpleNamespace(**values)

    def _value(self, field: Field, at: int, room: int) -> Any:
        scalar = not field.vector and _SCALARS.get(field.kind)
        if room < (scalar[0].size if scalar else _UOFFSET.size):
            raise MalformedError("ends outside of its table")
        if scalar:
            return scalar[0].unpack_from(self._view, at)[0]
        target = self._follow(at)
        if field.vector:
            return self._vector(target, field.kind)
        return self._string(target) if field.kind == "string" else self._table(target, field.kind)

    def _string(self, at: int) -> bytes:
        (length,) = _UOFFSET.unpack_from(self._view, at)
        start = at + _UOFFSET.size
        self._within(start, length + 1, "ends outside of the file")
        if self._view[start + length]:
            raise MalformedError("does not end with a zero")
        return bytes(self._view[start : start + length])

    def _vector(self, at: int, kind: str) -> Any:
        (count,) = _UOFFSET.unpack_from(self._view, at)
        start = at + _UOFFSET.size
        dtype = _SCALARS[kind][1] if kind in _SCALARS else np.dtype("<u4")
        self._within(start, count * dtype.itemsize, "ends outside of the file")
        if kind in _SCALARS:
            return np.frombuffer(self._view, dtype, count, start)
        if count > _MAX_TABLES:
            raise MalformedError(f"has more than {_MAX_TABLES:,} elements")
        read = self._string if kind == "string" else lambda target: self._table(target, kind)
        elements = []
        for number in range(count):
            try:
                elements.append(read(self._follow(start + number * dtype.itemsize)))
            except MalformedError as error:
                raise error.inside(f"[{number}]") from None
        return elements

"""Functions that are called with the arguments of a class, and documents that must be complete."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field

import pytest

from keras_effnet.errors import UserError
from keras_effnet.system.typed_values import build, called_with


@dataclass(frozen=True)
class Sides:
    height: int
    width: int = 2
    depth: int = field(default=1, kw_only=True)


@called_with(Sides)
def volume(sides: Sides) -> int:
    """Volume of a box."""
    return sides.height * sides.width * sides.depth


def test_a_function_is_called_with_the_arguments_of_a_class():
    assert (volume(3), volume(3, depth=4), volume(height=3, width=1)) == (6, 24, 3)
    assert str(inspect.signature(volume)) == "(height: 'int', width: 'int' = 2, *, depth: 'int' = 1) -> 'int'"
    assert volume.__doc__ == "Volume of a box."
    with pytest.raises(TypeError, match="unexpected keyword argument 'size'"):
        volume(size=3)


def test_a_complete_document_has_every_field():
    values = {"height": 1, "width": 2}
    assert build(Sides, values) == Sides(1)
    with pytest.raises(UserError, match="depth is missing"):
        build(Sides, values, complete=True)

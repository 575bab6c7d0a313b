"""Types of the fields of a spec, which may come from a YAML file. Pure Python."""

from __future__ import annotations

import math
from dataclasses import fields
from numbers import Integral, Real
from typing import Any

from keras_effnet.errors import UserError


def _is_number(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)  # type: ignore[arg-type]


_CHECKS = {
    "int": ("a whole number", lambda value: _is_number(value, Integral)),
    "float": ("a number", lambda value: _is_number(value, Real)),
    "bool": ("true or false", lambda value: isinstance(value, bool)),
    "str": ("text", lambda value: isinstance(value, str)),
    "float | tuple[float, ...]": (
        "a number or a list of numbers",
        lambda value: all(_is_number(each, Real) for each in (value if isinstance(value, tuple) else (value,))),
    ),
}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    if type(value) in (bool, int, float) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def check_types(spec: Any) -> None:
    """Compare the values in the fields of a dataclass with their annotations; numbers of NumPy become plain ones.

    Raises:
        UserError: A value has another type, or is not finite; the message names the field.
    """
    for field in fields(spec):
        wanted, fits = _CHECKS.get(str(field.type), ("", lambda value: True))
        value = getattr(spec, field.name)
        if not fits(value):
            raise UserError(f"{field.name} must be {wanted}, got {value!r}.")
        object.__setattr__(spec, field.name, _plain(value))  # can be written to YAML and JSON

"""Declared options: the meaning, bounds and choices of a dataclass field stand beside its default, and nowhere else.

Validation, command-line options and documentation are derived from the declaration. Pure Python.
"""

from __future__ import annotations

import inspect
import math
import textwrap
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from typing import Any, Literal, NoReturn, TypeVar

from keras_effnet.errors import UserError, unknown
from keras_effnet.system.typed_values import shown

T = TypeVar("T")
C = TypeVar("C", bound=type)
NONE = "none"  # stands for None in text that may be left out
_KEY = "option"  # of a field's metadata
_KINDS = {str: "a string", bool: "true or false", int: "an integer", float: "a number"}
_DOCSTRING_WIDTH = 116
_LARGEST_INT = 2**31 - 1  # what TensorFlow takes for counts
_SMALLEST_FLOAT, _LARGEST_FLOAT = 1e-37, 1e38  # in magnitude, of what float32 represents without loss


@dataclass(frozen=True)
class Interval:
    """Range of valid numbers; by default every finite one.

    Args:
        low: Float, lower bound.
        high: Float, upper bound.
        open_low: Bool, whether `low` itself is excluded.
        open_high: Bool, whether `high` itself is excluded.
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = True
    open_high: bool = True

    def __contains__(self, number: float) -> bool:
        return (self.low < number if self.open_low else self.low <= number) and (
            number < self.high if self.open_high else number <= self.high
        )

    def __str__(self) -> str:
        """In words: `at least 0 and below 1`."""
        parts = []
        if math.isfinite(self.low):
            parts.append(f"{'above' if self.open_low else 'at least'} {self.low:.15g}")
        if math.isfinite(self.high):
            parts.append(f"{'below' if self.open_high else 'at most'} {self.high:.15g}")
        return " and ".join(parts)

    @property
    def condition(self) -> str:
        """As a condition on x, the way click shows its own ranges: `0<=x<1`."""
        lower, upper = "<" if self.open_low else "<=", "<" if self.open_high else "<="
        if not math.isfinite(self.high):
            return f"x{lower.replace('<', '>')}{self.low:.15g}" if math.isfinite(self.low) else ""
        return (f"{self.low:.15g}{lower}" if math.isfinite(self.low) else "") + f"x{upper}{self.high:.15g}"

    @property
    def notation(self) -> str:
        """In mathematical notation: `[0, 1)`."""
        start, end = "(" if self.open_low else "[", ")" if self.open_high else "]"
        return f"{start}{self.low:.15g}, {self.high:.15g}{end}"


@dataclass(frozen=True)
class _Declaration:
    help: str
    interval: Interval
    unsupported: Mapping[str, str]


def option(
    default: T,
    help: str,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    unsupported: Mapping[str, str] | None = None,
) -> T:
    """Declare a dataclass field with its meaning and valid values.

    The type comes from the field's annotation: `str`, `bool`, `int`, `float` or a `Literal` of strings, which are the
    choices; each may be `| None`.

    Args:
        default: The field's default value.
        help: String, what the option means, for `--help` and the docstring of the class.
        at_least: Float or None, smallest valid number.
        above: Float or None, exclusive lower bound.
        at_most: Float or None, largest valid number.
        below: Float or None, exclusive upper bound.
        unsupported: Mapping from values that a user may expect to the reason why they are not offered, or None.

    Returns:
        A `dataclasses.field`, typed as the default so that type checkers accept it.

    Example:

    >>> @dataclass(frozen=True)
    ... class Settings:
    ...     momentum: float = option(0.9, "Momentum of the optimizer.", at_least=0, below=1)
    """
    low = above if above is not None else at_least
    high = below if below is not None else at_most
    interval = Interval(
        low=-math.inf if low is None else low,
        high=math.inf if high is None else high,
        open_low=at_least is None,
        open_high=at_most is None,
    )
    return field(default=default, metadata={_KEY: _Declaration(help, interval, unsupported or {})})


@dataclass(frozen=True)
class Option:
    """A declared option of a dataclass.

    Args:
        name: String, the field.
        kind: `str`, `bool`, `int` or `float`.
        choices: Tuple of strings, the valid values; empty where every value of the kind is valid.
        optional: Bool, whether None is valid.
        default: The field's default value.
        help: String, what it means.
        interval: `Interval` of valid numbers.
        unsupported: Mapping from values that a user may expect to the reason why they are not offered.
    """

    name: str
    kind: type
    choices: tuple[str, ...]
    optional: bool
    default: Any
    help: str
    interval: Interval
    unsupported: Mapping[str, str]

    def check(self, value: Any) -> Any:
        """Return a value converted to the option's type. A string such as `1e-3`, text in YAML 1.1, becomes a number.

        Text that may be left out is None for `"none"`, so that a command line can undo what a recipe sets.

        Raises:
            UserError: The value has the wrong type, is out of range, or is not among the choices.
        """
        if self.optional and (value is None or (self.kind is str and value == NONE)):
            return None
        if self.kind is bool:
            return value if isinstance(value, bool) else self._refuse_type(value)
        if self.kind is str:
            if not isinstance(value, str):
                self._refuse_type(value)
            return value if not self.choices or value in self.choices else self._refuse_choice(value)
        if isinstance(value, int | float) and type(value) is self.kind and value in self.interval:
            self._check_size(value)
            return value
        return self._converted_number(value)

    def _check_size(self, number: float) -> None:
        if self.kind is int and math.isinf(self.interval.high) and number > _LARGEST_INT:
            raise UserError(f"{self.name} must be at most {_LARGEST_INT:,}, got {shown(number)}.")
        if self.kind is float and number and not _SMALLEST_FLOAT <= abs(number) <= _LARGEST_FLOAT:
            bounds = f"{_SMALLEST_FLOAT:g} to {_LARGEST_FLOAT:g} in magnitude"
            raise UserError(f"{self.name} must be a number that float32 holds, {bounds}, got {shown(number)}.")

    def _refuse_choice(self, value: str) -> NoReturn:
        reason = self.unsupported.get(value.lower().replace("-", "").replace("_", ""))
        raise UserError(reason or unknown(self.name, value, self.choices))

    def _converted_number(self, value: Any) -> float:
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            self._refuse_type(value)
        if not math.isfinite(number) or (self.kind is int and not number.is_integer()):
            self._refuse_type(value)
        if number not in self.interval:
            raise UserError(f"{self.name} must be {self.interval}, got {shown(value)}.")
        self._check_size(number)
        return self.kind(number)

    def _refuse_type(self, value: Any) -> NoReturn:
        raise UserError(f"{self.name} must be {_KINDS[self.kind]}, got {shown(value)}.") from None

    @property
    def type_description(self) -> str:
        """Type and valid values as a docstring states them: `Float in [0, 1) or None`."""
        kind = "String" if self.kind is str else self.kind.__name__.capitalize()
        if self.choices:
            kind = "One of " + ", ".join(f'`"{choice}"`' for choice in self.choices)
        elif self.interval != Interval():
            bounded = math.isfinite(self.interval.high)
            kind += f" in {self.interval.notation}" if bounded else f", {self.interval}"
        return f"{kind}, or None" if self.optional else kind


@cache
def declared_options(cls: type) -> Mapping[str, Option]:
    """The options that a dataclass declares by `option`, by field name, in the order of the fields."""
    hints = typing.get_type_hints(cls)
    found = {}
    for each in fields(cls):
        declaration = each.metadata.get(_KEY)
        if declaration is None:
            continue
        kind, choices, optional = _resolve_type(hints[each.name])
        default = None if each.default is MISSING else each.default
        found[each.name] = Option(each.name, kind, choices, optional, default, **vars(declaration))
    return types.MappingProxyType(found)


def _resolve_type(hint: Any) -> tuple[type, tuple[str, ...], bool]:
    """Plain type, choices, and whether None is valid, of `float | None` or of a `Literal`."""
    optional = type(None) in typing.get_args(hint)
    if optional:
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is Literal:
        return str, typing.get_args(hint), optional
    if hint not in _KINDS:
        raise TypeError(f"An option's type is one of {', '.join(kind.__name__ for kind in _KINDS)}, got {hint}.")
    return hint, (), optional


def documented(cls: C) -> C:
    """Class decorator that appends an Args section, one entry for each declared option, to the docstring."""
    entries = (
        textwrap.fill(
            f"{each.name}: {each.type_description}. {each.help}",
            _DOCSTRING_WIDTH,
            initial_indent="    ",
            subsequent_indent="        ",
        )
        for each in declared_options(cls).values()
    )
    cls.__doc__ = "\n".join([f"{inspect.cleandoc(cls.__doc__ or cls.__name__)}\n", "Args:", *entries])
    return cls

"""Check values of JSON and YAML against the type hints of dataclasses and TypedDicts. Pure Python."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import reprlib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NoReturn, ParamSpec, TypeVar, Union

from keras_effnet.errors import UserError, one_of

T = TypeVar("T")
S = TypeVar("S")
P = ParamSpec("P")
_LARGEST = 2**63  # of integers: larger ones do not fit into arrays
_WORDS = {str: "a string", bool: "true or false", int: "an integer", float: "a finite number", type(None): "null"}


def called_with(cls: Callable[P, S]) -> Callable[[Callable[[S], T]], Callable[P, T]]:
    """Decorator: a function of one object is called with the arguments of its class instead, and has their signature.

    Several functions share options by base classes of their arguments.

    Example:

    >>> @called_with(ImageSpec)
    ... def pixels(spec): return spec.size**2
    >>> pixels(size=32)
    1024
    """

    def decorate(function: Callable[[S], T]) -> Callable[P, T]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            return function(cls(*args, **kwargs))

        returned = inspect.signature(function).return_annotation
        call.__signature__ = inspect.signature(cls).replace(return_annotation=returned)  # type: ignore[attr-defined]
        return call

    return decorate


def build(cls: type[T], values: Any, name: str = "", *, complete: bool = False) -> T:
    """Build a dataclass from a mapping of its fields, each checked by its type hint.

    Args:
        cls: Dataclass. Its own checks run as well.
        values: Value from a document.
        name: String, place of the value in the document, for messages.
        complete: Bool, whether fields with a default must be there too.

    Returns:
        The object; lists become tuples where the field is a tuple, integers floats where it is a float.

    Raises:
        UserError: The value is not a mapping, a field is unknown, missing or of another type; one line that names it.

    Example:

    >>> build(ImageSpec, {"size": "large"})
    UserError: size must be an integer, got 'large'
    """
    given = _mapping(values, name)
    fields = {each.name: each for each in dataclasses.fields(cls) if each.init}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    for key in given:
        one_of("field", key, fields)
    needed = [key for key, each in fields.items() if (complete or _required(each)) and key not in given]
    _refuse_missing(needed, name)
    return cls(**{key: conform(value, hints[key], _below(name, key)) for key, value in given.items()})


def conform(value: Any, hint: Any, name: str) -> Any:
    """Return a value converted to a type hint.

    Args:
        value: Value from a document.
        hint: `str`, `bool`, `int`, `float`, None, `Literal`, a union, `list`, `tuple[X, ...]`, `Sequence`, `dict`,
            `Mapping`, a dataclass, a TypedDict (further keys are kept), or `Any`.
        name: String, for messages.

    Raises:
        UserError: The value does not have the type.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _one_of_several(value, arguments, name)
    if origin is Literal:
        return value if value in arguments else _refuse(value, hint, name)
    if typing.is_typeddict(hint):
        return _typed_dict(value, hint, name)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, name)  # type: ignore[arg-type]
    kind = origin or hint
    if kind in (dict, Mapping):
        given = _mapping(value, name)
        for key in given if typing.get_origin(arguments[0]) is Literal else ():
            conform(key, arguments[0], f"{name} field")
        return {key: conform(each, arguments[1], _below(name, key)) for key, each in given.items()}
    if kind in (list, tuple, Sequence):
        return _sequence(value, kind, arguments, hint, name)
    return _scalar(value, hint, name)


def _scalar(value: Any, hint: Any, name: str) -> Any:
    if hint is float:
        return _float(value, name)
    right = isinstance(value, hint or type(None)) and (hint is bool or not isinstance(value, bool))
    if not right or (hint is int and abs(value) >= _LARGEST):
        _refuse(value, hint, name)
    return value


def _float(value: Any, name: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # also `1e-3`, text in YAML 1.1
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    return number if math.isfinite(number) else _refuse(value, float, name)


def _one_of_several(value: Any, hints: Sequence[Any], name: str) -> Any:
    for hint in hints:
        try:
            return conform(value, hint, name)
        except UserError:
            continue
    return _refuse(value, Union[tuple(hints)], name)  # noqa: UP007  # of a tuple


def _sequence(value: Any, kind: type, arguments: Sequence[Any], hint: Any, name: str) -> Any:
    if not isinstance(value, (list, tuple)):
        _refuse(value, hint, name)
    fixed = kind is tuple and arguments[-1:] != (Ellipsis,)
    if fixed and len(value) != len(arguments):
        _refuse(value, hint, name)
    hints = arguments if fixed else [arguments[0]] * len(value)
    items = [conform(each, own, f"{name}[{place}]") for place, (each, own) in enumerate(zip(value, hints, strict=True))]
    return tuple(items) if kind is tuple else items


def _typed_dict(value: Any, hint: Any, name: str) -> dict[str, Any]:
    given, hints = _mapping(value, name), typing.get_type_hints(hint)
    _refuse_missing([key for key in hint.__required_keys__ if key not in given], name)
    return {key: conform(each, hints.get(key, Any), _below(name, key)) for key, each in given.items()}


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        what = f"{name} must be" if name else "expected"
        raise UserError(f"{what} fields with values, such as `size: 32`, got {shown(value)}")
    return dict(value)


def _required(each: dataclasses.Field) -> bool:
    return each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING


def _refuse_missing(names: Sequence[str], place: str) -> None:
    if names:
        verb = "is" if len(names) == 1 else "are"
        raise UserError(f"{', '.join(_below(place, each) for each in sorted(names))} {verb} missing")


def _below(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _refuse(value: Any, hint: Any, name: str) -> NoReturn:
    raise UserError(f"{name} must be {_described(hint)}, got {shown(value)}")


def _described(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_described(each) for each in arguments)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if (origin or hint) in (list, tuple, Sequence):
        return "a list"
    if (origin or hint) in (dict, Mapping) or typing.is_typeddict(hint) or dataclasses.is_dataclass(hint):
        return "fields with values"
    return _WORDS.get(hint or type(None), str(hint))


def shown(value: Any) -> str:
    """A value in at most about 60 characters, on one line."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 60
    try:
        return " ".join(short.repr(value).split())
    except ValueError:  # an integer of thousands of digits
        return "a huge number"

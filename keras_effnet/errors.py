"""Errors that users can correct, and suggestions for misspelt names. Pure Python."""

from __future__ import annotations

import difflib
import operator
import os
import re
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any, TypeVar

T = TypeVar("T")
_REASON = 200  # characters of the cause of an error of TensorFlow
# Errors of TensorFlow about a file that cannot be read or decoded.
_UNREADABLE = (
    "NotFoundError",
    "InvalidArgumentError",
    "PermissionDeniedError",
    "FailedPreconditionError",
    "UnknownError",
)
_LISTED = 32  # names listed in a message: enough for all networks, not for all classes of ImageNet


class UserError(ValueError):
    """Invalid input; the message is one line that names cause and cure.

    The command line prints only the message and exits with status 2. In Python it is also a `ValueError`.
    """


class VerificationError(RuntimeError):
    """A converted file failed its checks and was not kept. The command line exits with status 3."""


def first_line(error: Exception) -> str:
    """First line of an error's message, or its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


_NOISE = re.compile(  # what TensorFlow prepends to messages and Pillow inserts into them
    r"\{\{.*?\}\} ?|Error in user-defined function .*? iterator: \S+ "
    r"|\bValueError: | <_io.BytesIO object at \w+>"
)


def tensorflow_reason(error: Exception) -> str:
    """The cause in an error of TensorFlow, without the graph, the nodes and the traceback around it."""
    message = str(error).split("\n\t [[")[0].split("\nTraceback")[0].split("\nCondition")[0]
    if message.startswith("Graph execution error"):
        message = message.rpartition("\n")[2]
    message = _NOISE.sub("", message).split(" [Op:")[0]
    if asserted := re.match(r"assertion failed: \[(.*?)\]", message):
        message = asserted[1]
    return message.replace("\n", " ")[:_REASON].rstrip(". ")


def unreadable_input(error: Exception) -> str | None:
    """Why an input pipeline of TensorFlow cannot read or decode a file; None for other errors."""
    reading = type(error).__name__ in _UNREADABLE and "IteratorGetNext" in str(error)
    return tensorflow_reason(error) if reading else None


def printable(text: str) -> str:
    """Text on one line, with escapes for characters that cannot be printed: names of files may hold any."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def closest(value: str, choices: Iterable[str]) -> str | None:
    """The choice most similar to `value`, or None if none is similar."""
    return next(iter(difflib.get_close_matches(str(value).lower(), list(choices), n=1, cutoff=0.5)), None)


def unknown(what: str, value: str, choices: Iterable[str]) -> str:
    """Message about a name that is not among `choices`, with the closest match and a list of them."""
    names = list(choices)
    close = closest(value, names)
    hint = f" Did you mean {close!r}?" if close else ""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"Unknown {what} {value!r}.{hint} Choose one of: {', '.join(names[:_LISTED])}{more}."


def listed(names: Sequence[str], most: int = 5, separator: str = ", ") -> str:
    """The first names for a message, and dots if there are more.

    Example:

    >>> listed(["a", "b", "c"], 2)
    'a, b, ...'
    """
    return separator.join(names[:most]) + (f"{separator}..." if len(names) > most else "")


def one_of(what: str, value: str, choices: Iterable[str]) -> str:
    """Return `value` if it is among `choices`, else raise an error with the closest match.

    Args:
        what: Kind of name, for the message, such as `"model"` or `"precision"`.
        value: Name to check.
        choices: All valid names.

    Returns:
        `value`.

    Raises:
        UserError: `value` is not among `choices`.
    """
    names = list(choices)
    if value not in names:
        raise UserError(unknown(what, value, names))
    return value


def whole_number(what: str, value: Any, at_least: int = 1) -> int:
    """Return `value` as an int if it is a whole number of any integer type.

    Args:
        what: Name of the value, for the message, such as `"classes"`.
        value: Value to check.
        at_least: Int, smallest valid value.

    Returns:
        Int.

    Raises:
        UserError: It is text, a fraction, a bool or anything else, or too small.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise UserError(f"{what} must be a whole number, got {value!r}.")
    if number < at_least:
        raise UserError(f"{what} must be at least {at_least}, got {number}.")
    return number


def real_number(what: str, value: Any) -> float:
    """Return `value`, of a type other than int and float as a float, if it is a real number; text and None are none.

    Raises:
        UserError: It is another object.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UserError(f"{what} must be a number, got {_brief(value)}.")
    return value if type(value) in (int, float) else float(value)  # type: ignore[return-value]


def instance_of(what: str, value: Any, kind: type[T], cure: str = "") -> T:
    """Return `value` if it is an instance of a class.

    Args:
        what: Name of the argument, for the message.
        value: Value to check.
        kind: The class.
        cure: String, what to do instead, such as `"load the file with load_model."`

    Raises:
        UserError: It is of another class.
    """
    if not isinstance(value, kind):
        raise UserError(f"{what} must be of class {kind.__name__}, got {_brief(value)}{f': {cure}' if cure else '.'}")
    return value


def check_path(what: str, value: Any) -> None:
    """Refuse what is no path, such as a model or None.

    Raises:
        UserError: It is neither a string nor a `Path`.
    """
    if not isinstance(value, str | os.PathLike):
        raise UserError(f"{what} must be a path, got {_brief(value)}.")


def check_model(value: Any) -> None:
    """Refuse what is no Keras model, such as the path of one. Models are recognised by their attributes.

    Raises:
        UserError: It is another object.
    """
    if hasattr(value, "layers") and not hasattr(value, "inputs") and not hasattr(value, "add"):
        raise UserError(
            f"{type(value).__name__} is a subclassed model, whose layers nobody can list: make a functional one, "
            "image = keras.Input((H, W, 3)); keras.Model(image, model.call(image))."
        )
    if hasattr(value, "layers") and not hasattr(value, "inputs"):  # a Sequential
        raise UserError("The model has no input yet: begin it with keras.Input((H, W, 3)), or call it on an image.")
    if not hasattr(value, "layers"):
        cure = "; load a file with load_model" if isinstance(value, str | os.PathLike) else ""
        raise UserError(f"model must be a Keras model, got {_brief(value)}{cure}.")


def _brief(value: Any) -> str:
    """A value where it is short, else its class."""
    plain = value is None or isinstance(value, str | os.PathLike | Real)
    return repr(value)[:100] if plain else type(value).__name__

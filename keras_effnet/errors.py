"""What a user can put right: one error class, one way to suggest a name. Imports nothing of the package."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LISTED = 25  # names that an error spells out: enough for all networks, not for all classes of ImageNet


class UserError(ValueError):
    """Wrong input, said in one line that names the cause and the cure.

    The command line prints the message alone and exits with status 2; Python callers may catch it as a `ValueError`.
    """


class VerificationError(RuntimeError):
    """A file was made, run and found wanting, so it was not kept. The command line exits with status 3."""


def first_line(error: Exception) -> str:
    """What an error says first, or its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def closest(value: str, choices: Iterable[str]) -> str | None:
    """The choice that looks most like `value`, or None if none does."""
    return next(iter(difflib.get_close_matches(str(value).lower(), list(choices), n=1, cutoff=0.5)), None)


def unknown(what: str, value: str, choices: Iterable[str]) -> str:
    """A sentence about a name that is not among `choices`, with the closest that is; of many, the first are listed."""
    names = list(choices)
    close = closest(value, names)
    hint = f" Did you mean {close!r}?" if close else ""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"Unknown {what} {value!r}.{hint} Choose one of: {', '.join(names[:_LISTED])}{more}."


def one_of(what: str, value: str, choices: Iterable[str]) -> str:
    """Returns `value` if it is among `choices`; else raises with the closest match.

    Args:
        what: What the value names, for the message: `"model"`, `"precision"`.
        value: The name received.
        choices: All valid names.

    Raises:
        UserError: `value` is not among `choices`.
    """
    names = list(choices)
    if value not in names:
        raise UserError(unknown(what, value, names))
    return value

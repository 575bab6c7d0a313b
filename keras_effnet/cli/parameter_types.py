"""Types of command-line parameters: what they accept, and what they say of anything else. click, no framework."""

from __future__ import annotations

import math
from collections.abc import Sequence

import click

from keras_effnet.architecture.specs import LARGEST_IMAGE
from keras_effnet.errors import one_of
from keras_effnet.study.executors import MOST_WORKERS
from keras_effnet.system.run_folders import check_name

LARGEST = 2**31 - 1  # what TensorFlow and LiteRT take for counts


class Whole(click.IntRange):
    """A whole number within bounds, at most `LARGEST` if none is given."""

    name = "integer"

    def convert(self, value, param, ctx):
        number = super().convert(value, param, ctx)
        if self.max is None and number > LARGEST:
            self.fail(f"{number} is more than {LARGEST:,}.", param, ctx)
        return number


class Number(click.FloatRange):
    """A finite number within bounds."""

    name = "number"

    def convert(self, value, param, ctx):
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


class _AnyWhole(click.ParamType):
    """A whole number without bounds of its own, of which click would print `x<=None`."""

    name = Whole.name

    def convert(self, value, param, ctx):
        return Whole().convert(value, param, ctx)


WHOLE = _AnyWhole()
SEED = Whole(0, 2**32 - 1)  # NumPy's and TensorFlow's generators take no others
IMAGE_SIZE = Whole(1, LARGEST_IMAGE)
THREADS = Whole(1, 1024)
WORKERS = Whole(1, MOST_WORKERS)


class Name(click.ParamType):
    """Name of a folder or file, without a path."""

    name = "text"

    def convert(self, value, param, ctx):
        check_name(value)
        return value


class Choice(click.Choice):
    """Name among several; an error suggests the closest one."""

    def convert(self, value, param, ctx):
        name = param.opts[-1].lstrip("-") if param is not None else "choice"
        return one_of(name.replace("-", " "), value, self.choices)


class Names(click.ParamType):
    """Comma-separated names, `b0,b1`, as a list; empty for an empty string."""

    name, required = "names", False

    def convert(self, value, param, ctx):
        if not isinstance(value, str):
            return value
        names = [part.strip() for part in value.split(",") if part.strip()]
        if value and not names:
            self.fail(f"{value!r} lists nothing; separate names or numbers by commas.", param, ctx)
        return names


class ChoiceList(Names):
    """Comma-separated names, each checked against the valid ones; an error suggests the closest.

    Args:
        what: String, the kind of name, for the error.
        choices: The valid names.
        required: Bool, whether an empty list is an error.
    """

    def __init__(self, what: str, choices: Sequence[str], *, required: bool = False):
        self._what, self._choices, self.required = what, choices, required

    def convert(self, value, param, ctx):
        names = super().convert(value, param, ctx)
        return [one_of(self._what, name, self._choices) for name in names or [""] * self.required]


class Numbers(Names):
    """Comma-separated numbers, `-2,-1,0.5`, as a list of floats."""

    name = "numbers"

    def convert(self, value, param, ctx):
        try:
            return [Number().convert(float(part), param, ctx) for part in super().convert(value, param, ctx)]
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as -2,-1,0.", param, ctx)


class _Filled(click.ParamType):
    """Another type, without the empty string: that of an unset shell variable, which stands for the current folder."""

    def __init__(self, kind: click.ParamType):
        self.kind, self.name = kind, kind.name

    def __getattr__(self, name):
        return getattr(self.kind, name)

    def get_metavar(self, *args, **options):
        return self.kind.get_metavar(*args, **options)

    def shell_complete(self, ctx, param, incomplete):
        return self.kind.shell_complete(ctx, param, incomplete)

    def convert(self, value, param, ctx):
        if value == "":
            self.fail("it is an empty string. Was a shell variable not set?", param, ctx)
        return self.kind.convert(value, param, ctx)


def refuse_empty_text(command: click.Command) -> None:
    """Let a command refuse empty strings for text, paths and lists; a required list has an error of its own."""
    for param in command.params:
        text = isinstance(param.type, (click.Path, click.types.StringParamType))
        if text or (isinstance(param.type, Names) and not param.type.required):
            param.type = _Filled(param.type)

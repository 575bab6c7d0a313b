"""Command-line options generated from declared ones, and parameter types that commands share. click, no framework."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from keras_effnet.config.declarations import Option, declared_options
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.errors import UserError, one_of
from keras_effnet.system.documents import parse_yaml

SKIP_EMPTY_HELP = "Leave out classes without a usable image for training or validation; otherwise an error."
F = TypeVar("F", bound=Callable[..., Any])
_PLAIN = {str: click.STRING, int: click.INT, float: click.FLOAT}


class Choice(click.Choice):
    """Name among several; an error suggests the closest one."""

    def convert(self, value, param, ctx):
        name = param.name if param is not None and param.name else "choice"
        return one_of(name.replace("_", " "), value, self.choices)


class _DeclaredChoice(click.Choice):
    """Choices of a declared option, whose check explains unsupported values."""

    def __init__(self, option: Option):
        super().__init__(option.choices)
        self._option = option

    def convert(self, value, param, ctx):
        return self._option.check(value)


def config_options(cls: type, **types: click.ParamType) -> Callable[[F], F]:
    """Command decorator that adds a command-line option for each option that a dataclass declares.

    An option that is not given is None instead of its default, so that a config file or a recipe can set it.

    Args:
        cls: Dataclass with fields declared by `declarations.option`.
        **types: click's types, by option name, for options that accept other values on the command line.

    Returns:
        The decorator.
    """

    def decorate(command: F) -> F:
        for option in reversed([*declared_options(cls).values()]):
            command = _click_option(option, types.get(option.name))(command)
        return command

    return decorate


def _click_option(option: Option, kind: click.ParamType | None) -> Callable[[F], F]:
    dashed = option.name.replace("_", "-")
    notes = [f"default: {option.default}"] if option.default is not None else []
    if condition := option.interval.condition:
        notes.append(condition)
    text = option.help.replace("`", "") + (f" [{'; '.join(notes)}]" if notes else "")
    if option.kind is bool:
        return click.option(f"--{dashed}/--no-{dashed}", option.name, default=None, help=text)
    kind = kind or (_DeclaredChoice(option) if option.choices else _PLAIN[option.kind])
    return click.option(f"--{dashed}", option.name, type=kind, default=None, help=text)


class Names(click.ParamType):
    """Comma-separated names, `b0,b1`, as a list; empty for an empty string."""

    name = "names"

    def convert(self, value, param, ctx):
        if not isinstance(value, str):
            return value
        return [part.strip() for part in value.split(",") if part.strip()]


class ChoiceList(Names):
    """Comma-separated names, each checked against the valid ones; an error suggests the closest.

    Args:
        what: String, the kind of name, for the error.
        choices: The valid names.
        required: Bool, whether an empty list is an error.
    """

    def __init__(self, what: str, choices: Sequence[str], *, required: bool = False):
        self._what, self._choices, self._required = what, choices, required

    def convert(self, value, param, ctx):
        names = super().convert(value, param, ctx)
        return [one_of(self._what, name, self._choices) for name in names or [""] * self._required]


class Numbers(Names):
    """Comma-separated numbers, `-2,-1,0.5`, as a list of floats."""

    name = "numbers"

    def convert(self, value, param, ctx):
        try:
            return [float(part) for part in super().convert(value, param, ctx)]
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as -2,-1,0.", param, ctx)


def default_threads(workers: int) -> int:
    """Default number of threads of each training: half of the cores, divided among the workers.

    TensorFlow also runs several operations at a time. On two cores a small EfficientNet uses a fifth less CPU time with
    one thread than with two and is no slower.

    Args:
        workers: Int, trainings at a time.
    """
    return max(1, (os.cpu_count() or 1) // (2 * workers))


def read_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Parse settings such as `("learning_rate=1e-3", "policy=randaugment")` into checked options of `TrainConfig`.

    Raises:
        UserError: A setting has no value, or an option is unknown or invalid.
    """
    values = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise UserError(f"--set needs OPTION=VALUE, for example batch_size=64; got {setting!r}.")
        try:
            values[name.strip().replace("-", "_")] = parse_yaml(text)
        except UserError:
            raise UserError(f"--set {setting}: {text!r} is not a valid value.") from None
    config = TrainConfig.from_dict(values)
    return {name: getattr(config, name) for name in values}

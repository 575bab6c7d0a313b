"""Command-line options generated from declared ones, and parameter types that commands share. click, no framework."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from keras_effnet.architecture.specs import LARGEST_IMAGE
from keras_effnet.config.declarations import Option, declared_options
from keras_effnet.config.run_record import TEST_SPLIT
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.datasets.labels.task_names import DATA_TASKS
from keras_effnet.errors import UserError, one_of
from keras_effnet.study.executors import MOST_WORKERS
from keras_effnet.system.documents import parse_yaml
from keras_effnet.system.run_folders import check_name

SKIP_EMPTY_HELP = "Leave out classes without a usable image for training or validation; otherwise an error."
TASK_HELP = "What the labels are for; by default told by the data where they leave no doubt, else classification."
F = TypeVar("F", bound=Callable[..., Any])
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
_PLAIN = {str: click.STRING, int: WHOLE, float: click.FLOAT}


class Name(click.ParamType):
    """Name of a folder or file, without a path."""

    name = "text"

    def convert(self, value, param, ctx):
        check_name(value)
        return value


SEED = Whole(0, 2**32 - 1)  # NumPy's and TensorFlow's generators take no others
IMAGE_SIZE = Whole(1, LARGEST_IMAGE)
THREADS = Whole(1, 1024)
WORKERS = Whole(1, MOST_WORKERS)


class _Filled(click.ParamType):
    """Another type, without the empty string: that of an unset shell variable, which stands for the current folder."""

    def __init__(self, kind: click.ParamType):
        self.kind, self.name = kind, kind.name

    def __getattr__(self, name):
        return getattr(self.kind, name)

    def get_metavar(self, *args, **options):
        return self.kind.get_metavar(*args, **options)

    def convert(self, value, param, ctx):
        if value == "":
            self.fail("it is an empty string. Was a shell variable not set?", param, ctx)
        return self.kind.convert(value, param, ctx)


def refuse_empty_text(command: click.Command) -> None:
    """Let a command refuse empty strings for text and paths; lists of names may be empty."""
    for param in command.params:
        if isinstance(param.type, (click.Path, click.types.StringParamType)):
            param.type = _Filled(param.type)


def task_option(command: F) -> F:
    """Add the option that names the task of labelled data."""
    return click.option("--task", type=Choice(DATA_TASKS), help=TASK_HELP)(command)


def tolerant(command: F) -> F:
    """Add the options that say which defects of a dataset are tolerated; see `tolerated`."""
    command = click.option("--skip-empty-classes", is_flag=True, help=SKIP_EMPTY_HELP)(command)
    limit = click.option(
        "--max-bad-files", type=Whole(0), default=10, show_default=True, help="Undecodable files to tolerate."
    )
    return limit(command)


def reporting_split(command: F) -> F:
    """Add the option for the share of images that only reports."""
    share = click.FloatRange(0, 1, max_open=True)
    help = "Share of the training images that only reports, if DATA has no test images; 0 reports validation."
    return click.option("--test-split", type=share, default=TEST_SPLIT, show_default=True, help=help)(command)


def tolerated(max_bad_files: int, skip_empty_classes: bool) -> dict[str, Any]:
    """Arguments of `datasets.load` for the options of `tolerant` that were given."""
    given = {"max_bad_files": max_bad_files, "skip_empty_classes": skip_empty_classes}
    return {name: value for name, value in given.items() if was_given(name)}


def was_given(name: str) -> bool:
    """Whether an option of the running command stands on its command line."""
    source = click.get_current_context().get_parameter_source(name)
    return source is ParameterSource.COMMANDLINE


def given_words(*without: str) -> list[str]:
    """Words of the options that stand on the running command's command line, to pass them on to the next command.

    Args:
        *without: Parameters to leave out.
    """
    context = click.get_current_context()
    words: list[str] = []
    for param in context.command.params:
        name = param.name or ""
        if not isinstance(param, click.Option) or name in without or not was_given(name):
            continue
        value = context.params[name]
        if param.is_flag:
            words.append((param.opts if value else param.secondary_opts)[0])
            continue
        for each in value if param.multiple else [value]:
            words += [param.opts[0], f"{each:.10g}" if isinstance(each, float) else str(each)]
    return words


_FOUND = 0.3  # scores of detectors trained by the focal loss are low


def decision_threshold(task: str, given: float) -> float:
    """The option `threshold` of the running command; for a detector another default than for probabilities."""
    return _FOUND if task == "detection" and not was_given("threshold") else given


def refuse_unused(names: Sequence[str], reason: str) -> None:
    """Refuse options that would have no effect.

    Args:
        names: Parameters of the running command.
        reason: Why they have none, and what to do.

    Raises:
        UserError: One of them was given.
    """
    options = {param.name: param.opts[0] for param in click.get_current_context().command.params}
    used = [options[name] for name in names if was_given(name)]
    if used:
        raise UserError(f"{' and '.join(used)} would have no effect: {reason}")


class Choice(click.Choice):
    """Name among several; an error suggests the closest one."""

    def convert(self, value, param, ctx):
        name = param.opts[-1].lstrip("-") if param is not None else "choice"
        return one_of(name.replace("-", " "), value, self.choices)


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
    bounded = option.kind is int and math.isfinite(option.interval.high)  # the option itself refuses what is beyond
    plain = click.INT if bounded else _PLAIN[option.kind]
    kind = kind or (_DeclaredChoice(option) if option.choices else plain)
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
            return [Number().convert(float(part), param, ctx) for part in super().convert(value, param, ctx)]
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as -2,-1,0.", param, ctx)


def default_threads(workers: int) -> int:
    """Default number of threads of each training: the cores, divided among the workers.

    Args:
        workers: Int, trainings at a time.
    """
    return max(1, (os.cpu_count() or 1) // workers)


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
        name = name.strip().replace("-", "_")
        if name in values:
            raise UserError(f"--set {name} is given twice.")
        try:
            values[name] = parse_yaml(text)
        except UserError:
            raise UserError(f"--set {setting}: {text!r} is not a valid value.") from None
    config = TrainConfig.from_dict(values)
    return {name: getattr(config, name) for name in values}

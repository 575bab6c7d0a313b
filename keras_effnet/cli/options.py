"""Command-line options: generated from declared ones, shared by commands, and which were given. click, no framework."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from keras_effnet.cli.parameter_types import WHOLE, Choice, Number, Whole
from keras_effnet.config.declarations import Option, declared_options
from keras_effnet.config.run_record import TEST_SPLIT
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.datasets.labels.task_names import DATA_TASKS
from keras_effnet.errors import UserError
from keras_effnet.system.documents import parse_yaml

SKIP_EMPTY_HELP = "Leave out classes without a usable image for training or validation; otherwise an error."
TASK_HELP = "What the labels are for; by default told by the data where they leave no doubt, else classification."
F = TypeVar("F", bound=Callable[..., Any])
_PLAIN = {str: click.STRING, int: WHOLE, float: click.FLOAT}


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
    share = Number(0, 1, max_open=True)
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

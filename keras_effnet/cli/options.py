"""Options that take several values: names, numbers, and settings of a training. Shared by `study` and `search`.

click; imports `config`, `protocol`, `errors`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import click
import yaml

from keras_effnet.config.train_config import TrainConfig
from keras_effnet.errors import UserError
from keras_effnet.study.protocol import BUDGETS, Budget


class Names(click.ParamType):
    """`b0,b1` as a list; empty for an empty text."""

    name = "names"

    def convert(self, value, param, ctx):
        if not isinstance(value, str):
            return value
        return [part.strip() for part in value.split(",") if part.strip()]


class Numbers(Names):
    """`-2,-1,0.5` as a list of floats."""

    name = "numbers"

    def convert(self, value, param, ctx):
        try:
            return [float(part) for part in super().convert(value, param, ctx)]
        except ValueError:
            self.fail(f"{value!r} is no list of numbers such as -2,-1,0.", param, ctx)


def default_threads(workers: int) -> int:
    """Threads of each training, if the user names none: half of the cores, shared among the workers.

    TensorFlow runs several operations at a time beside the threads within one. On two cores a small EfficientNet
    takes a fifth less processor time with one thread than with two, and is no slower.
    """
    return max(1, (os.cpu_count() or 1) // (2 * workers))


def read_settings(settings: Sequence[str]) -> dict[str, Any]:
    """`("learning_rate=1e-3", "policy=randaugment")` as options of `TrainConfig`, checked."""
    values = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise UserError(f"--set wants OPTION=VALUE, batch_size=64 for instance; got {setting!r}.")
        try:
            values[name.strip().replace("-", "_")] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UserError(f"--set {setting}: {text!r} is no value.") from None
    config = TrainConfig.from_dict(values)
    return {name: getattr(config, name) for name in values}


def one_budget(**amounts: float | None) -> Budget | None:
    """The budget that was given, of those in `BUDGETS`; None if none was."""
    given = {kind: amounts[kind] for kind in BUDGETS if amounts[kind] is not None}
    if len(given) > 1:
        raise UserError(f"One budget, please: {' or '.join(f'--{kind}' for kind in given)}.")
    return next((Budget(kind, float(amount)) for kind, amount in given.items()), None)

"""Protocol of a study: the data, options and budget that all of its trainings share. Pure Python."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from statistics import fmean
from typing import Any

from keras_effnet.architecture.detectors import PREFIX
from keras_effnet.complexity.counting import count
from keras_effnet.config.detectors import DETECTOR_OPTIONS
from keras_effnet.config.recipes import STUDY
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.errors import UserError, one_of
from keras_effnet.study.networks import Member

BUDGETS = ("epochs", "seconds", "macs")
_SPREAD = 3.0  # factor between the learning rates of `rate_grid`
_BACKWARD = 3  # cost of a training step in forward passes: one, and two for the gradients of inputs and weights


@dataclass(frozen=True)
class Budget:
    """Budget of each training.

    Args:
        kind: `"epochs"`, `"seconds"` (of training with its validations and tracing, by the measured pace of the
            network) or `"macs"` (three times a forward pass for each image).
        amount: Float above 0.
    """

    kind: str = "epochs"
    amount: float = STUDY.config.epochs

    def __post_init__(self):
        one_of("budget", self.kind, BUDGETS)
        if not 0 < self.amount < math.inf:
            raise UserError(f"The budget must be above 0 {self.kind} and finite, got {self.amount!r}.")

    def epochs(self, *, seconds_per_epoch: float, macs_per_epoch: float, first_seconds: float = 0.0) -> int:
        """Number of whole epochs within the budget, at least one; the learning rate schedule needs it in advance.

        Args:
            seconds_per_epoch, macs_per_epoch: Floats.
            first_seconds: Float, time that a training takes once.
        """
        costs = {"epochs": 1.0, "seconds": seconds_per_epoch, "macs": macs_per_epoch}
        once = first_seconds if self.kind == "seconds" else 0.0
        return max(1, int((self.amount - once) / costs[self.kind] + 1e-9))

    def __str__(self) -> str:
        return f"{self.amount:g} {self.kind}"


@dataclass(frozen=True)
class Pace:
    """Measured time of a network's trainings.

    Args:
        first_seconds: Float, once for each training: tracing, and starting the input pipeline.
        epoch_seconds: Float, one epoch of all training steps and the validation.
    """

    first_seconds: float
    epoch_seconds: float

    def seconds(self, epochs: int) -> float:
        """Predicted duration of a training."""
        return self.first_seconds + epochs * self.epoch_seconds

    @classmethod
    def mean(cls, paces: Sequence[Pace]) -> Pace:
        """Mean of several measurements."""
        return cls(fmean(each.first_seconds for each in paces), fmean(each.epoch_seconds for each in paces))

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Pace:
        """The pace in a row of kind `"pace"`."""
        return cls(row["first_seconds"], row["epoch_seconds"])


@dataclass(frozen=True)
class Protocol:
    """Training settings that all networks of a study share.

    Args:
        data: Mapping, arguments of `datasets.load`: `source` and its options.
        budget: `Budget` of each training.
        options: Mapping of `TrainConfig` options for all trainings. Missing ones are filled in from the recipe
            `study` and saved, so that a resumed study does not depend on later changes of the recipe.
        threads: Int, CPU threads of each training; 0 leaves the choice to TensorFlow.
        rates: Tuple of floats, learning rates out of which each network gets its own, chosen by short trainings; empty
            for that of `options`.

    Raises:
        UserError: An option that varies between the networks of the study or follows from its budget.
    """

    data: Mapping[str, Any]
    budget: Budget = Budget()
    options: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 0
    rates: tuple[float, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "rates", tuple(self.rates))
        if not all(0 < rate < math.inf for rate in self.rates):
            raise UserError(f"Learning rates must be above 0 and finite, got {list(self.rates)}.")
        for name in ("seed", "epochs", *Member("", "", 0.0, "b0").options):
            if name in self.options:
                raise UserError(f"{name} varies between the trainings of a study; remove it from the shared options.")
        TrainConfig.from_dict({**self.options, **_any_detector(self.options)})
        recipe = {name: value for name, value in STUDY.values.items() if name != "epochs"}
        object.__setattr__(self, "options", {**recipe, **self.options})

    def at_rate(self, rate: float) -> Protocol:
        """The same protocol with a learning rate that is not chosen any more."""
        return replace(self, options={**self.options, "learning_rate": rate}, rates=())

    def config(self, member: Member, *, seed: int = 0, epochs: int = 1) -> TrainConfig:
        """Training configuration of one network."""
        own = {"seed": seed, "epochs": epochs, "warmup_epochs": min(self.options["warmup_epochs"], epochs / 4)}
        return TrainConfig.from_dict({**self.options, **member.options, **own})

    @property
    def arguments(self) -> dict[str, Any]:
        """The fields as arguments of `study.run`."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def to_dict(self) -> dict[str, Any]:
        """The protocol as plain data, for YAML."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Protocol:
        """Inverse of `to_dict`."""
        return cls(**{**values, "budget": Budget(**values["budget"])})


def _any_detector(options: Mapping[str, Any]) -> dict[str, str]:
    """Choice of a network that has these options, whose values can be checked before the networks are known."""
    return {"model": f"{PREFIX}d0"} if any(name in options for name in DETECTOR_OPTIONS) else {}


def rate_grid(rate: float) -> tuple[float, ...]:
    """Three learning rates around one, a factor of 3 apart.

    >>> rate_grid(3e-3)
    (0.001, 0.003, 0.009)
    """
    return tuple(float(f"{rate * factor:.6g}") for factor in (1 / _SPREAD, 1, _SPREAD))


def macs_per_epoch(config: TrainConfig, member: Member, images: int, classes: int) -> float:
    """Multiply-adds of one epoch: three forward passes for each image, averaged over the member's image sizes."""
    costs = [count(config.detector or config.spec, image_size=size, classes=classes).macs for size in member.sizes]
    return _BACKWARD * images * sum(costs) / len(costs)


def training_epochs(
    protocol: Protocol,
    member: Member,
    cost: Mapping[str, Any],
    classes: int,
    images: tuple[int, int],
    pace: Pace | None = None,
) -> int:
    """Number of epochs of each training of a network, at least one for each of its image sizes.

    Args:
        protocol: `Protocol`, with the budget.
        member: `Member`.
        cost: Mapping with `step_ms` and `predict_ms`, times of a batch in milliseconds.
        classes: Int, number of classes of the data.
        images: Pair of ints, numbers of training and validation images.
        pace: `Pace` or None, for a budget of seconds; by default the steps alone, by their time on an idle machine.
    """
    train, val = images
    config = protocol.config(member)
    milliseconds = (
        train // config.batch_size * cost["step_ms"] + math.ceil(val / config.batch_size) * cost["predict_ms"]
    )
    pace = pace or Pace(0.0, milliseconds / 1e3)
    epochs = protocol.budget.epochs(
        seconds_per_epoch=pace.epoch_seconds,
        macs_per_epoch=macs_per_epoch(config, member, train, classes),
        first_seconds=pace.first_seconds,
    )
    return max(epochs, len(member.sizes))

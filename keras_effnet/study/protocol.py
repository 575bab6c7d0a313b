"""What all networks of a study share, frozen before the first is trained: data, options, budget. Pure Python.

Imports `complexity`, `config`, `members`, `recipes`, `errors`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from keras_effnet.complexity.counting import count
from keras_effnet.config.recipes import STUDY
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.errors import UserError, one_of
from keras_effnet.study.networks import Member

BUDGETS = ("epochs", "seconds", "macs")
_BACKWARD = 3  # a step costs a forward pass, and twice as much for the gradients of inputs and of weights


@dataclass(frozen=True)
class Budget:
    """What each training may spend.

    Args:
        kind: `"epochs"`, `"seconds"` (of training, by the measured time of a step) or `"macs"` (three times a forward
            pass for each image).
        amount: Float above 0.
    """

    kind: str = "epochs"
    amount: float = STUDY.config.epochs

    def __post_init__(self):
        one_of("budget", self.kind, BUDGETS)
        if not 0 < self.amount < math.inf:
            raise UserError(f"The budget must be above 0 {self.kind} and finite, got {self.amount!r}.")

    def epochs(self, *, seconds_per_epoch: float, macs_per_epoch: float) -> int:
        """Whole epochs that it buys, and one at least: they are fixed before training, as the schedule needs them."""
        costs = {"epochs": 1.0, "seconds": seconds_per_epoch, "macs": macs_per_epoch}
        return max(1, int(self.amount / costs[self.kind] + 1e-9))

    def __str__(self) -> str:
        return f"{self.amount:g} {self.kind}"


@dataclass(frozen=True)
class Protocol:
    """How every network of a study is trained.

    Args:
        data: Mapping, what `datasets.load` is told: `source`, and options of it.
        budget: `Budget` of each training.
        options: Mapping of `TrainConfig` options, the same for all. Those of the recipe `study` are added to it: a
            study that is gone on with keeps them, whatever the recipe has become.
        threads: Int, threads of each training; 0 leaves that to TensorFlow.

    Raises:
        UserError: An option that belongs to the networks of the study or to its budget.
    """

    data: Mapping[str, Any]
    budget: Budget = Budget()
    options: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 0

    def __post_init__(self):
        for name in ("seed", "epochs", *Member("", "", 0.0, "b0").options):
            if name in self.options:
                raise UserError(f"{name} is what a study varies; it cannot be fixed for all of its networks.")
        TrainConfig.from_dict(self.options)
        recipe = {name: value for name, value in STUDY.values.items() if name != "epochs"}
        object.__setattr__(self, "options", {**recipe, **self.options})

    def config(self, member: Member, *, seed: int = 0, epochs: int = 1) -> TrainConfig:
        """The training of one network."""
        own = {"seed": seed, "epochs": epochs, "warmup_epochs": min(self.options["warmup_epochs"], epochs / 4)}
        return TrainConfig.from_dict({**self.options, **member.options, **own})

    @property
    def arguments(self) -> dict[str, Any]:
        """Itself as arguments of `study.run`."""
        return {"data": self.data, "budget": self.budget, "options": self.options, "threads": self.threads}

    def to_dict(self) -> dict[str, Any]:
        """The protocol as plain data, for YAML."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Protocol:
        """What `to_dict` made."""
        return cls(**{**values, "budget": Budget(**values["budget"])})


def macs_per_epoch(config: TrainConfig, member: Member, images: int, classes: int) -> float:
    """Multiply-adds of an epoch's training: three times a forward pass of each image, over the sizes it grows by."""
    costs = [count(config.spec, image_size=size, classes=classes).macs for size in member.sizes]
    return _BACKWARD * images * sum(costs) / len(costs)

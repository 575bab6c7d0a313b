"""Options of training that have no effect beside certain others. Pure Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from keras_effnet.config.detectors import names_detector
from keras_effnet.config.train_config import TrainConfig


class Condition(NamedTuple):
    """What options need to have an effect.

    Args:
        options: Tuple of names of `TrainConfig`'s options.
        holds: Function from a config to whether they have one.
        reason: String, a sentence for where they have none.
    """

    options: tuple[str, ...]
    holds: Callable[[TrainConfig], bool]
    reason: str


CONDITIONS = (
    Condition(
        ("momentum",),
        lambda config: config.optimizer in ("rmsprop", "sgd"),
        "momentum belongs to the optimizers rmsprop and sgd.",
    ),
    Condition(
        ("decay_rate", "decay_epochs"),
        lambda config: config.schedule == "exponential",
        "steps of decay belong to the schedule exponential.",
    ),
    Condition(
        ("policy_layers", "magnitude"),
        lambda config: config.policy == "randaugment",
        "they belong to RandAugment, --policy randaugment.",
    ),
    Condition(
        ("ap_every", "fit", "scale_low", "scale_high", "mosaic"),
        lambda config: names_detector(config.model),
        "they belong to detectors, such as --model det-lite0.",
    ),
)


def unmet(config: TrainConfig) -> list[Condition]:
    """Conditions that do not hold: setting their options has no effect.

    Example:

    >>> [condition.options for condition in unmet(TrainConfig(optimizer="sgd", schedule="exponential"))]
    [('policy_layers', 'magnitude'), ('ap_every', 'fit', 'scale_low', 'scale_high', 'mosaic')]
    """
    return [condition for condition in CONDITIONS if not condition.holds(config)]

"""From a config to Keras' optimizers and schedules, all of stock parts: a checkpoint reopens in plain Keras.

Keras alone, no `tf.`; imports `config`, `saving`, `transfer`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import keras

from keras_effnet.config.train_config import TrainConfig
from keras_effnet.models.saving import policy_of
from keras_effnet.transfer import layerwise_optimizer

_FIRST = 1e-3  # of the peak, where warm-up begins
_RUNGS = 50  # of the ladder that warm-up climbs where the schedule has no ramp of its own
_EMA_SHARE = 0.1  # of a run that a moving average spans at most
_RMSPROP = {"rho": 0.9, "epsilon": 1e-3}  # as EfficientNet was trained, Tan & Le (ICML 2019), section 5

Schedule = keras.optimizers.schedules.LearningRateSchedule


def _cosine(peak: float, warmup: int, total: int) -> Schedule:
    return keras.optimizers.schedules.CosineDecay(
        peak * _FIRST, decay_steps=max(1, total - warmup), warmup_target=peak, warmup_steps=warmup
    )


def _ladder(peak: float, warmup: int, falls: list[tuple[int, float]]) -> Schedule:
    """Warm-up in small steps, then a new rate at each of `falls`; Keras has ramps for the cosine alone."""
    rungs = min(_RUNGS, warmup)
    rises = [(warmup * rung // rungs, peak * rung / rungs) for rung in range(1, rungs + 1)]
    changes = [change for change in (dict(rises) | dict(falls)).items() if change[0] > 0]
    first = peak * _FIRST if rungs else peak
    boundaries, values = zip(*changes, strict=True) if changes else ((), ())
    if not boundaries:  # Keras wants one at least
        boundaries, values = (1,), (first,)
    return keras.optimizers.schedules.PiecewiseConstantDecay(list(boundaries), [first, *values])


def learning_rates(config: TrainConfig, steps: int, factor: float = 1.0) -> Schedule:
    """The learning rate by step of a config.

    Args:
        config: `TrainConfig`.
        steps: Int, batches in an epoch. Keras counts schedules in batches, also where `accumulate` joins several.
        factor: Float, multiplies every rate.
    """
    peak, total = config.learning_rate * factor, config.epochs * steps
    warmup = min(int(config.warmup_epochs * steps), total)
    if config.schedule == "cosine":
        return _cosine(peak, warmup, total)
    falls = []
    if config.schedule == "exponential":
        interval = config.decay_epochs * steps
        # Counted from the first step, as published: what fell during warm-up is made up for at its end.
        numbers = range(int(warmup / interval), int(total / interval) + 1)
        falls = [(max(warmup, round(n * interval)), peak * config.decay_rate**n) for n in numbers]
    return _ladder(peak, warmup, falls)


def ema_momentum(config: TrainConfig, steps: int) -> float:
    """The decay of the moving average, shortened so that it spans no more than a tenth of a short run."""
    updates = config.epochs * steps  # Keras averages after every batch
    return max(0.0, min(config.ema, 1 - 1 / (_EMA_SHARE * updates)))


def _single(config: TrainConfig, steps: int, factor: float = 1.0) -> keras.optimizers.Optimizer:
    kinds: dict[str, Callable[..., keras.optimizers.Optimizer]] = {
        "adamw": keras.optimizers.AdamW,
        "lamb": keras.optimizers.Lamb,
        "rmsprop": partial(keras.optimizers.RMSprop, momentum=config.momentum, **_RMSPROP),
        "sgd": partial(keras.optimizers.SGD, momentum=config.momentum, nesterov=True),
    }
    average = {"use_ema": True, "ema_momentum": ema_momentum(config, steps)} if config.ema else {}
    optimizer = kinds[config.optimizer](
        learning_rates(config, steps, factor),
        weight_decay=config.weight_decay,
        clipnorm=config.clip_norm,
        gradient_accumulation_steps=config.accumulate if config.accumulate > 1 else None,
        **average,
    )
    # Decaying a batch normalization's gain or a bias only fights the data.
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def build_optimizer(model: keras.Model, config: TrainConfig, steps: int) -> keras.optimizers.Optimizer:
    """The optimizer of a config for a model, with loss scaling where the model computes in float16.

    Args:
        model: Keras model; with `layer_decay` below 1 one of this package, whose stages are known.
        config: `TrainConfig`.
        steps: Int, batches in an epoch.
    """
    if config.layer_decay == 1:  # what any model can have, with stages or without
        optimizer = _single(config, steps)
    else:
        optimizer = layerwise_optimizer(model, config.layer_decay, partial(_single, config, steps))
    # `compile` would wrap it too, but keep that from the file: last.keras would reload without loss scaling.
    return keras.optimizers.LossScaleOptimizer(optimizer) if policy_of(model).name == "mixed_float16" else optimizer


def innermost(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer that moves the classifier's weights: below loss scaling, the last of several."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return getattr(optimizer, "optimizers", [optimizer])[-1]


def learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """The rate that an optimizer has come to; of one with a rate for each stage, the classifier's."""
    return float(keras.ops.convert_to_numpy(innermost(optimizer).learning_rate))


def epochs_done(optimizer: keras.optimizers.Optimizer, steps: int) -> int:
    """How many epochs of `steps` batches an optimizer has behind it, by its own count of them.

    Checkpoints are made at the end of an epoch. The count falls short of it by the batches that loss scaling skipped,
    so it is rounded up. It is that of the innermost optimizer, whose `iterations` would leave out gradients that still
    wait to be applied.
    """
    return -(-int(keras.ops.convert_to_numpy(innermost(optimizer)._iterations)) // steps)

"""Optimizers and learning rate schedules of a config. Keras only.

They consist of stock Keras parts, so that a checkpoint opens in plain Keras.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import keras

from keras_effnet.config.train_config import TrainConfig
from keras_effnet.models.saving import policy_of
from keras_effnet.transfer import layerwise_optimizer

_FIRST = 1e-3  # of the peak rate, at the start of warm-up
_RUNGS = 50  # steps of a piecewise constant warm-up
_EMA_SHARE = 0.1  # largest share of a run that the moving average spans
_RMSPROP = {"rho": 0.9, "epsilon": 1e-3}  # as EfficientNet was trained, Tan & Le (ICML 2019), section 5

Schedule: TypeAlias = keras.optimizers.schedules.LearningRateSchedule


def _cosine(peak: float, warmup: int, total: int) -> Schedule:
    return keras.optimizers.schedules.CosineDecay(
        peak * _FIRST, decay_steps=max(1, total - warmup), warmup_target=peak, warmup_steps=warmup
    )


def _ladder(peak: float, warmup: int, falls: list[tuple[int, float]]) -> Schedule:
    """Piecewise constant warm-up, then a new rate at each of `falls`; Keras has a warm-up for cosine decay only."""
    rungs = min(_RUNGS, warmup)
    rises = [(warmup * rung // rungs, peak * rung / rungs) for rung in range(1, rungs + 1)]
    changes = [change for change in (dict(rises) | dict(falls)).items() if change[0] > 0]
    first = peak * _FIRST if rungs else peak
    boundaries, values = zip(*changes, strict=True) if changes else ((), ())
    if not boundaries:  # Keras requires at least one
        boundaries, values = (1,), (first,)
    return keras.optimizers.schedules.PiecewiseConstantDecay(list(boundaries), [first, *values])


def learning_rates(config: TrainConfig, steps: int, factor: float = 1.0) -> Schedule:
    """Build the learning rate schedule of a config.

    Args:
        config: `TrainConfig`.
        steps: Int, batches per epoch. Keras counts schedules in batches, even if `accumulate` joins several.
        factor: Float, multiplier of every rate.

    Returns:
        A Keras `LearningRateSchedule`.
    """
    peak, total = config.learning_rate * factor, config.epochs * steps
    warmup = min(int(config.warmup_epochs * steps), total)
    if config.schedule == "cosine":
        return _cosine(peak, warmup, total)
    falls = []
    if config.schedule == "exponential":
        interval = config.decay_epochs * steps
        # Counted from the first step, as published: decay steps due during warm-up are applied at its end.
        numbers = range(int(warmup / interval), int(total / interval) + 1)
        falls = [(max(warmup, round(n * interval)), peak * config.decay_rate**n) for n in numbers]
    return _ladder(peak, warmup, falls)


def ema_momentum(config: TrainConfig, steps: int) -> float:
    """Decay of the moving average, limited so that it spans at most a tenth of a short run."""
    updates = config.epochs * steps  # Keras updates the average after every batch
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
        clipnorm=config.clip_norm if config.global_clip_norm is None else None,
        global_clipnorm=config.global_clip_norm,
        gradient_accumulation_steps=config.accumulate if config.accumulate > 1 else None,
        **average,
    )
    # Weight decay of biases and batch normalization gains does not regularize.
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def build_optimizer(model: keras.Model, config: TrainConfig, steps: int) -> keras.optimizers.Optimizer:
    """Build the optimizer of a config for a model, with loss scaling if the model computes in float16.

    Args:
        model: Keras model; `layer_decay` below 1 needs a network of this package, whose stages are known.
        config: `TrainConfig`.
        steps: Int, batches per epoch.

    Returns:
        A Keras optimizer.
    """
    if config.layer_decay == 1:  # works for every model
        optimizer = _single(config, steps)
    else:
        optimizer = layerwise_optimizer(model, config.layer_decay, partial(_single, config, steps))
    # `compile` would wrap it too, but would not save the wrapper: last.keras would reload without loss scaling.
    return keras.optimizers.LossScaleOptimizer(optimizer) if policy_of(model).name == "mixed_float16" else optimizer


def innermost(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Optimizer of the classifier's weights: inside loss scaling, the last of several."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return getattr(optimizer, "optimizers", [optimizer])[-1]


def learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """Current learning rate of an optimizer; the classifier's, if stages have different rates."""
    return float(keras.ops.convert_to_numpy(innermost(optimizer).learning_rate))


def batch_counter(optimizer: keras.optimizers.Optimizer) -> keras.Variable:
    """The variable in which an optimizer counts batches; its `iterations` counts updates, of several batches each."""
    return next(variable for variable in innermost(optimizer).variables if variable.name == "iteration")


def epochs_done(optimizer: keras.optimizers.Optimizer, steps: int) -> int:
    """Number of completed epochs by the batches that an optimizer has counted.

    Checkpoints are saved at the end of an epoch. Loss scaling skips batches without counting them, so the quotient is
    rounded up. The private counter of the innermost optimizer is read because its public `iterations` leaves out
    accumulated gradients that are not applied yet.

    Args:
        optimizer: Keras optimizer.
        steps: Int, batches per epoch.
    """
    return -(-int(keras.ops.convert_to_numpy(batch_counter(optimizer))) // steps)

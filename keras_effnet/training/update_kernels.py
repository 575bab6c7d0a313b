"""Fused optimizer updates for training on the CPU.

Keras 3 writes the update of every variable as a dozen operations, and evaluates the learning rate schedule again for
each variable that decays. TensorFlow has a kernel per optimizer. The values are the same; a network of 174 variables is
traced in half the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_effnet.models.batch_norm import trains_on_cpu
from keras_effnet.system.private_api import replaced_update

_Kernel = Callable[..., Any]


@dataclass(frozen=True)
class _Fused:
    """Kernel of a class of optimizers.

    Args:
        slots: Names of the optimizer's attributes with its slot variables.
        kernel: Function `(optimizer, variable, gradient, rate, *slots)`, handles of variables.
        covers: Function that tells whether the kernel computes what this optimizer does.
    """

    slots: tuple[str, ...]
    kernel: _Kernel
    covers: Callable[[Any], bool] = lambda optimizer: True


def _adam(optimizer: Any, variable: Any, gradient: Any, rate: Any, mean: Any, square: Any) -> None:
    step = keras.ops.cast(optimizer.iterations + 1, "float32")
    tf.raw_ops.ResourceApplyAdam(
        var=variable,
        m=mean,
        v=square,
        beta1_power=tf.pow(optimizer.beta_1, step),
        beta2_power=tf.pow(optimizer.beta_2, step),
        lr=rate,
        beta1=optimizer.beta_1,
        beta2=optimizer.beta_2,
        epsilon=optimizer.epsilon,
        grad=gradient,
    )


def _sgd(optimizer: Any, variable: Any, gradient: Any, rate: Any, momentum: Any) -> None:
    tf.raw_ops.ResourceApplyKerasMomentum(
        var=variable,
        accum=momentum,
        lr=rate,
        grad=gradient,
        momentum=optimizer.momentum,
        use_nesterov=optimizer.nesterov,
    )


def _rmsprop(optimizer: Any, variable: Any, gradient: Any, rate: Any, square: Any, momentum: Any) -> None:
    tf.raw_ops.ResourceApplyRMSProp(
        var=variable,
        ms=square,
        mom=momentum,
        lr=rate,
        rho=optimizer.rho,
        momentum=optimizer.momentum,
        epsilon=optimizer.epsilon,
        grad=gradient,
    )


_ADAM = _Fused(("_momentums", "_velocities"), _adam, lambda optimizer: not optimizer.amsgrad)

# Of the stock classes alone: a subclass may compute something else.
_KERNELS: dict[type, _Fused] = {
    keras.optimizers.Adam: _ADAM,
    keras.optimizers.AdamW: _ADAM,
    keras.optimizers.SGD: _Fused(("momentums",), _sgd, lambda optimizer: optimizer.momentum > 0),
    keras.optimizers.RMSprop: _Fused(
        ("_velocities", "_momentums"), _rmsprop, lambda optimizer: optimizer.momentum > 0 and not optimizer.centered
    ),
}


def _parts(optimizer: Any) -> list[Any]:
    """The optimizers inside loss scaling and `MultiOptimizer`."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return list(getattr(optimizer, "optimizers", [optimizer]))


def _update(optimizer: Any, fused: _Fused) -> Callable[..., None]:
    keras_step = optimizer.update_step

    def update(variable: Any, gradient: Any, rate: Any, decay: float | None, *slots: Any) -> None:
        rate = tf.cast(rate, variable.dtype)
        if decay is not None:
            variable.assign_sub(variable * tf.cast(decay, variable.dtype) * rate)
        if isinstance(gradient, tf.IndexedSlices) or variable.dtype != tf.float32:
            keras_step(gradient, variable, rate)
        else:
            handles = [each.handle for each in (variable, *slots)]
            fused.kernel(optimizer, handles[0], tf.cast(gradient, tf.float32), rate, *handles[1:])

    return update


@contextmanager
def fused_updates(model: keras.Model) -> Iterator[None]:
    """Train a compiled model with fused optimizer updates inside a `with` block.

    Adam and AdamW, and SGD and RMSprop with momentum, also inside loss scaling and `MultiOptimizer`; other optimizers
    and variants update as Keras does. The optimizer keeps its class, so files that are saved inside the block open in
    plain Keras. Nothing changes on GPUs, under a distribution strategy, or on other backends.

    Args:
        model: Keras model whose optimizer is built.

    Example:

    >>> with fused_updates(model):
    ...     model.fit(batches)
    """
    if not trains_on_cpu() or tf.distribute.has_strategy():
        yield
        return
    with ExitStack() as stack:
        for optimizer in _parts(model.optimizer):
            fused = _KERNELS.get(type(optimizer))
            if fused and fused.covers(optimizer):
                stack.enter_context(replaced_update(optimizer, fused.slots, _update(optimizer, fused)))
        model.train_function = None
        try:
            yield
        finally:
            model.train_function = None

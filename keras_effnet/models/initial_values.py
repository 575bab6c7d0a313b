"""Networks whose variables are all filled at the end, once, with random values or those of a file.

Over half of the time that B7 takes to build would go into values that its weights then replace. And TensorFlow makes a
kernel for every name that a variable's handle has: within the layers' name scopes that is one for each variable, at
the end one for all that are called alike. Keras alone, no `tf.`; imports nothing of the package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import keras
import numpy as np


def _first_value(value: np.ndarray, shape: tuple[int, ...], dtype: Any = None):
    """A Keras initializer, but for `value`. Contiguous, because torch would keep the strides of a transposed view."""
    return keras.ops.convert_to_tensor(np.ascontiguousarray(value), dtype)


def _begins(variable: keras.Variable, value: np.ndarray) -> bool:
    """Lets a variable that has no value yet begin with this one; False if it has one."""
    if getattr(variable, "_initializer", None) is None:
        return False
    variable._initializer = partial(_first_value, value)
    return True


def build_with(
    network: Callable[[], keras.Model],
    values: Callable[[keras.Model], Iterable[tuple[keras.Variable, np.ndarray]]],
) -> keras.Model:
    """Builds a network whose variables begin with given values; if there is an error, there is no network.

    Args:
        network: Function that builds it.
        values: Function from the network, whose variables have shapes alone, to pairs of variable and value. A
            variable that it leaves out begins as its initializer says.
    """
    # Variables that are made in this scope are initialized when it ends, and configs keep the published initializers.
    with keras.StatelessScope():
        model = network()
        others = [(variable, value) for variable, value in values(model) if not _begins(variable, value)]
    for variable, value in others:  # of layers before `input_tensor`, which were there already
        variable.assign(value)
    for module in (model, *model.layers):
        getattr(module, "torch_params", None)  # on that backend, a module has no parameters until it is asked for them
    return model

"""One process of several that train together: what the environment says of them, and who writes.

Imports `errors` alone; frameworks wait until they are used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from keras_effnet.errors import UserError, first_line

# What `keras.distribution.initialize` reads; `keras-effnet launch` sets them.
ADDRESSES = "KERAS_DISTRIBUTION_JOB_ADDRESSES"
PROCESSES = "KERAS_DISTRIBUTION_NUM_PROCESSES"
PROCESS_ID = "KERAS_DISTRIBUTION_PROCESS_ID"


def number(variable: str) -> int:
    """The value of an environment variable as an integer."""
    text = os.environ.get(variable, "")
    if not text.isdecimal():
        raise UserError(f"{variable} must be a whole number, got {text!r}; `keras-effnet launch` sets it.")
    return int(text)


def in_a_group() -> bool:
    """Whether the environment says that this process is one of several; all three variables or none."""
    given = [name for name in (ADDRESSES, PROCESSES, PROCESS_ID) if os.environ.get(name)]
    if not given:
        return False
    for name in (ADDRESSES, PROCESSES, PROCESS_ID):
        if name not in given:
            raise UserError(f"{given[0]} is set but {name} is not; set all three, or start by `keras-effnet launch`.")
    if number(PROCESS_ID) >= number(PROCESSES):
        raise UserError(f"{PROCESS_ID} must be below {PROCESSES}, {number(PROCESSES)}; got {number(PROCESS_ID)}.")
    return number(PROCESSES) > 1


def join() -> None:
    """Connects this process with the others that its environment names; before JAX computes anything."""
    import jax
    import keras

    if not in_a_group() or jax.distributed.is_initialized():
        return
    try:
        keras.distribution.initialize()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"The {number(PROCESSES)} processes did not come together: {first_line(error)}") from error


def is_chief() -> bool:
    """Whether this process is the one that writes files and talks to the user: process 0, or the only one."""
    jax = sys.modules.get("jax")
    if jax is not None and jax.distributed.is_initialized():
        return jax.process_index() == 0
    return not in_a_group() or number(PROCESS_ID) == 0


@contextmanager
def alone() -> Iterator[None]:
    """Where one process of several does what the others do not: save a model, load one, evaluate it.

    Inside `scope("data-parallel")` whoever makes a variable waits until all processes make it, and Keras makes an
    optimizer whenever it saves one. Without it a chief that saves waits for ever.

    Example:

    >>> if keras_effnet.training.distribution.is_chief():
    ...     with keras_effnet.training.distribution.alone():
    ...         model.save("flowers.keras")
    """
    import keras

    before = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)

"""Branches of TensorFlow graphs that few images take. TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def rare(branch: Callable[[], Any]) -> Callable[[], Any]:
    """Wrap a branch of `tf.cond` so that it costs little where it is not taken.

    TensorFlow inlines both branches and visits each of their operations to find that it is not needed, which adds up
    to a tenth of the time to decode an image. A function that is not inlined is one operation.

    Args:
        branch: Function without arguments that returns tensors.

    Example:

    >>> tf.cond(tf.io.is_jpeg(contents), jpeg, rare(other))
    """
    if tf.executing_eagerly():
        return branch
    return tf.function(branch, autograph=False, experimental_attributes={"_noinline": True})

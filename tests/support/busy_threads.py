"""How the work of a process spreads over its threads. TensorFlow is loaded in that process."""

from __future__ import annotations

import threading

import psutil

from keras_effnet.study.trial import limit_threads


def shares(threads: int) -> list[float]:
    """Shares of the computing threads, largest first, in operations that could all run side by side.

    The main thread, which dispatches them, does not count.
    """
    limit_threads(threads)
    import tensorflow as tf

    @tf.function
    def step(matrix):
        return tf.add_n([tf.linalg.matmul(matrix + offset, matrix) for offset in range(4)])

    def prepared(number):
        return tf.linalg.matmul(tf.random.stateless_normal((600, 600), [number, 0]), tf.ones((600, 600)))

    matrix = tf.random.normal((1000, 1000))
    step(matrix)
    before = _seconds()
    for _ in tf.data.Dataset.range(24).map(prepared, num_parallel_calls=4).prefetch(2):
        step(matrix)
    spent = sorted((now - before.get(thread, 0.0) for thread, now in _seconds().items()), reverse=True)
    return [seconds / sum(spent) for seconds in spent]


def _seconds() -> dict[int, float]:
    threads, main = psutil.Process().threads(), threading.main_thread().native_id
    return {each.id: each.user_time + each.system_time for each in threads if each.id != main}

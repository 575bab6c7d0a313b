"""Running a `.tflite` file on many images with all cores, one single-threaded interpreter each.

Threads of one interpreter share each layer, most of which are too small for that. LiteRT and numpy; never TensorFlow.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from keras_effnet.export.isolation.isolated import IsolatedModel
from keras_effnet.export.tflite_file.interpreter import ImageModel
from keras_effnet.export.tflite_file.mapped_images import ImageArray

_SHARE = 4  # images per call that are worth a process, which takes as long to start as some images to run


class ParallelModel(ImageModel):
    """A `.tflite` file in a worker process per core: as `IsolatedModel`. Processes are started when there is work.

    Args:
        source: Path of a file, or its bytes.
        workers: Int, maximum number of processes; by default one per core.

    Raises:
        UserError: As `IsolatedModel`.

    Example:

    >>> ParallelModel("model.tflite").predict(images).argmax(axis=1)
    """

    def __init__(self, source: str | Path | bytes, workers: int | None = None):
        self._source, self._limit = source, workers or os.cpu_count() or 1
        first = IsolatedModel(source)
        self._models = [first]
        super().__init__(first.name, [first.input], first.outputs)

    def run(self, batch: np.ndarray) -> list[np.ndarray]:  # noqa: D102  as in the base class
        return self._models[0].run(batch)

    def predict(self, images: ImageArray) -> np.ndarray:  # noqa: D102  as in the base class
        count = max(1, min(self._limit, len(images) // _SHARE))
        while len(self._models) < count:
            self._models.append(IsolatedModel(self._source))
        if count == 1:
            return self._models[0].predict(images)
        parts = [images[first::count] for first in range(count)]
        with ThreadPoolExecutor(count) as threads:
            found = list(threads.map(lambda model, part: model.predict(part), self._models, parts))
        joined = np.empty((len(images), *found[0].shape[1:]), found[0].dtype)
        for first, part in enumerate(found):
            joined[first::count] = part
        return joined

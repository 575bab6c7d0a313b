"""Where an export starts: a network, its calibration images, and the float graphs that are made from them.

TensorFlow, through `float_graph`.
"""

from __future__ import annotations

from functools import cached_property

import keras
import numpy as np

from keras_effnet.architecture.detectors import DetectorSpec
from keras_effnet.export.conversion.float_graph import FloatGraph, required
from keras_effnet.export.conversion.structure import float32_copy, unshared
from keras_effnet.export.outputs import Outputs, Tasks
from keras_effnet.system.private_api import graph_steps
from keras_effnet.tasks.recognition import is_detector


class ExportSource:
    """Input of an export: a network, calibration images, and the float graphs made from them, each converted once.

    Args:
        model: Functional Keras model that takes pixels in 0..255.
        pixels: Array of shape `(N, height, width, channels)`, values 0..255, or None.
        samples: Int, how many of them the ranges come from; training takes all. By default all.
        task: String, what the output means; by default told by the model, see `tasks.task_of`.
        detector: `DetectorSpec` of a detector, for its anchors.

    Attributes:
        left_out: Dict of the place of a calibration image that integer files were not calibrated on -> how many times
            those on other images its activations are. It fills as graphs are `calibrated`.
    """

    def __init__(
        self,
        model: keras.Model,
        pixels: np.ndarray | None = None,
        samples: int | None = None,
        task: Tasks | None = None,
        detector: DetectorSpec | None = None,
    ):
        self.outputs = Outputs.of(model, task, detector)
        self.model = unshared(float32_copy(model)) if is_detector(model) else float32_copy(model)
        self.pixels = pixels
        self._calibration = None if pixels is None else pixels[:samples]
        self.left_out: dict[int, float] = {}

    @property
    def images(self) -> np.ndarray:
        """All images of the source, values 0..255. Raises `UserError` if it has none."""
        return required(self.pixels)

    def graph(self, input_type: str) -> FloatGraph:
        """Return the float graph for files with this input type."""
        return self._on_bytes if input_type == "uint8" else self._on_pixels

    def calibrated(self, input_type: str) -> FloatGraph:
        """Return the float graph for integer files with this input type, without outlying calibration images."""
        graph = self.graph(input_type)
        self.left_out |= graph.outlying
        return graph.typical

    @property
    def remark(self) -> str:
        """Which images the integer files made so far were not calibrated on, and why; empty if there are none."""
        if not self.left_out:
            return ""
        places, count = ", ".join(map(str, sorted(self.left_out))), len(required(self._calibration))
        most = max(self.left_out.values())
        return (
            f"Left out of calibration: {len(self.left_out)} of {count} images (places, from 0: {places}). Activations "
            f"on them are up to {most:.0f} times those on all others, whose steps in int8 would be too coarse."
        )

    @cached_property
    def _on_pixels(self) -> FloatGraph:
        return FloatGraph(self.model, self._calibration, outputs=self.outputs)

    @cached_property
    def _on_bytes(self) -> FloatGraph:
        """Graph without the normalization, if the input's scale and zero point can express it."""
        if (first := _expressible(self.model)) is None:
            return self._on_pixels
        scale, offset = (np.asarray(each).item() for each in (first.scale, first.offset))
        rest = keras.Model(first.output, self.model.output, name=self.model.name)
        return FloatGraph(rest, self._calibration, scale, offset, self.outputs)


def _expressible(model: keras.Model) -> keras.layers.Rescaling | None:
    """The normalization of the pixels, if it is all that reads them and quantization parameters can express it.

    All channels share one scale, so the pixel statistics must be equal for all channels. Scales are positive, and the
    range must hold 0, the value of the zero point.
    """
    readers = [step for step in graph_steps(model) if any(each is model.inputs[0] for each in step[1])]
    if len(readers) != 1 or not isinstance(readers[0][0], keras.layers.Rescaling):
        return None
    first = readers[0][0]
    if first.output is not readers[0][2] or np.size(first.scale) > 1 or np.size(first.offset) > 1:
        return None
    ends = np.asarray(first.scale).item() * np.array([0, 255]) + np.asarray(first.offset).item()
    return first if ends[0] <= 0 < ends[1] else None

"""Runs a `.tflite` file with LiteRT: float images in, float predictions out, whatever the file's own types.

ai-edge-litert and numpy; never TensorFlow.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_effnet.errors import UserError, first_line
from keras_effnet.export.tflite_file.graph import content_of
from keras_effnet.system.output import captured_output

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter


class CannotRunError(UserError):
    """A file that LiteRT does not take."""


def open_interpreter(source: str | bytes, threads: int | None = 1) -> Interpreter:
    """Create a LiteRT interpreter and allocate its tensors, without the delegate's messages on the terminal.

    Args:
        source: Path of a file, which is memory-mapped, or its bytes, which the caller must keep alive.
        threads: Int, or None for LiteRT's default.

    Raises:
        ValueError, RuntimeError: LiteRT cannot run the file.
    """
    from ai_edge_litert.interpreter import Interpreter

    place = {"model_content": source} if isinstance(source, bytes) else {"model_path": source}
    with captured_output():
        interpreter = Interpreter(**place, num_threads=threads)
        interpreter.allocate_tensors()
    return interpreter


class TFLiteModel:
    """A `.tflite` classifier, ready to run.

    Args:
        source: Path of a file, or its bytes.
        threads: Int, threads of the interpreter.

    Raises:
        UserError: The file is missing, is no `.tflite`, or needs operators that LiteRT does not have.
    """

    def __init__(self, source: str | Path | bytes, threads: int = 1):
        content = content_of(source)
        name = "The converted model" if isinstance(source, bytes) else str(source)
        try:
            self._interpreter = open_interpreter(content, threads)
        except (ValueError, RuntimeError) as error:
            raise CannotRunError(f"{name} cannot be run by LiteRT: {first_line(error)}") from None
        (self.input,) = self._interpreter.get_input_details()
        (self.output,) = self._interpreter.get_output_details()
        if len(self.input["shape"]) != 4 or len(self.output["shape"]) != 2:
            raise UserError(f"{name} is no image classifier: {self.input['shape']} in, {self.output['shape']} out.")
        self._content = content  # the interpreter reads from these bytes

    @property
    def input_shape(self) -> tuple[int, ...]:
        """`(1, height, width, channels)`."""
        return tuple(int(side) for side in self.input["shape"])

    @property
    def classes(self) -> int:
        """Number of outputs."""
        return int(self.output["shape"][-1])

    def quantized_input(self, image: np.ndarray) -> np.ndarray:
        """An image with values in 0..255 in the file's own input type; bytes go in as they are."""
        if self.input["dtype"] == np.float32:
            return image.astype("float32")
        if self.input["dtype"] == np.uint8:  # scale and zero point may hold the network's normalisation
            return np.clip(np.round(image), 0, 255).astype("uint8")
        scale, zero_point = self.input["quantization"]
        limits = np.iinfo(self.input["dtype"])
        return np.clip(np.round(image / scale + zero_point), limits.min, limits.max).astype(self.input["dtype"])

    def run(self, batch: np.ndarray) -> np.ndarray:
        """One image of shape `(1, height, width, channels)` in the file's own type; the raw output."""
        self._interpreter.set_tensor(self.input["index"], batch)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self.output["index"])

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Predictions for images of shape `(N, height, width, channels)`, values 0..255.

        Returns:
            A `float32` array of shape `(N, classes)`.
        """
        if images.shape[1:] != self.input_shape[1:]:
            raise UserError(f"The model takes images of {self.input_shape[1:]}, got {images.shape[1:]}.")
        rows = [self.run(self.quantized_input(image)[None])[0] for image in images]
        outputs = np.asarray(rows)
        if self.output["dtype"] != np.float32:
            scale, zero_point = self.output["quantization"]
            outputs = (outputs.astype("float32") - zero_point) * scale
        return outputs

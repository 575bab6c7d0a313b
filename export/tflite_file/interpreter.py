"""Running `.tflite` files with LiteRT: float images in, float predictions out, whatever the file's own types.

LiteRT and numpy; never TensorFlow.
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
    """LiteRT cannot run a file."""


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
    """A `.tflite` image classifier, loaded and ready to run.

    Args:
        source: Path of a file, or its bytes.
        threads: Int, number of interpreter threads.

    Raises:
        UserError: The file is missing, is not a `.tflite` file, is not an image classifier, or needs operators that
            LiteRT does not have.
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
            shapes = f"{self.input['shape']} to {self.output['shape']}"
            raise UserError(f"{name} is not an image classifier: it maps shape {shapes}, not (1, H, W, C) to (1, N).")
        self._content = content  # the interpreter reads from these bytes: keep them alive

    @property
    def input_shape(self) -> tuple[int, ...]:
        """`(1, height, width, channels)`."""
        return tuple(int(side) for side in self.input["shape"])

    @property
    def classes(self) -> int:
        """Number of outputs."""
        return int(self.output["shape"][-1])

    def quantized_input(self, image: np.ndarray) -> np.ndarray:
        """Convert an image with values in 0..255 to the file's input type; uint8 files take the bytes unchanged."""
        if self.input["dtype"] == np.float32:
            return image.astype("float32")
        if self.input["dtype"] == np.uint8:  # scale and zero point may encode the network's normalization
            return np.clip(np.round(image), 0, 255).astype("uint8")
        scale, zero_point = self.input["quantization"]
        limits = np.iinfo(self.input["dtype"])
        return np.clip(np.round(image / scale + zero_point), limits.min, limits.max).astype(self.input["dtype"])

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Run one image of shape `(1, height, width, channels)` in the file's input type and return the raw output."""
        self._interpreter.set_tensor(self.input["index"], batch)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self.output["index"])

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Predict the classes of images of shape `(N, height, width, channels)`, values 0..255.

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

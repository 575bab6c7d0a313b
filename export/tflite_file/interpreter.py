"""Running `.tflite` files with LiteRT: float images in, float predictions out, whatever the file's own types.

LiteRT and numpy; never TensorFlow.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_effnet.errors import UserError, first_line
from keras_effnet.export.tflite_file.graph import content_of, name_of
from keras_effnet.export.tflite_file.integrity import checked
from keras_effnet.export.tflite_file.mapped_images import ImageArray
from keras_effnet.system.output import captured_output

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

_IMAGES = ("float32", "uint8", "int8", "int16")
_SCORES = (*_IMAGES, "float16", "float64")


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


class ImageModel(ABC):
    """A `.tflite` file that maps one image to tensors: scores, values, features or masks.

    Args:
        name: String, the file's name in messages.
        inputs, outputs: Descriptions of the file's inputs and outputs, as LiteRT returns them.

    Raises:
        UserError: The file has other inputs or outputs.
    """

    def __init__(self, name: str, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]):
        if len(inputs) != 1 or not outputs:
            ports = f"{len(inputs)} inputs and {len(outputs)} outputs"
            raise UserError(f"{name} is not an image classifier or the like: it has {ports}, not one input.")
        self.name, self.input, self.outputs = name, inputs[0], outputs
        takes = [int(side) for side in self.input["shape"]]
        for gives in map(list, self.output_shapes):
            ranks = (2, 4) if len(outputs) == 1 else (2, 3, 4)
            if len(takes) != 4 or len(gives) not in ranks or takes[0] != 1 or gives[0] != 1:
                raise UserError(
                    f"{name} is not an image classifier or the like: it maps shape {takes} to {gives}, not "
                    "(1, H, W, C) to (1, N) or (1, H, W, N)."
                )
        if -1 in self.input["shape_signature"][1:]:
            signature = [int(side) for side in self.input["shape_signature"]]
            raise UserError(f"{name} takes images of no fixed size, {signature}; convert it with a fixed input shape.")
        taken = np.dtype(self.input["dtype"]).name
        for given in (np.dtype(port["dtype"]).name for port in outputs):
            if taken not in _IMAGES or given not in _SCORES:
                raise UserError(f"{name} maps {taken} to {given}; expected {', '.join(_IMAGES)} for images and scores.")
        if taken in ("int8", "int16") and not self.input["quantization"][0]:
            raise UserError(f"{name} takes {taken} without a scale; convert it again.")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """`(1, height, width, channels)`."""
        return tuple(int(side) for side in self.input["shape"])

    @property
    def output_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of each output: `(1, classes)`, `(1, height, width, classes)`, or of a detector `(1, anchors, values)`."""
        return tuple(tuple(int(side) for side in port["shape"]) for port in self.outputs)

    @property
    def output(self) -> dict[str, Any]:
        """Description of the first output, the only one of most files."""
        return self.outputs[0]

    @property
    def classes(self) -> int:
        """Size of the first output's last axis."""
        return self.output_shapes[0][-1]

    def quantized_input(self, image: np.ndarray) -> np.ndarray:
        """Convert an image with values in 0..255 to the file's input type; uint8 files take the bytes unchanged."""
        if self.input["dtype"] == np.float32:
            return image.astype("float32")
        if self.input["dtype"] == np.uint8:  # scale and zero point may encode the network's normalization
            return np.clip(np.round(image), 0, 255).astype("uint8")
        scale, zero_point = self.input["quantization"]
        limits = np.iinfo(self.input["dtype"])
        return np.clip(np.round(image / scale + zero_point), limits.min, limits.max).astype(self.input["dtype"])

    @abstractmethod
    def run(self, batch: np.ndarray) -> list[np.ndarray]:
        """Run one image of shape `(1, height, width, channels)` in the file's input type and return the raw outputs.

        Raises:
            CannotRunError: LiteRT fails on it.
        """

    def run_each(self, batches: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
        """Run images one after the other, as `run`."""
        return map(self.run, batches)

    def predict(self, images: ImageArray) -> np.ndarray:
        """Compute the outputs for images of shape `(N, height, width, channels)`, values 0..255.

        Returns:
            A `float32` array of shape `(N, classes)` or `(N, height, width, classes)`; of shape `(N, size)` if the
            file has several outputs, which are joined, see `export.outputs`.
        """
        if images.shape[1:] != self.input_shape[1:]:
            raise UserError(f"The model takes images of {self.input_shape[1:]}, got {images.shape[1:]}.")
        rows = self.run_each(self.quantized_input(image)[None] for image in images)
        found = [np.concatenate(each) for each in zip(*rows, strict=True)]
        return joined([_as_floats(outputs, port) for outputs, port in zip(found, self.outputs, strict=True)])


def joined(outputs: Sequence[np.ndarray]) -> np.ndarray:
    """Join what several outputs give, arrays of shape `(N, ...)`, to one row per image; a single one is unchanged."""
    if len(outputs) == 1:
        return outputs[0]
    return np.concatenate([output.reshape(len(output), -1) for output in outputs], axis=1)


def _as_floats(outputs: np.ndarray, port: dict[str, Any]) -> np.ndarray:
    if np.issubdtype(port["dtype"], np.integer):
        scale, zero_point = port["quantization"]
        return (outputs.astype("float32") - zero_point) * (scale or 1)  # without a scale: plain integers
    return outputs.astype("float32", copy=False)


class TFLiteModel(ImageModel):
    """A `.tflite` file loaded in this process. Use it for files that this process has made.

    A damaged file can abort the process; `isolated.IsolatedModel` runs a file in another one.

    Args:
        source: Path of a file, or its bytes.
        threads: Int, number of interpreter threads.
        name: String, the file's name in messages; by default its path.

    Raises:
        UserError: The file is missing, is not a `.tflite` file, is damaged, has other inputs or outputs, or
            needs operators that LiteRT does not have.
    """

    def __init__(self, source: str | Path | bytes, threads: int = 1, *, name: str | None = None):
        content = content_of(source)
        name = name or ("The converted model" if isinstance(source, bytes) else name_of(source))
        checked(content, name)
        try:
            self._interpreter = open_interpreter(content, threads)
        except (ValueError, RuntimeError) as error:
            raise CannotRunError(f"{name} cannot be run by LiteRT: {first_line(error)}") from None
        super().__init__(name, self._interpreter.get_input_details(), self._interpreter.get_output_details())
        self._content = content  # the interpreter reads from these bytes: keep them alive

    def run(self, batch: np.ndarray) -> list[np.ndarray]:  # noqa: D102  as in the base class
        try:
            self._interpreter.set_tensor(self.input["index"], batch)
            self._interpreter.invoke()
            found = [self._interpreter.get_tensor(port["index"]) for port in self.outputs]
        except (ValueError, RuntimeError) as error:
            raise CannotRunError(f"{self.name} cannot be run by LiteRT: {first_line(error)}") from None
        for output, shape in zip(found, self.output_shapes, strict=True):
            if output.shape != shape:
                raise CannotRunError(f"{self.name} gives outputs of shape {output.shape}, not {shape}.")
        return found

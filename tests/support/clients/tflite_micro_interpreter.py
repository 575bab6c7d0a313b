"""TFLite Micro as a client; see `client_contract`. `ARENA` is the size of its arena in bytes."""

from __future__ import annotations

import os

from client_contract import as_input, serve
from tflite_micro import runtime


def open_file(path: str):
    """Run the file in an arena of a given size."""
    interpreter = runtime.Interpreter.from_file(path, arena_size=int(os.environ.get("ARENA", 64_000_000)))
    taken = interpreter.get_input_details(0)["dtype"]

    def classify(image):
        interpreter.set_input(as_input(image, taken.__name__), 0)
        interpreter.invoke()
        return interpreter.get_output(0)

    return classify, {}


if __name__ == "__main__":
    serve(open_file)

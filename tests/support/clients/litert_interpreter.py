"""LiteRT's Interpreter as a client; see `client_contract`. `KERNELS=builtin` turns XNNPACK off."""

from __future__ import annotations

import os

from ai_edge_litert.interpreter import Interpreter, OpResolverType
from client_contract import as_input, serve

KERNELS = {
    "xnnpack": OpResolverType.AUTO,
    "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": OpResolverType.BUILTIN_REF,
}


def open_file(path: str):
    """Run the file through its signature's tensors, on one thread."""
    kernels = KERNELS[os.environ.get("KERNELS", "xnnpack")]
    interpreter = Interpreter(model_path=path, num_threads=1, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()

    def classify(image):
        interpreter.set_tensor(taken["index"], as_input(image, taken["dtype"].__name__))
        interpreter.invoke()
        return interpreter.get_tensor(given["index"])

    return classify, {}


if __name__ == "__main__":
    serve(open_file)

"""LiteRT's CompiledModel as a client; see `client_contract`. `ACCELERATOR` is `cpu`, or `gpu` without the CPU."""

from __future__ import annotations

import os

import numpy as np
from ai_edge_litert.compiled_model import CompiledModel
from ai_edge_litert.hardware_accelerator import HardwareAccelerator
from client_contract import as_input, serve


def open_file(path: str):
    """Run the file's only signature."""
    wanted = HardwareAccelerator[os.environ.get("ACCELERATOR", "cpu").upper()]
    model = CompiledModel.from_file(path, hardware_accel=wanted)
    (key, ports), *_ = model.get_signature_list().items()
    (name,), (scores,) = ports["inputs"], ports["outputs"]
    taken, given = model.get_input_tensor_details(key)[name], model.get_output_tensor_details(key)[scores]
    (reads,), (writes,) = model.create_input_buffers(0), model.create_output_buffers(0)

    def classify(image):
        reads.write(as_input(image, str(np.dtype(taken["dtype"]))))
        model.run_by_index(0, [reads], [writes])
        return writes.read(int(np.prod(given["shape"])), np.float32)

    return classify, {"accelerated": model.is_fully_accelerated()}


if __name__ == "__main__":
    serve(open_file)

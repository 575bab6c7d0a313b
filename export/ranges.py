"""The range of every tensor, and where int8 takes it from: a calibrated float model, read and edited as data.

The converter's calibration keeps the least and the greatest value that ever occurred. One odd picture then sets the
step of a whole tensor. Here ranges can also cover the bulk of the values and let the rest saturate.

LiteRT, its flatbuffer schema and numpy.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

_SAMPLES = 2000  # values kept of a tensor and picture

Ranges = Mapping[int, tuple[float, float]]


def percentile_ranges(content: bytes, pictures: np.ndarray, share: float) -> dict[int, tuple[float, float]]:
    """For every activation the range that holds a share of its values; 0 always lies inside.

    Args:
        content: A calibrated float model.
        pictures: Array of shape `(N, height, width, channels)`.
        share: Float in (0, 1), the rest being split between both ends.

    Returns:
        Tensor index -> `(low, high)`.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    from keras_effnet.quiet import captured_output

    with captured_output():
        interpreter = Interpreter(
            model_content=content,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        interpreter.allocate_tensors()
    (image,) = interpreter.get_input_details()
    outputs = {int(index) for operator in interpreter._get_ops_details() for index in operator["outputs"]}
    rng = np.random.default_rng(0)
    seen: dict[int, list[np.ndarray]] = {index: [] for index in outputs}
    for picture in pictures:
        interpreter.set_tensor(image["index"], picture[None])
        interpreter.invoke()
        for index, values in seen.items():
            value = interpreter.get_tensor(index).ravel()
            values.append(value if value.size <= _SAMPLES else value[rng.integers(value.size, size=_SAMPLES)])
    tail = (1 - share) / 2
    ranges = {}
    for index, values in seen.items():
        low, high = np.quantile(np.concatenate(values), (tail, 1 - tail))
        ranges[index] = min(float(low), 0.0), max(float(high), 0.0)
    return ranges


def scaled_swish_ranges(content: bytes, lows: Mapping[bytes, float], logistic: tuple[float, float]) -> Ranges:
    """Ranges around each `u * sigmoid(s * u)`: u in `[low, 1]`, s * u where a sigmoid is not yet flat.

    Args:
        content: A calibrated float model.
        lows: Bytes of the constant s -> low. The constant tells which swish an operator belongs to.
        logistic: `(low, high)` of s * u.

    Returns:
        Tensor index -> `(low, high)`.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    ranges = {}
    for operator in graph.operators:
        constants = [i for i in operator.inputs if model.buffers[graph.tensors[i].buffer].data is not None]
        if len(operator.inputs) != 2 or len(constants) != 1:
            continue
        low = lows.get(bytes(model.buffers[graph.tensors[constants[0]].buffer].data))
        if low is not None:
            (u,) = set(operator.inputs) - set(constants)
            ranges[int(u)], ranges[int(operator.outputs[0])] = (low, 1.0), logistic
    return ranges


def with_ranges(content: bytes, ranges: Ranges) -> bytes:
    """The calibrated model with some of its ranges replaced."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for index, (low, high) in ranges.items():
        quantization = model.subgraphs[0].tensors[index].quantization
        if quantization is not None and quantization.min is not None:
            quantization.min, quantization.max = np.float32([low]), np.float32([high])
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())

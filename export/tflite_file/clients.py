"""Expected support of a file by mobile, web and microcontroller runtimes: a table of rules over operators and types.

Nothing is run, so every verdict is an expectation. It covers types and operators only; compare the file's size and
arena with a device's memory separately. `CLIENTS` names the source of each runtime's rules. Pure Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from keras_effnet.export.tflite_file.graph import FLOATS, QUANTIZED, Graph, Operator
from keras_effnet.export.tflite_file.metadata import ENTRY, has_normalization

ACCEPTS, IN_PART, REFUSES = "accepts", "in part", "refuses"
_NAMED = 4  # at most so many culprits are listed in a reason
_SEVERITY = (ACCEPTS, IN_PART, REFUSES)

CPU, GPU, NPU = "LiteRT CPU (XNNPACK)", "LiteRT GPU delegate", "Edge TPU, NNAPI"
WEB, MEDIAPIPE, MICRO = "LiteRT.js", "MediaPipe ImageClassifier", "TFLite Micro"

CLIENTS = {
    CPU: "Every exported file is run on it. Quantized operators: tensorflow/lite/delegates/xnnpack/README.md.",
    GPU: "Operators and int16: tensorflow/lite/tools/versioning/gpu_compatibility.cc. "
    "int8 weights with float activations: table of hardware in "
    "tensorflow.org/lite/performance/post_training_quantization.",
    NPU: "Requirements of the Edge TPU, the strictest published: coral.ai/docs/edgetpu/models-intro.",
    WEB: "ai.google.dev/edge/litert/web/get_started for shapes; element types as in its first releases, which were "
    "observed to refuse int8 input.",
    MEDIAPIPE: "ai.google.dev/edge/api/mediapipe/python/mp/tasks/vision/ImageClassifier, table of tensors.",
    MICRO: "github.com/tensorflow/tflite-micro: micro_mutable_op_resolver.h, and issues 757 (int8 weights with "
    "float activations), 2587 (float16) and 344 (16x8).",
}


def _set(names: str) -> frozenset[str]:
    return frozenset(names.split())


GPU_OPERATORS = _set(
    """
    ABS ADD ADD_N ATAN2 AVERAGE_POOL_2D BATCH_MATMUL CAST CEIL CONCATENATION CONV_2D COS CUMSUM DENSIFY
    DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE DIV DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL EXP FLOOR
    FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER GELU GREATER GREATER_EQUAL HARD_SWISH LEAKY_RELU LESS LESS_EQUAL LOG
    LOGICAL_AND LOGISTIC LSTM MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL ONE_HOT PACK PAD PADV2
    POW PRELU QUANTIZE REDUCE_MAX REDUCE_MIN REDUCE_PROD RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR
    RESIZE_NEAREST_NEIGHBOR RSQRT SELECT SELECT_V2 SIGN SIN SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE
    SQUARED_DIFFERENCE STABLEHLO_CLAMP STRIDED_SLICE SUB SUM TANH TILE TRANSPOSE TRANSPOSE_CONV
    """
)
NPU_OPERATORS = _set(
    """
    ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXPAND_DIMS FULLY_CONNECTED L2_NORMALIZATION
    LOGISTIC LSTM MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL PACK PAD PRELU QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6
    RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT SLICE SOFTMAX SPACE_TO_DEPTH SPLIT
    SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM TANH TRANSPOSE TRANSPOSE_CONV
    """
)
MICRO_OPERATORS = _set(
    """
    ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND BROADCAST_ARGS
    BROADCAST_TO CALL_ONCE CAST CEIL CONCATENATION CONV_2D COS CUMSUM DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE
    DIV ELU EMBEDDING_LOOKUP EQUAL EXP EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER GATHER_ND
    GREATER GREATER_EQUAL HARD_SWISH IF L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND
    LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL PACK
    PAD PADV2 PRELU QUANTIZE READ_VARIABLE REDUCE_MAX REDUCE_MIN RELU RELU6 RESHAPE RESIZE_BILINEAR
    RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT SELECT_V2 SHAPE SIN SLICE SOFTMAX SPACE_TO_BATCH_ND
    SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM SVDF TANH TRANSPOSE
    TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK VAR_HANDLE WHILE ZEROS_LIKE
    """
)

Culprits = Callable[[Graph], list[str]]


class Rule(NamedTuple):
    """A condition that limits the verdict of a client to `verdict` if `culprits` finds any in a file."""

    client: str
    verdict: str
    culprits: Culprits
    reason: str


@dataclass(frozen=True)
class Verdict:
    """Expected support of a file by one client.

    Args:
        client: String.
        expected: `"accepts"`; `"in part"`: the remaining operators fall back to the CPU; or `"refuses"`.
        reasons: Tuple of strings, the reasons for that verdict.
    """

    client: str
    expected: str
    reasons: tuple[str, ...] = ()


# --- conditions: functions from a graph to the names of its culprits, and factories of such functions


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _everything(graph: Graph) -> tuple[Operator, ...]:
    return graph.steps + graph.called


def foreign_operators(graph: Graph) -> list[str]:
    """TensorFlow (Flex) and custom operators: only builtin names are all upper-case."""
    return _unique(one.name for one in _everything(graph) if one.name != one.name.upper())


def outside(supported: frozenset[str]) -> Culprits:
    """Builtin operators not in `supported`; foreign operators have their own rule."""

    def find(graph: Graph) -> list[str]:
        return _unique(
            one.name for one in _everything(graph) if one.name == one.name.upper() and one.name not in supported
        )

    return find


def computing_in(*dtypes: str) -> Culprits:
    """Operators with an output activation of one of the dtypes."""
    return lambda graph: _unique(one.name for one in graph.steps if graph.activations(one.outputs, frozenset(dtypes)))


def hybrid_operators(graph: Graph) -> list[str]:
    """Operators with float activations and integer weights (dynamic-range quantization)."""

    def hybrid(one: Operator) -> bool:
        weights = [graph.tensors[i] for i in one.inputs if i in graph.constants]
        return bool(graph.activations(one.inputs, FLOATS)) and any(tensor.dtype in QUANTIZED for tensor in weights)

    return _unique(one.name for one in graph.steps if hybrid(one))


def float_file(graph: Graph) -> list[str]:
    """The precision of the file if no operator computes in integers."""
    return [] if graph.integer_dtypes else [graph.precision]


def half_weights(graph: Graph) -> list[str]:
    """float16 weights, as a culprit."""
    return ["float16 weights"] if graph.precision == "float16" else []


def dynamic_tensors(graph: Graph) -> list[str]:
    """The first tensor without a fixed shape; inputs and outputs are checked first."""
    ends = [graph.tensors[index] for index in graph.inputs + graph.outputs]
    found = [tensor for tensor in (*ends, *graph.tensors) if -1 in tensor.signature]
    return [f"{tensor.name} {list(tensor.signature)}" for tensor in found[:1]]


def dtype_outside(side: Literal["inputs", "outputs"], *dtypes: str) -> Culprits:
    """Inputs or outputs whose dtype is not in `dtypes`."""

    def find(graph: Graph) -> list[str]:
        found = [graph.tensors[index].dtype for index in (graph.inputs if side == "inputs" else graph.outputs)]
        return [dtype for dtype in found if dtype not in dtypes]

    return find


def not_one_rgb_image(graph: Graph) -> list[str]:
    """Input shapes that are not a single RGB image."""
    ports = [graph.tensors[index].signature for index in graph.inputs]
    right = len(ports) == 1 and len(ports[0]) == 4 and ports[0][0] in (1, -1) and ports[0][3] == 3
    return [] if right else [", ".join(str(list(shape)) for shape in ports)]


def several_images(graph: Graph) -> list[str]:
    """Activation shapes with more than one image."""
    activations = (i for one in graph.steps for i in one.outputs if i not in graph.constants)
    shapes = (graph.tensors[index].shape for index in activations)
    return _unique(str(list(shape)) for shape in shapes if len(shape) > 3 and max(shape[:-3]) > 1)[:2]


def unlike_scores(graph: Graph) -> list[str]:
    """Output shapes that are not class scores."""
    shapes = [graph.tensors[index].shape for index in graph.outputs]
    return [] if any(len(shape) in (2, 4) for shape in shapes) else [", ".join(str(list(shape)) for shape in shapes)]


def float_input_without_normalisation(graph: Graph) -> list[str]:
    """float32, where the metadata lacks NormalizationOptions."""
    takes_float = any(graph.tensors[index].dtype == "float32" for index in graph.inputs)
    return [] if not takes_float or has_normalization(graph.metadata.get(ENTRY)) else ["float32"]


# --- the table

_NEEDS_TENSORFLOW = "{} are not builtin operators and must be linked into the app"
_NOT_FIXED = "{} is not fixed"

RULES = (
    #    client     verdict  culprits                              reason
    Rule(CPU, REFUSES, foreign_operators, _NEEDS_TENSORFLOW),
    Rule(CPU, IN_PART, computing_in("int16"), "{} in int16 use reference kernels, many times slower"),
    Rule(GPU, REFUSES, foreign_operators, _NEEDS_TENSORFLOW),
    Rule(GPU, REFUSES, computing_in("int16"), "{} compute in int16; only float and 8-bit integers are supported"),
    Rule(GPU, IN_PART, outside(GPU_OPERATORS), "{} stay on the CPU, with a copy in each direction"),
    Rule(GPU, IN_PART, hybrid_operators, "{} have int8 weights and float activations, documented for CPUs only"),
    Rule(NPU, REFUSES, foreign_operators, _NEEDS_TENSORFLOW),
    Rule(NPU, REFUSES, float_file, "{}: only 8-bit integer operators are supported"),
    Rule(NPU, REFUSES, computing_in("int16"), "{} compute in int16, not in 8 bits"),
    Rule(NPU, REFUSES, dynamic_tensors, _NOT_FIXED + " when the file is compiled"),
    Rule(NPU, IN_PART, several_images, "{}: in tensors of more than three dimensions the outer ones must be 1"),
    Rule(NPU, IN_PART, computing_in(*FLOATS), "{} compute in float: they and all operators after them stay on the CPU"),
    Rule(NPU, IN_PART, outside(NPU_OPERATORS | {"DEQUANTIZE"}), "{} and all operators after them stay on the CPU"),
    Rule(WEB, REFUSES, foreign_operators, _NEEDS_TENSORFLOW),
    Rule(WEB, REFUSES, dynamic_tensors, _NOT_FIXED + ", including the batch"),
    Rule(
        WEB, REFUSES, dtype_outside("inputs", "float32", "int32", "uint8"), "input is {}, not float32, int32 or uint8"
    ),
    Rule(
        WEB, REFUSES, dtype_outside("outputs", "float32", "int32", "uint8"), "output is {}, not float32, int32 or uint8"
    ),
    Rule(MEDIAPIPE, REFUSES, foreign_operators, _NEEDS_TENSORFLOW),
    Rule(MEDIAPIPE, REFUSES, dtype_outside("inputs", "float32", "uint8"), "input is {}, neither float32 nor uint8"),
    Rule(MEDIAPIPE, REFUSES, dtype_outside("outputs", "float32", "uint8"), "output is {}, neither float32 nor uint8"),
    Rule(MEDIAPIPE, REFUSES, not_one_rgb_image, "input {} is not one RGB image, [1, height, width, 3]"),
    Rule(MEDIAPIPE, REFUSES, unlike_scores, "output {} is neither [1, N] nor [1, 1, 1, N]"),
    Rule(
        MEDIAPIPE, REFUSES, float_input_without_normalisation, "{} input without NormalizationOptions in the metadata"
    ),
    Rule(MICRO, REFUSES, foreign_operators, _NEEDS_TENSORFLOW),
    Rule(MICRO, REFUSES, hybrid_operators, "{} have int8 weights and float activations"),
    Rule(MICRO, REFUSES, half_weights, "{}: its DEQUANTIZE supports integer inputs only"),
    Rule(MICRO, REFUSES, outside(MICRO_OPERATORS), "{} have no kernel"),
    Rule(MICRO, IN_PART, computing_in("int16"), "{} in int16: only some operators have int16 kernels"),
)


def _listed(culprits: list[str]) -> str:
    more = f" and {len(culprits) - _NAMED} more" if len(culprits) > _NAMED else ""
    return ", ".join(culprits[:_NAMED]) + more


def judge(graph: Graph) -> tuple[Verdict, ...]:
    """Return the expected verdict of each client on a file."""
    verdicts = []
    for client in CLIENTS:
        found = [(rule, rule.culprits(graph)) for rule in RULES if rule.client == client]
        objections = [(rule.verdict, rule.reason.format(_listed(culprits))) for rule, culprits in found if culprits]
        worst = max((verdict for verdict, _ in objections), key=_SEVERITY.index, default=ACCEPTS)
        verdicts.append(Verdict(client, worst, tuple(reason for verdict, reason in objections if verdict == worst)))
    return tuple(verdicts)

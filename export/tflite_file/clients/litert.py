"""Rules of LiteRT on CPUs and GPUs, of MediaPipe, and of TFLite Micro: all of them tried. Pure Python."""

from keras_effnet.export.tflite_file.clients.conditions import (
    computing_in,
    dtype_outside,
    float_input_without_normalisation,
    foreign_operators,
    half_weights,
    hybrid_operators,
    not_one_rgb_image,
    outside,
    unlike_scores,
    unpacked_weights,
)
from keras_effnet.export.tflite_file.clients.operators import GPU_OPERATORS, MICRO_OPERATORS
from keras_effnet.export.tflite_file.clients.rule import ACCEPTS, IN_PART, REFUSES, Client, rules_of
from keras_effnet.export.tflite_file.clients.runtimes import (
    BYTES,
    CPU,
    EXPORT,
    FLOAT,
    FLOAT32,
    GPU,
    INT8,
    INT8_OR_FLOAT,
    MEDIAPIPE,
    MICRO,
    NEEDS_TENSORFLOW,
)

LITERT_CPU = Client(
    CPU,
    "ai-edge-litert 2.3.0, Interpreter and CompiledModel, x86-64 and ARM64 (qemu-user 10.0), 2026-11",
    "quantized operators: tflite/delegates/xnnpack/README.md",
)
LITERT_GPU = Client(
    GPU,
    "ai-edge-litert 2.3.0, CompiledModel with its WebGPU accelerator on SwiftShader (a GPU in software), 2026-11",
    "operators: tflite/tools/versioning/gpu_compatibility.cc",
)
MEDIAPIPE_TASKS = Client(
    MEDIAPIPE,
    "mediapipe 1.2.3, Python on x86-64, 2026-11",
    "ai.google.dev/edge/api/mediapipe/python/mp/tasks/vision/ImageClassifier, table of tensors",
)
TFLITE_MICRO = Client(
    MICRO,
    "tflite-micro 0.dev20261023182759, Python on x86-64, 2026-11",
    "micro_mutable_op_resolver.h and issues 757, 2587 of github.com/tensorflow/tflite-micro",
)
CLIENTS = (LITERT_CPU, LITERT_GPU, MEDIAPIPE_TASKS, TFLITE_MICRO)

RULES = (
    *rules_of(
        LITERT_CPU,
        (REFUSES, foreign_operators, NEEDS_TENSORFLOW, EXPORT),
        (
            IN_PART,
            computing_in("int16"),
            "int16 activations are computed by reference kernels, not by XNNPACK, 20 to 30 times slower",
            INT8,
        ),
        (
            ACCEPTS,
            hybrid_operators,
            "int8 weights with float activations are slower than float32: XNNPACK computes only some operators, and "
            "splits Lite0 into 15 parts",
            INT8,
        ),
    ),
    *rules_of(
        LITERT_GPU,
        (REFUSES, foreign_operators, NEEDS_TENSORFLOW, EXPORT),
        (
            REFUSES,
            computing_in("int16"),
            "int16 activations: a GPU alone fails or crashes, a GPU with the CPU gives wrong scores (16 dB)",
            INT8_OR_FLOAT,
        ),
        (REFUSES, unpacked_weights, "{}: a GPU alone lacks that version of DEQUANTIZE; the CPU can help out", FLOAT),
        (IN_PART, outside(GPU_OPERATORS), "{} stay on the CPU, with a copy in each direction"),
    ),
    *rules_of(
        MEDIAPIPE_TASKS,
        (REFUSES, foreign_operators, NEEDS_TENSORFLOW, EXPORT),
        (REFUSES, dtype_outside("inputs", "float32", "uint8"), "input is {}, neither float32 nor uint8", BYTES),
        (REFUSES, dtype_outside("outputs", "float32", "uint8"), "output is {}, neither float32 nor uint8", EXPORT),
        (REFUSES, not_one_rgb_image, "input {} is not one RGB image, [1, height, width, 3]", EXPORT),
        (REFUSES, unlike_scores, "output {} is neither [1, N] nor [1, 1, 1, N]", EXPORT),
        (
            REFUSES,
            float_input_without_normalisation,
            "{} input without NormalizationOptions in the metadata",
            EXPORT,
        ),
    ),
    *rules_of(
        TFLITE_MICRO,
        (REFUSES, foreign_operators, NEEDS_TENSORFLOW, EXPORT),
        (REFUSES, hybrid_operators, "{} have int8 weights and float activations", INT8),
        (REFUSES, half_weights, "{}: its DEQUANTIZE supports integer inputs only", f"{FLOAT32} or int8"),
        (REFUSES, unpacked_weights, "{}: it uses the first channel's scale for all, so its scores are wrong", INT8),
        (REFUSES, outside(MICRO_OPERATORS), "{} have no kernel", "another activation or head"),
    ),
)

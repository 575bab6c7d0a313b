"""Rules of browsers. Pure Python."""

from keras_effnet.export.tflite_file.clients.conditions import (
    computing_in,
    dtype_outside,
    dynamic_tensors,
    foreign_operators,
    needing_runtime_above,
    unpacked_weights,
)
from keras_effnet.export.tflite_file.clients.rule import IN_PART, REFUSES, Client, rules_of
from keras_effnet.export.tflite_file.clients.runtimes import (
    BYTES,
    EXPORT,
    FLOAT,
    INT8_OR_FLOAT,
    NEEDS_TENSORFLOW,
    NOT_FIXED,
    TFJS,
    WASM,
    WEBGPU,
)

_SHAPES = "ai.google.dev/edge/litert/web/get_started"
LITERT_JS = Client(WASM, "LiteRT.js 2.5.3 in Chromium 156, 2026-11", _SHAPES)
LITERT_WEBGPU = Client(WEBGPU, "LiteRT.js 2.5.3 in Chromium 150, and in 156 on a software adapter, 2026-11", _SHAPES)
TFJS_TFLITE = Client(TFJS, "@tensorflow/tfjs-tflite 0.0.1-alpha.10, its last version, in Chromium 156, 2026-11")
CLIENTS = (LITERT_JS, LITERT_WEBGPU, TFJS_TFLITE)

_TAKEN = ("float32", "int32", "uint8")
_ENDS = (
    (REFUSES, foreign_operators, NEEDS_TENSORFLOW, EXPORT),
    (REFUSES, dynamic_tensors, NOT_FIXED + ", including the batch", EXPORT),
    (REFUSES, dtype_outside("inputs", *_TAKEN), "input is {}, not float32, int32 or uint8", BYTES),
    (REFUSES, dtype_outside("outputs", *_TAKEN), "output is {}, not float32, int32 or uint8", EXPORT),
)

RULES = (
    *rules_of(LITERT_JS, *_ENDS),
    *rules_of(
        LITERT_WEBGPU,
        *_ENDS,
        (
            REFUSES,
            computing_in("int16"),
            "{} compute in int16: hardly any is delegated, and the scores are wrong (12 to 28 dB)",
            INT8_OR_FLOAT,
        ),
        (IN_PART, unpacked_weights, "{}: that and the operators next to it run on WebAssembly", FLOAT),
    ),
    *rules_of(
        TFJS_TFLITE,
        *_ENDS,
        (
            REFUSES,
            needing_runtime_above("2.4.0"),
            "operators of TensorFlow Lite {}; those of 2.4.0 run, and those of 2.17.0 do not",
            INT8_OR_FLOAT,
        ),
    ),
)

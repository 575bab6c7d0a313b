"""Rules of the delegates of phones and of the Edge TPU: by documents, on devices that were not at hand. Pure Python."""

from keras_effnet.export.tflite_file.clients.conditions import (
    any_file,
    computing_in,
    dynamic_tensors,
    float_file,
    foreign_operators,
    hybrid_operators,
    integer_file,
    outside,
    quantizing_input,
    several_images,
    unpacked_weights,
)
from keras_effnet.export.tflite_file.clients.operators import CORE_ML_OPERATORS, EDGE_TPU_OPERATORS, GPU_OPERATORS
from keras_effnet.export.tflite_file.clients.rule import ACCEPTS, IN_PART, REFUSES, Client, rules_of
from keras_effnet.export.tflite_file.clients.runtimes import (
    BYTES,
    CORE_ML,
    EDGE_TPU,
    EXPORT,
    FLOAT,
    GPU_DELEGATE,
    INT8_OR_FLOAT,
    NEEDS_TENSORFLOW,
    NNAPI,
    NOT_FIXED,
)
from keras_effnet.export.tflite_file.graph import FLOATS

OLD_GPU = Client(
    GPU_DELEGATE,
    documents="the delegate of the Interpreter: tflite/tools/versioning/gpu_compatibility.cc; table of hardware in "
    "tensorflow.org/lite/performance/post_training_quantization",
)
APPLE = Client(
    CORE_ML, documents="ai.google.dev/edge/litert/ios/coreml, and tflite/delegates/coreml/coreml_delegate.mm"
)
ANDROID = Client(
    NNAPI,
    documents="tflite/delegates/nnapi/nnapi_delegate.cc; deprecation: developer.android.com/ndk/guides/neuralnetworks",
)
CORAL = Client(EDGE_TPU, documents="coral.ai/docs/edgetpu/models-intro")
CLIENTS = (OLD_GPU, APPLE, ANDROID, CORAL)

RULES = (
    *rules_of(
        OLD_GPU,
        (REFUSES, foreign_operators, NEEDS_TENSORFLOW, EXPORT),
        (
            REFUSES,
            computing_in("int16"),
            "int16 activations; only float and 8-bit integers are supported",
            INT8_OR_FLOAT,
        ),
        (IN_PART, outside(GPU_OPERATORS), "{} stay on the CPU, with a copy in each direction"),
        (IN_PART, hybrid_operators, "int8 weights with float activations are documented for CPUs only", FLOAT),
        (IN_PART, unpacked_weights, "{}: its DEQUANTIZE ends at version 3, one scale for all channels", FLOAT),
    ),
    *rules_of(
        APPLE,
        (REFUSES, foreign_operators, NEEDS_TENSORFLOW, EXPORT),
        (
            REFUSES,
            integer_file,
            "integer activations; only operators in float are supported, the others stay on the CPU",
            FLOAT,
        ),
        (REFUSES, hybrid_operators, "int8 weights; only operators in float are supported", FLOAT),
        (REFUSES, unpacked_weights, "{}: weights must be constants in float32 or float16", FLOAT),
        (IN_PART, outside(CORE_ML_OPERATORS), "{} stay on the CPU"),
    ),
    *rules_of(
        ANDROID,
        (REFUSES, foreign_operators, NEEDS_TENSORFLOW, EXPORT),
        (
            REFUSES,
            computing_in("int16"),
            "int16 activations; only float and 8-bit integers are supported",
            INT8_OR_FLOAT,
        ),
        (
            IN_PART,
            hybrid_operators,
            "int8 weights with float activations: some operators stay on the CPU",
            INT8_OR_FLOAT,
        ),
        (IN_PART, unpacked_weights, "{}: weights must be constants, so convolutions stay on the CPU", FLOAT),
        (ACCEPTS, any_file, "deprecated since Android 15: choose LiteRT GPU or an NPU's own delegate"),
    ),
    *rules_of(
        CORAL,
        (REFUSES, foreign_operators, NEEDS_TENSORFLOW, EXPORT),
        (REFUSES, float_file, "float activations; only 8-bit integers are supported", BYTES),
        (REFUSES, computing_in("int16"), "int16 activations; only 8-bit integers are supported", BYTES),
        (REFUSES, dynamic_tensors, NOT_FIXED + " when the file is compiled", EXPORT),
        (IN_PART, several_images, "{}: in tensors of more than three dimensions the outer ones must be 1", EXPORT),
        (IN_PART, computing_in(*FLOATS), "{} compute in float: they and all operators after them stay on the CPU"),
        (
            IN_PART,
            outside(EDGE_TPU_OPERATORS | {"DEQUANTIZE"}),
            "{} and all operators after them stay on the CPU",
        ),
        (IN_PART, quantizing_input, "{} of the input may stay on the CPU"),
    ),
)

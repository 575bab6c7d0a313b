from .judgement import CLIENTS, RULES, Verdict, judge
from .operators import CORE_ML_OPERATORS, EDGE_TPU_OPERATORS, GPU_OPERATORS, MICRO_OPERATORS
from .rule import ACCEPTS, IN_PART, REFUSES, Client, Rule
from .runtimes import (
    CORE_ML,
    CPU,
    EDGE_TPU,
    GPU,
    GPU_DELEGATE,
    MEDIAPIPE,
    MICRO,
    NNAPI,
    TFJS,
    WASM,
    WEBGPU,
)

__all__ = [
    "ACCEPTS",
    "CLIENTS",
    "CORE_ML",
    "CORE_ML_OPERATORS",
    "CPU",
    "EDGE_TPU",
    "EDGE_TPU_OPERATORS",
    "GPU",
    "GPU_DELEGATE",
    "GPU_OPERATORS",
    "IN_PART",
    "MEDIAPIPE",
    "MICRO",
    "MICRO_OPERATORS",
    "NNAPI",
    "REFUSES",
    "RULES",
    "TFJS",
    "WASM",
    "WEBGPU",
    "Client",
    "Rule",
    "Verdict",
    "judge",
]

from . import (
    architecture,
    artifacts,
    complexity,
    datasets,
    evaluation,
    export,
    pipeline,
    preprocessing,
    scaling,
    training,
    transfer,
)
from .architecture import ArchitectureSpec, StageSpec
from .baselines import architecture_spec, list_models
from .errors import UserError, VerificationError
from .models import (
    EfficientNet,
    EfficientNetB0,
    EfficientNetB1,
    EfficientNetB2,
    EfficientNetB3,
    EfficientNetB4,
    EfficientNetB5,
    EfficientNetB6,
    EfficientNetB7,
    EfficientNetLite0,
    EfficientNetLite1,
    EfficientNetLite2,
    EfficientNetLite3,
    EfficientNetLite4,
)
from .preprocessing import ImageSpec, decode_predictions, preprocess_input
from .scaling import CompoundScaling, ScalingFactors, explain
from .weights import load_weights

__version__: str

__all__ = [
    "ArchitectureSpec",
    "CompoundScaling",
    "EfficientNet",
    "EfficientNetB0",
    "EfficientNetB1",
    "EfficientNetB2",
    "EfficientNetB3",
    "EfficientNetB4",
    "EfficientNetB5",
    "EfficientNetB6",
    "EfficientNetB7",
    "EfficientNetLite0",
    "EfficientNetLite1",
    "EfficientNetLite2",
    "EfficientNetLite3",
    "EfficientNetLite4",
    "ImageSpec",
    "ScalingFactors",
    "StageSpec",
    "UserError",
    "VerificationError",
    "architecture",
    "architecture_spec",
    "artifacts",
    "complexity",
    "datasets",
    "decode_predictions",
    "evaluation",
    "explain",
    "export",
    "list_models",
    "load_weights",
    "pipeline",
    "preprocess_input",
    "preprocessing",
    "scaling",
    "training",
    "transfer",
]

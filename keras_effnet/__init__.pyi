from . import (
    architecture,
    artifacts,
    complexity,
    datasets,
    evaluation,
    export,
    models,
    pipeline,
    preprocessing,
    saving,
    scaling,
    training,
    transfer,
    weights,
)
from .architecture import ArchitectureSpec, StageSpec
from .baselines import architecture_spec
from .catalog import ModelInfo, list_models, model_info
from .errors import UserError, VerificationError
from .gradcam import Heatmap, grad_cam
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
    features,
)
from .preprocessing import ImageSpec, decode_predictions, preprocess_input
from .saving import load_model
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
    "Heatmap",
    "ImageSpec",
    "ModelInfo",
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
    "features",
    "grad_cam",
    "list_models",
    "load_model",
    "load_weights",
    "model_info",
    "models",
    "pipeline",
    "preprocess_input",
    "preprocessing",
    "saving",
    "scaling",
    "training",
    "transfer",
    "weights",
]

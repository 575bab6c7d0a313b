from . import (
    architecture,
    complexity,
    datasets,
    efficientnet,
    efficientnet_v2,
    evaluation,
    export,
    inference,
    models,
    pipeline,
    preprocessing,
    search,
    study,
    training,
    transfer,
    weights,
)
from .architecture.baselines import architecture_spec
from .architecture.scaling import CompoundScaling, ScalingFactors, explain
from .architecture.specs import ArchitectureSpec, StageSpec
from .errors import UserError, VerificationError
from .evaluation.gradcam import Heatmap, grad_cam
from .imagenet import decode_predictions
from .models.decoders import segmentation_model
from .models.efficientnet import (
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
from .models.efficientnet_v2 import (
    EfficientNetV2B0,
    EfficientNetV2B1,
    EfficientNetV2B2,
    EfficientNetV2B3,
    EfficientNetV2L,
    EfficientNetV2M,
    EfficientNetV2S,
    EfficientNetV2XL,
)
from .models.feature_maps import features
from .models.keras_applications import save_weights_for_keras_applications
from .models.listing import ModelInfo, list_models, model_info
from .models.saving import load_model
from .preprocessing import ImageSpec, preprocess_input
from .weights.loading import load_weights

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
    "EfficientNetV2B0",
    "EfficientNetV2B1",
    "EfficientNetV2B2",
    "EfficientNetV2B3",
    "EfficientNetV2L",
    "EfficientNetV2M",
    "EfficientNetV2S",
    "EfficientNetV2XL",
    "Heatmap",
    "ImageSpec",
    "ModelInfo",
    "ScalingFactors",
    "StageSpec",
    "UserError",
    "VerificationError",
    "architecture",
    "architecture_spec",
    "complexity",
    "datasets",
    "decode_predictions",
    "efficientnet",
    "efficientnet_v2",
    "evaluation",
    "explain",
    "export",
    "features",
    "grad_cam",
    "inference",
    "list_models",
    "load_model",
    "load_weights",
    "model_info",
    "models",
    "pipeline",
    "preprocess_input",
    "preprocessing",
    "save_weights_for_keras_applications",
    "search",
    "segmentation_model",
    "study",
    "training",
    "transfer",
    "weights",
]

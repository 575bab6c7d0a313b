from .gradcam import Heatmap, explainer, grad_cam
from .metrics import Evaluation, Reliability, evaluate

__all__ = [
    "Evaluation",
    "Heatmap",
    "Reliability",
    "evaluate",
    "explainer",
    "grad_cam",
]

from .gradcam import Heatmap, grad_cam
from .metrics import Evaluation, Reliability, evaluate

__all__ = [
    "Evaluation",
    "Heatmap",
    "Reliability",
    "evaluate",
    "grad_cam",
]

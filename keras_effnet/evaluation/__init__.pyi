from .gradcam import Heatmap, explainer, grad_cam
from .intervals import wilson_interval
from .metrics import Evaluation, Reliability, evaluate

__all__ = [
    "Evaluation",
    "Heatmap",
    "Reliability",
    "evaluate",
    "explainer",
    "grad_cam",
    "wilson_interval",
]

from .by_task.networks import Units, build_model, resolve_precision
from .loop import train
from .run import TrainConfig, TrainResult, fit_dataset, train_dataset
from .update_kernels import fused_updates

__all__ = [
    "TrainConfig",
    "TrainResult",
    "Units",
    "build_model",
    "fit_dataset",
    "fused_updates",
    "resolve_precision",
    "train",
    "train_dataset",
]

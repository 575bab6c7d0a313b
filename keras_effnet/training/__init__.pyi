from .by_task.networks import Units, build_model, resolve_precision
from .cpu_kernels.gradients import fused_gradients
from .cpu_kernels.updates import fused_updates
from .loop import train
from .run import TrainConfig, TrainResult, fit_dataset, train_dataset

__all__ = [
    "TrainConfig",
    "TrainResult",
    "Units",
    "build_model",
    "fit_dataset",
    "fused_gradients",
    "fused_updates",
    "resolve_precision",
    "train",
    "train_dataset",
]

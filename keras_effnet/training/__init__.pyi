from .loop import train
from .run import TrainConfig, TrainResult, build_model, fit_dataset, resolve_precision, train_dataset

__all__ = [
    "TrainConfig",
    "TrainResult",
    "build_model",
    "fit_dataset",
    "resolve_precision",
    "train",
    "train_dataset",
]

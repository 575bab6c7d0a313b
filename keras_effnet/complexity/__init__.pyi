from .counting import Complexity, Cost, count
from .memory import TrainingMemory, training_bytes

__all__ = [
    "Complexity",
    "Cost",
    "TrainingMemory",
    "count",
    "training_bytes",
]

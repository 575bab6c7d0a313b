from .recipes import RECIPES, recipe_config
from .train_config import TrainConfig

__all__ = [
    "RECIPES",
    "TrainConfig",
    "recipe_config",
]

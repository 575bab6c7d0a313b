from .catalogue import ModelCard, card, load, model_path, names

__all__ = [
    "ModelCard",
    "card",
    "load",
    "model_path",
    "names",
]

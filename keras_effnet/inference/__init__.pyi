from .artifact import Artifact, load, resolve

__all__ = [
    "Artifact",
    "load",
    "resolve",
]

from .artifacts import Artifact, load, resolve

__all__ = [
    "Artifact",
    "load",
    "resolve",
]

from .augmentation import Augmentation
from .batches import image_pipeline
from .geometry import evaluation_image

__all__ = [
    "Augmentation",
    "evaluation_image",
    "image_pipeline",
]

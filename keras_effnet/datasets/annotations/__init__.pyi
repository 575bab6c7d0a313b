from .boxed_images import BoxDataset, BoxedImage, BoxProblem
from .coco import read_coco
from .model_maker import read_model_maker
from .scenes import digit_scenes
from .voc import read_voc
from .yolo import read_yolo

__all__ = [
    "BoxDataset",
    "BoxProblem",
    "BoxedImage",
    "digit_scenes",
    "read_coco",
    "read_model_maker",
    "read_voc",
    "read_yolo",
]

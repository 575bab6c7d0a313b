"""Images with boxes: readers of COCO, Pascal VOC, YOLO and Model Maker files, and embedded scenes. numpy and Pillow."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

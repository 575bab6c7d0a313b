from .anchors import anchor_boxes

__all__ = [
    "anchor_boxes",
]

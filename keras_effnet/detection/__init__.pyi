from .anchor_findings import anchor_check, input_boxes
from .anchors import anchor_boxes
from .boxes import decode, encode, overlaps
from .fitting import AnchorFit, anchor_fit, proposed_anchors
from .losses import box_loss, detection_loss, focal_loss
from .precision import AveragePrecision, Truth, average_precision
from .suppression import Detections, detections
from .targets import TargetAssigner

__all__ = [
    "AnchorFit",
    "AveragePrecision",
    "Detections",
    "TargetAssigner",
    "Truth",
    "anchor_boxes",
    "anchor_check",
    "anchor_fit",
    "average_precision",
    "box_loss",
    "decode",
    "detection_loss",
    "detections",
    "encode",
    "focal_loss",
    "input_boxes",
    "overlaps",
    "proposed_anchors",
]

from .baselines import architecture_spec
from .detectors import DetectorSpec, detector_spec
from .explanations import explain
from .scaling import CompoundScaling, ScalingFactors
from .specs import ArchitectureSpec, StageSpec

__all__ = [
    "ArchitectureSpec",
    "CompoundScaling",
    "DetectorSpec",
    "ScalingFactors",
    "StageSpec",
    "architecture_spec",
    "detector_spec",
    "explain",
]

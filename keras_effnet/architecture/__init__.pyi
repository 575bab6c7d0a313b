from .baselines import architecture_spec
from .scaling import CompoundScaling, ScalingFactors, explain
from .specs import ArchitectureSpec, StageSpec

__all__ = [
    "ArchitectureSpec",
    "CompoundScaling",
    "ScalingFactors",
    "StageSpec",
    "architecture_spec",
    "explain",
]

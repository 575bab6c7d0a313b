"""List of the named networks, with cost and origin. Pure Python."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import filter as matching

from keras_effnet.architecture.baselines import SPECS, architecture_spec
from keras_effnet.architecture.scaling import PUBLISHED
from keras_effnet.architecture.specs import ArchitectureSpec, expand
from keras_effnet.complexity.counting import count
from keras_effnet.weights.pretrained import PRETRAINED

_TORCHVISION = "top-1 of torchvision's first ImageNet weights"
_RESNET = f"He et al., ResNet (CVPR 2016); {_TORCHVISION}"
_WIDE_RESNET = "Zagoruyko & Komodakis, Wide Residual Networks (BMVC 2016)"

_V2 = "Tan & Le, EfficientNetV2 (ICML 2021)"
_FAMILIES = {  # by the prefix of a name
    "b": "Tan & Le, EfficientNet (ICML 2019), table 2",
    "lite": "EfficientNet-Lite (TensorFlow TPU models, 2020)",
    "v2-b": f"{_V2}; top-1 of the authors' release",
}

# name -> (source, ImageNet top-1 in percent, one central crop)
_PUBLICATIONS: dict[str, tuple[str, float | None]] = {
    name: (_FAMILIES[name.rstrip("0123456789")], row.top1) for name, row in PUBLISHED.items()
} | {
    "v2-s": (f"{_V2}, table 7", 83.9),
    "v2-m": (f"{_V2}, table 7", 85.1),
    "v2-l": (f"{_V2}, table 7", 85.7),
    "v2-xl": (f"{_V2}, table 7; pretrained on ImageNet-21k", 87.3),
    "mobilenetv2": ("Sandler et al., MobileNetV2 (CVPR 2018), table 4", 72.0),
    "resnet18": (_RESNET, 69.758),
    "resnet34": (_RESNET, 73.314),
    "resnet50": (f"{_RESNET}; stride on the 3x3 (v1.5)", 76.13),
    "wide_resnet50": (f"{_WIDE_RESNET}, WRN-50-2; {_TORCHVISION}", 78.468),
    "wide_resnet28": (f"{_WIDE_RESNET}, WRN-28-1, for CIFAR", None),
}


@dataclass(frozen=True)
class ModelInfo:
    """Facts about a network that need no built model.

    Args:
        name: String, name for `architecture_spec`; for a modified spec, the spec's own name.
        image_size: Int, side of the default input in pixels.
        params: Int, trainable parameters.
        macs: Int, multiply-adds for one image of that size.
        activations: Int, output elements of convolutions and dense layers for one image.
        blocks: Int, number of blocks.
        top1: Float, published ImageNet top-1 accuracy in percent, or None.
        weights: String, origin of the weights that `weights="imagenet"` loads, or None.
        source: String, the publication, or None.
    """

    name: str
    image_size: int
    params: int
    macs: int
    activations: int
    blocks: int
    top1: float | None
    weights: str | None
    source: str | None


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """List the names that `architecture_spec`, the command line and `TrainConfig(model=...)` accept.

    Args:
        pattern: Shell-style pattern, such as `"resnet*"` or `"b[0-3]"`.
        pretrained: Bool, whether to list only networks with ImageNet weights.

    Returns:
        A list of names; empty if none match.

    Example:

    >>> list_models("*resnet50")
    ['resnet50', 'wide_resnet50']
    """
    return matching(PRETRAINED if pretrained else SPECS, str(pattern).lower())


def model_info(model: str | ArchitectureSpec, *, classes: int = 1000) -> ModelInfo:
    """Look up size, cost and origin of a network without building it.

    Args:
        model: One of `list_models()`, or any `ArchitectureSpec`.
        classes: Int, outputs of the classifier.

    Returns:
        A `ModelInfo`. A spec that differs from the published one has no top-1, weights and source.

    Raises:
        UserError: Unknown name.

    Example:

    >>> model_info("b4").top1
    82.9
    """
    spec = architecture_spec(model)
    name = next((known for known in SPECS if SPECS[known] == spec), None)
    source, top1 = _PUBLICATIONS[name] if name else (None, None)
    cost = count(spec, classes=classes)
    return ModelInfo(
        name=name or spec.name,
        image_size=spec.image_size,
        params=cost.params,
        macs=cost.macs,
        activations=cost.activations,
        blocks=len(expand(spec).blocks),
        top1=top1,
        weights=PRETRAINED[name].origin if name in PRETRAINED else None,
        source=source,
    )

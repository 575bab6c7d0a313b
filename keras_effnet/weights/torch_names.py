"""Tensor names of torch EfficientNets, as tables from our layers to theirs. Pure Python.

Three layouts: those of torchvision, timm and efficientnet_pytorch, which the Lite packages use. Only the first two have
EfficientNetV2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

TENSORFLOW, TORCH = ("same", 1e-3), ("symmetric", 1e-5)  # padding and batch normalization epsilon


@dataclass(frozen=True)
class TorchLayout:
    """Tensor names of one library.

    Args:
        library: String, for messages.
        marker: Name of a tensor that only this layout has.
        outer: Our layer name -> their prefix, outside of blocks.
        expanded: Part of our layer name after `block2b_` -> their prefix, in blocks with expansion.
        plain: The same for blocks without expansion.
        fused: The same for Fused-MBConv with expansion.
        fused_plain: The same for Fused-MBConv without expansion, which is a single convolution.
        geometries: Function from the number of blocks and the file's name to the pairs of padding and batch
            normalization epsilon that the weights may have been trained with.

    Prefixes may contain `{block}` (number of the block from 0), `{stage}` (from 1), `{stage0}` (from 0), `{index}` (of
    the block in its stage, from 0) and `{last}` (number of stages + 1).
    """

    library: str
    marker: str
    outer: dict[str, str]
    expanded: dict[str, str]
    plain: dict[str, str]
    geometries: Callable[[int, str], tuple[tuple[str, float], ...]]
    fused: dict[str, str] = field(default_factory=dict)
    fused_plain: dict[str, str] = field(default_factory=dict)


def _numbered(template: str, **operations: str) -> dict[str, str]:
    return {part: template.format(operation) for part, operation in operations.items()}


def _timm_geometries(blocks: int, file_name: str) -> tuple[tuple[str, float], ...]:
    """timm has networks trained in TensorFlow (`tf_efficientnet_*`) and in torch, distinguished only by name."""
    if file_name.startswith("tf_efficientnet"):
        return (TENSORFLOW,)
    return (TORCH,) if file_name.startswith("efficientnet") else (TENSORFLOW, TORCH)


_PYTORCH_BLOCK = _numbered(
    "_blocks.{{block}}._{}",
    expand_conv="expand_conv",
    expand_bn="bn0",
    dwconv="depthwise_conv",
    bn="bn1",
    se_reduce="se_reduce",
    se_expand="se_expand",
    project_conv="project_conv",
    project_bn="bn2",
)
EFFICIENTNET_PYTORCH = TorchLayout(
    library="efficientnet_pytorch",
    marker="_conv_stem.weight",
    outer={
        "stem_conv": "_conv_stem",
        "stem_bn": "_bn0",
        "top_conv": "_conv_head",
        "top_bn": "_bn1",
        "predictions": "_fc",
    },
    expanded=_PYTORCH_BLOCK,
    plain=_PYTORCH_BLOCK,
    geometries=lambda blocks, file_name: (TENSORFLOW,),
)

TORCHVISION = TorchLayout(
    library="torchvision",
    marker="features.0.0.weight",
    outer={
        "stem_conv": "features.0.0",
        "stem_bn": "features.0.1",
        "top_conv": "features.{last}.0",
        "top_bn": "features.{last}.1",
        "predictions": "classifier.1",
    },
    expanded=_numbered(
        "features.{{stage}}.{{index}}.block.{}",
        expand_conv="0.0",
        expand_bn="0.1",
        dwconv="1.0",
        bn="1.1",
        se_reduce="2.fc1",
        se_expand="2.fc2",
        project_conv="3.0",
        project_bn="3.1",
    ),
    plain=_numbered(
        "features.{{stage}}.{{index}}.block.{}",
        dwconv="0.0",
        bn="0.1",
        se_reduce="1.fc1",
        se_expand="1.fc2",
        project_conv="2.0",
        project_bn="2.1",
    ),
    # torchvision builds B5-B7 and V2, which have at least 39 blocks, with TensorFlow's epsilon but torch's padding.
    geometries=lambda blocks, file_name: (TORCH if blocks < 39 else ("symmetric", 1e-3),),
    fused=_numbered(
        "features.{{stage}}.{{index}}.block.{}",
        expand_conv="0.0",
        expand_bn="0.1",
        project_conv="1.0",
        project_bn="1.1",
    ),
    fused_plain=_numbered("features.{{stage}}.{{index}}.block.{}", project_conv="0.0", project_bn="0.1"),
)

TIMM = TorchLayout(
    library="timm",
    marker="conv_stem.weight",
    outer={
        "stem_conv": "conv_stem",
        "stem_bn": "bn1",
        "top_conv": "conv_head",
        "top_bn": "bn2",
        "predictions": "classifier",
    },
    expanded=_numbered(
        "blocks.{{stage0}}.{{index}}.{}",
        expand_conv="conv_pw",
        expand_bn="bn1",
        dwconv="conv_dw",
        bn="bn2",
        se_reduce="se.conv_reduce",
        se_expand="se.conv_expand",
        project_conv="conv_pwl",
        project_bn="bn3",
    ),
    plain=_numbered(
        "blocks.{{stage0}}.{{index}}.{}",
        dwconv="conv_dw",
        bn="bn1",
        se_reduce="se.conv_reduce",
        se_expand="se.conv_expand",
        project_conv="conv_pw",
        project_bn="bn2",
    ),
    geometries=_timm_geometries,
    fused=_numbered(
        "blocks.{{stage0}}.{{index}}.{}",
        expand_conv="conv_exp",
        expand_bn="bn1",
        project_conv="conv_pwl",
        project_bn="bn2",
    ),
    fused_plain=_numbered("blocks.{{stage0}}.{{index}}.{}", project_conv="conv", project_bn="bn1"),
)

# effdet's detectors trained in TensorFlow; those it trained itself have other convolutions.
EFFDET = TorchLayout("effdet", "", {}, {}, {}, geometries=lambda blocks, file_name: (TENSORFLOW,))
LAYOUTS = (EFFICIENTNET_PYTORCH, TORCHVISION, TIMM)

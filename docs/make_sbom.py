"""Write the software bill of materials: what the sdist and the wheel bundle of others, in the JSON of CycloneDX.

    python docs/make_sbom.py sbom.cdx.json

It names the npm packages of the browser page's runtime, the networks of the zoo and the list of ImageNet's classes,
each with a hash and a licence. Packages that pip installs beside this one are not bundled. Needs cyclonedx-python-lib
(extra `docs`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import keras_effnet
from keras_effnet.system.files import write_text

ROOT = Path(__file__).resolve().parents[1]
CLASSES = "keras_effnet/data/imagenet_classes.csv"
ZOO = "keras_effnet/zoo"


@dataclass(frozen=True)
class Asset:
    """Something of others in the package, or trained on what is theirs: `files` are paths in the repository."""

    name: str
    version: str
    kind: str
    licence: str
    algorithm: str
    digest: str
    files: tuple[str, ...] = ()


def bundled() -> list[Asset]:
    """All of them, read from the npm lockfile and the cards of the zoo."""
    return [*_npm_packages(), *_networks(), _classes()]


def _npm_packages() -> list[Asset]:
    lock = json.loads((ROOT / "export/web/npm/package-lock.json").read_text())
    found = []
    for path, package in lock["packages"].items():
        if path:  # the entry without one is the page itself
            digest = package["integrity"].removeprefix("sha512-")
            name = path.removeprefix("node_modules/")
            shown = base64.b64decode(digest).hex()
            found.append(Asset(name, package["version"], "library", package["license"], "SHA-512", shown))
    return found


def _networks() -> list[Asset]:
    cards = yaml.safe_load((ROOT / ZOO / "cards.yaml").read_text())
    return [
        Asset(
            name,
            keras_effnet.__version__,
            "machine-learning-model",
            card["licence"],
            "SHA-256",
            card["sha256"],
            tuple(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / ZOO / "files" / name).iterdir())),
        )
        for name, card in cards.items()
    ]


def _classes() -> Asset:
    digest = hashlib.sha256((ROOT / CLASSES).read_bytes()).hexdigest()
    licence = "names and WordNet identifiers of ImageNet's classes, see NOTICE"
    return Asset("imagenet-classes", keras_effnet.__version__, "data", licence, "SHA-256", digest, (CLASSES,))


def bill(assets: list[Asset]) -> str:
    """The document.

    Args:
        assets: List of `Asset`.

    Returns:
        String, JSON of CycloneDX 1.6.
    """
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    def component(asset: Asset, **more: Any) -> Component:
        hashes = [HashType(alg=HashAlgorithm(asset.algorithm), content=asset.digest)]
        licences = [LicenseFactory().make_from_string(asset.licence)]
        return Component(
            name=asset.name,
            version=asset.version,
            type=ComponentType(asset.kind),
            hashes=hashes,
            licenses=licences,
            bom_ref=f"{asset.name}@{asset.version}",
            **more,
        )

    def purl(asset: Asset) -> PackageURL | None:
        if asset.kind != "library":
            return None
        scope, _, name = asset.name.rpartition("/")
        return PackageURL("npm", scope or None, name, asset.version)

    document = Bom(components=[component(asset, purl=purl(asset)) for asset in assets])
    document.metadata.component = Component(
        name="keras-effnet",
        version=keras_effnet.__version__,
        type=ComponentType.LIBRARY,
        licenses=[LicenseFactory().make_from_string("Apache-2.0")],
        purl=PackageURL("pypi", None, "keras-effnet", keras_effnet.__version__),
        bom_ref="keras-effnet",
    )
    document.register_dependency(document.metadata.component, document.components)
    return JsonV1Dot6(document).output_as_string(indent=2)


if __name__ == "__main__":
    assets = bundled()
    write_text(Path(sys.argv[1]), bill(assets))
    print(f"{sys.argv[1]}: {len(assets)} assets")

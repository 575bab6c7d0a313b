"""The bill of materials names everything of others that the sdist and the wheel bundle."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from keras_effnet.export.web import npm_ci

ROOT = Path(__file__).resolve().parents[1]
# Written for this package: the page's own files, and the cards of the zoo.
OWN = {"export/web/assets", "keras_effnet/zoo/cards.yaml"}


@pytest.fixture(scope="module")
def make_sbom():
    spec = importlib.util.spec_from_file_location("make_sbom", ROOT / "docs/make_sbom.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)  # dataclasses look there
        spec.loader.exec_module(module)
    return module


def data_files():
    """Files of the package that are no code, as `package_data` of setup.cfg lists them."""
    folders = ("keras_effnet/data", "keras_effnet/zoo/files", "export/web/assets")
    found = {
        path.relative_to(ROOT).as_posix() for name in folders for path in (ROOT / name).rglob("*") if path.is_file()
    }
    return {*found, "keras_effnet/zoo/cards.yaml"}


def test_every_bundled_asset_is_listed(make_sbom):
    assets = make_sbom.bundled()
    listed = {file for asset in assets for file in asset.files}
    others = {file for file in data_files() if not any(file.startswith(own) for own in OWN)}
    assert len(others) > 8 and others == listed
    packages = {asset.name for asset in assets if asset.kind == "library"}
    assert packages == {"/".join(source.split("/")[:2]) for source in npm_ci.FILES.values()}


def test_every_asset_is_in_the_notice(make_sbom):
    notice = (ROOT / "NOTICE").read_text()
    assert all(asset.licence for asset in make_sbom.bundled())
    for words in ("keras_effnet/zoo/files", make_sbom.CLASSES, "keras_effnet/export/web/runtime"):
        assert words in notice


def test_the_bill_is_valid_cyclonedx(make_sbom):
    validation = pytest.importorskip("cyclonedx.validation.json", reason="cyclonedx-python-lib is not installed")
    schema = pytest.importorskip("cyclonedx.schema")
    text = make_sbom.bill(make_sbom.bundled())
    assert validation.JsonStrictValidator(schema.SchemaVersion.V1_6).validate_str(text) is None
    found = {component["name"] for component in json.loads(text)["components"]}
    assert found == {asset.name for asset in make_sbom.bundled()}
    core = next(component for component in json.loads(text)["components"] if component["name"].endswith("/core"))
    assert core["purl"] == f"pkg:npm/%40litertjs/core@{core['version']}" and core["hashes"][0]["alg"] == "SHA-512"

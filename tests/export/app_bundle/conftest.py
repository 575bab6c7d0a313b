"""One export with a bundle, which all tests of bundles read."""

from __future__ import annotations

import pytest

from keras_effnet.export import write_bundle
from keras_effnet.preprocessing import ImageSpec

SPEC = ImageSpec(32, 127.0, 128.0, crop=0.875, interpolation="bicubic")


@pytest.fixture(scope="session")
def app_export(trained, digits, tmp_path_factory):
    """A small network at two precisions, one with float input and one with bytes."""
    names = [*(f"digit {number}" for number in range(8)), "$eight", 'n"ine\\']
    return write_bundle(
        trained.model,
        tmp_path_factory.mktemp("export"),
        ["none", "int8"],
        held_out=digits.test,
        calibration=digits.train,
        name="digits",
        input_type="uint8",
        method="minmax",
        labels=names,
        image_spec=SPEC,
        app_bundle=True,
        test_images=digits.test,
    )

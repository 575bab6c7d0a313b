"""Segmentation networks as files: Lite ones compute in int8 alone, and masks agree at every precision."""

from __future__ import annotations

import keras
import pytest

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.export import export_tflite
from keras_effnet.export.tflite_file.inspection import inspect
from keras_effnet.models.decoders import DECODERS, segmentation_model
from keras_effnet.transfer import reestimate_batch_norm

SPEC = architecture_spec("lite0", depth=0.2, width=0.25, image_size=64)
ALLOWED = {"SOFTMAX"}  # the output of every file stays in float


@pytest.mark.parametrize(
    "decoder",
    [pytest.param(name, marks=pytest.mark.slow if name == "deeplab-lite" else pytest.mark.soak) for name in DECODERS],
)
def test_a_lite_network_is_int8_between_input_and_softmax(decoder, smooth_images, tmp_path):
    images = smooth_images(16, 75)  # odd maps: each is enlarged and cropped
    keras.utils.set_random_seed(0)
    model = segmentation_model(SPEC, 2, decoder, input_shape=(75, 75, 3))
    reestimate_batch_norm(model, [images.astype("float32")])
    result = export_tflite(
        model, tmp_path / "masks.tflite", "int8", calibration=images, verification=images, allow_degraded=True
    )
    found = inspect(result.path)
    assert {name for island in found.islands for name in island.operators} <= ALLOWED
    assert result.report.score > 0.95

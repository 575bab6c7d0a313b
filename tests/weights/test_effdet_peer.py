"""Detectors of effdet, whose weights are the authors': names recorded here, outputs compared where it is installed."""

import importlib
import os

import numpy as np
import pytest
from make_torch import image

from keras_effnet import EfficientDet, detector_spec
from keras_effnet.detection import anchor_boxes


@pytest.fixture(scope="module")
def effdet():
    os.environ.setdefault("PYTORCH_JIT", "0")
    try:
        return importlib.import_module("effdet")
    except (ImportError, RuntimeError) as error:  # the latter: torch and torchvision that are no pair
        pytest.skip(f"effdet cannot be imported: {error}")


def theirs(effdet, name, size):
    """effdet's network with random weights and statistics."""
    import torch

    torch.manual_seed(0)
    config = effdet.get_efficientdet_config(f"tf_efficientdet_{name}")
    config.image_size = (size, size)
    network = effdet.EfficientDet(config, pretrained_backbone=False).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            if key.endswith("running_mean"):
                tensor.normal_(0, 0.1, generator=generator)
            elif key.endswith(("running_var", "edge_weights")) or (tensor.ndim == 1 and key.endswith("weight")):
                tensor.uniform_(0.7, 1.4, generator=generator)
            elif (tensor.ndim == 1 and key.endswith("bias")) or key.endswith("predict.conv_pw.weight"):
                tensor.normal_(0, 0.1, generator=generator)
    return network, config


RARELY = (("d0", 192), ("d1", 128), ("lite1", 128), ("lite2", 128))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        pytest.param("lite0", 320, marks=pytest.mark.slow),
        *(pytest.param(*each, marks=pytest.mark.soak) for each in RARELY),
    ],
)
def test_outputs_and_anchors_equal_effdets(effdet, name, size, tmp_path):
    import torch

    network, config = theirs(effdet, name, size)
    path = tmp_path / f"tf_efficientdet_{name}.pth"
    torch.save(network.state_dict(), path)
    model = EfficientDet(f"det-{name}", path, (size, size, 3), classifier_activation=None, include_preprocessing=False)
    pixels = (image(size)[None] - 127) / 128
    with torch.no_grad():
        logits, boxes = network(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()))
    ours = model.predict_on_batch(pixels)
    for found, levels in ((ours["logits"], logits), (ours["boxes"], boxes)):
        wanted = np.concatenate(
            [level.numpy().transpose(0, 2, 3, 1).reshape(1, -1, found.shape[2]) for level in levels], axis=1
        )
        assert wanted.std() > 0.1
        np.testing.assert_allclose(found, wanted, atol=1e-4)
    anchors = effdet.anchors.Anchors.from_config(config).boxes.numpy()
    np.testing.assert_array_equal(anchor_boxes(detector_spec(f"det-{name}"), (size, size)), anchors)

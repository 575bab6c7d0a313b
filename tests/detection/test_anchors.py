"""Anchors: order, sizes and positions by hand; `tests/weights/test_effdet_peer.py` compares them with effdet's."""

import numpy as np
import pytest
from small_detector import small_detector

from keras_effnet import detector_spec
from keras_effnet.architecture.pyramid import expand_detector
from keras_effnet.detection import anchor_boxes
from keras_effnet.errors import UserError


@pytest.mark.parametrize("name", ["det-lite0", "det-d7x"])
def test_there_are_as_many_as_outputs(name):
    spec = detector_spec(name)
    assert anchor_boxes(spec).shape == (expand_detector(spec).anchors, 4)


def test_the_stride_of_the_coarsest_level_is_a_third_of_320_pixels():
    boxes = anchor_boxes(detector_spec("det-lite0"))[-81:].reshape(3, 3, 9, 4)
    centers = (boxes[..., :2] + boxes[..., 2:]) / 2
    np.testing.assert_allclose(centers[0, :, 0, 1], [160 / 3, 160, 800 / 3], rtol=1e-5)  # x runs within a row
    np.testing.assert_allclose(centers[:, 0, 0, 0], [160 / 3, 160, 800 / 3], rtol=1e-5)


def test_aspects_are_innermost_and_octaves_outside():
    spec = small_detector(anchor_scale=4.0, octaves=2, aspects=((1.0, 1.0), (1.4, 0.7)))
    boxes = anchor_boxes(spec)[:4]
    heights, widths = (boxes[:, 2:] - boxes[:, :2]).T
    root = 2**0.5
    np.testing.assert_allclose(widths, [32, 44.8, 32 * root, 44.8 * root], rtol=1e-6)
    np.testing.assert_allclose(heights, [32, 22.4, 32 * root, 22.4 * root], rtol=1e-6)


def test_images_need_not_be_square():
    boxes = anchor_boxes(small_detector(levels=(3, 4)), (64, 96))
    assert len(boxes) == 9 * (8 * 12 + 4 * 6)
    with pytest.raises(UserError, match="whole number"):
        anchor_boxes(small_detector(), (64.0, 96))

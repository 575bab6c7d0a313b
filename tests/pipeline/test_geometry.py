"""Crop windows: their aspect ratio and where they lie."""

import numpy as np
import pytest

from keras_effnet.pipeline.augmentation import Augmentation
from keras_effnet.pipeline.geometry import crop_window

SHAPE = (400, 400, 3)
HIGHEST = np.nextafter(np.float32(1), np.float32(0))


def box(*draws: float, **augmentation) -> list[int]:
    """Top, left, height and width for draws of area, aspect ratio, vertical and horizontal place."""
    return crop_window(SHAPE, np.array(draws, "float32"), Augmentation(**augmentation)).numpy().tolist()


def test_the_aspect_ratio_is_width_over_height():
    _, _, height, width = box(0, 0, 0, 0, crop_scale=(0.125, 0.125), crop_ratio=(2.0, 2.0))
    assert (height, width) == (100, 200)


@pytest.mark.parametrize(("place", "begin"), [(0, 0), (0.5, 100), (HIGHEST, 200)])
def test_a_window_lies_anywhere_up_to_the_far_edge(place, begin):
    ratio = {"crop_scale": (0.25, 0.25), "crop_ratio": (1.0, 1.0)}
    assert box(0, 0, place, 0, **ratio) == [begin, 0, 200, 200]
    assert box(0, 0, 0, place, **ratio) == [0, begin, 200, 200]


def test_every_place_is_equally_likely():
    """399 of 400 pixels have two places, each of which half of the draws choose."""
    area = (399 / 400) ** 2
    places = [box(0, 0, draw, 0, crop_scale=(area, area), crop_ratio=(1.0, 1.0))[0] for draw in (0.1, 0.4, 0.6, 0.9)]
    assert places == [0, 0, 1, 1]

"""Options of detectors, and the recipes for them."""

import pytest

from keras_effnet.architecture.detectors import DETECTORS, detector_spec
from keras_effnet.config.recipes import recipe_config
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.errors import UserError


def test_a_detector_is_described_by_name_rule_and_options():
    config = TrainConfig(
        model="det-lite0", image_size=256, width=0.5, bifpn_width=32, anchor_scale=2, anchor_aspects="1x1, 1.6x0.6"
    )
    spec = config.detector
    assert (spec.image_size, spec.width, spec.cells, spec.anchor_scale) == (256, 32, 3, 2.0)
    assert spec.aspects == ((1.0, 1.0), (1.6, 0.6)) and spec.backbone.width == 0.5
    assert (config.spec.image_size, config.image_spec.size, config.stages[-1].image_size) == (256, 256, 256)
    assert TrainConfig(model="det-d0", phi=0.5).detector.width == detector_spec(phi=0.5).width
    assert TrainConfig(model="det-d0", backbone="resnet18").detector.backbone.name == "resnet18"
    assert TrainConfig(model="det-lite0").detector.anchor_scale == DETECTORS["det-lite0"].anchor_scale
    assert TrainConfig().detector is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "det-lite0", "phi": 1.0}, "phi makes a detector by the paper's rule, from det-d0"),
        ({"model": "det-lite9"}, r"Unknown detector 'det-lite9'.*Did you mean"),
        ({"model": "det-lite0", "backbone": "lite00"}, "Unknown model 'lite00'"),
    ],
)
def test_what_is_no_detector_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        _ = TrainConfig(**options).detector


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"anchor_scale": 2.0}, "anchor_scale is an option of detectors, and b0 is none"),
        ({"model": "det-d0", "anchor_aspects": "1,2"}, "anchor_aspects must be factors of width and height such as"),
        ({"ema": 0.9, "frozen_epochs": 2}, "set only one of them"),
    ],
)
def test_options_without_a_use_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        TrainConfig(**options)


def test_recipes_of_a_detector_are_its_own():
    config = recipe_config("finetune", model="det-lite1", epochs=6)
    assert (config.model, config.frozen_epochs, config.weights) == ("det-lite1", 3, "imagenet")
    paper = recipe_config("paper", model="det-d0", batch_size=64)
    assert (paper.optimizer, paper.learning_rate, paper.global_clip_norm) == ("sgd", 0.08, 10.0)
    with pytest.raises(UserError, match="recipe modern is for classifiers; those of detectors are finetune, paper"):
        recipe_config("modern", model="det-d0")

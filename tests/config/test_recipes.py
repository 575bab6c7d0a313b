"""Recipes and resizing stages against the papers and counted epochs."""

from __future__ import annotations

from dataclasses import asdict

import keras
import pytest

from keras_effnet.config.recipes import RECIPES, recipe_config
from keras_effnet.config.resizing import ResizeStage, image_sizes, stages
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.errors import UserError
from keras_effnet.training.optimizers import build_optimizer, learning_rates

# ------------------------------------------------------------------ stages


@pytest.mark.parametrize("epochs", [3, 4, 5, 7, 10, 30, 31])
@pytest.mark.parametrize("sizes", ["64", "32,64", "32,48,64"])
def test_every_epoch_has_one_stage(sizes, epochs):
    found = stages(sizes, epochs, 64)
    assert [epoch for stage in found for epoch in range(stage.first, stage.last)] == list(range(epochs))
    assert [stage.image_size for stage in found] == [int(size) for size in sizes.split(",")]
    lengths = [stage.last - stage.first for stage in found]
    assert max(lengths) - min(lengths) <= 1


def test_strength_falls_with_the_image_size_and_ends_whole():
    assert [stage.strength for stage in stages("32,48,64", 6, 64)] == [0.5, 0.75, 1.0]


def test_without_progressive_there_is_one_stage_of_the_networks_size():
    assert stages(None, 7, 224) == (ResizeStage(0, 7, 224, 1.0),)
    assert TrainConfig(model="b1", epochs=4).stages == (ResizeStage(0, 4, 240, 1.0),)


@pytest.mark.parametrize("text", ["", "32,,64", "a,b", "64,32", "32,32,64", "16,64", "32;64", "32.5,64"])
def test_sizes_that_are_none_or_do_not_grow_are_refused(text):
    with pytest.raises(UserError, match="progressive needs increasing image sizes of 32 or more"):
        image_sizes(text)


def test_stages_must_end_with_the_networks_size_and_fit_the_epochs():
    with pytest.raises(UserError, match=r"must end with the network's image size, 64; got '32,48'"):
        stages("32,48", 10, 64)
    with pytest.raises(UserError, match="3 image sizes for 2 epochs; use fewer sizes"):
        stages("32,48,64", 2, 64)


# ------------------------------------------------------------------ recipes


def test_the_published_recipe_builds_the_published_optimizer(toy_model):
    # Tan & Le (ICML 2019), section 5: RMSprop with decay 0.9 and momentum 0.9, batch norm momentum 0.99, weight decay
    # 1e-5, a rate that falls by 0.97 every 2.4 epochs, 350 epochs; epsilon 1e-3 and the rate 0.016 for each 256
    # images are those of its released code.
    config = recipe_config("paper", batch_size=256)
    optimizer = build_optimizer(toy_model(), config, steps=5)
    assert type(optimizer) is keras.optimizers.RMSprop
    assert (optimizer.rho, optimizer.momentum, optimizer.epsilon) == (0.9, 0.9, 1e-3)
    assert optimizer.weight_decay == 1e-5 and optimizer.clipnorm is None
    assert optimizer.use_ema and optimizer.ema_momentum <= 0.9999
    assert config.epochs == 350 and config.bn_momentum == 0.99 and config.spec.drop_connect_rate == 0.2
    schedule = learning_rates(config, steps=5)
    for epoch in (6, 12, 24, 120, 349):  # no multiples of 2.4 that rounding could tip
        expected = 0.016 * 0.97 ** int((epoch + 0.5) / 2.4)
        assert float(schedule(epoch * 5 + 2)) == pytest.approx(expected, rel=1e-5)


def test_the_published_recipe_of_v2_grows_in_four_stages_to_the_size_of_the_network():
    # Tan & Le (ICML 2021), section 5.1 and table 6: four stages; image size, RandAugment, MixUp and dropout grow.
    config = recipe_config("paper-v2", model="v2-s")
    assert config.progressive == "192,256,320,384"
    assert [stage.strength for stage in config.stages] == pytest.approx([1 / 2, 2 / 3, 5 / 6, 1])
    assert [stage.last - stage.first for stage in config.stages] == [88, 87, 87, 88]
    assert (config.policy, config.mixup, config.dropout_rate, config.epochs) == ("randaugment", 0.2, 0.3, 350)
    assert (config.optimizer, config.ema, config.weight_decay) == ("rmsprop", 0.9999, 1e-5)


@pytest.mark.parametrize(
    ("changes", "sizes"),
    [
        ({"image_size": 64}, "32,44,52,64"),
        ({"image_size": 64, "epochs": 2}, "32,64"),
        ({"image_size": 64, "epochs": 1}, None),
        ({"image_size": 32}, None),
        ({"image_size": 64, "progressive": "48,64"}, "48,64"),
        ({"image_size": 64, "progressive": None}, None),
    ],
)
def test_its_image_sizes_follow_from_the_network_unless_they_are_given(changes, sizes):
    assert recipe_config("paper-v2", **changes).progressive == sizes


def test_finetune_starts_from_published_weights_with_slower_early_stages():
    config = recipe_config("finetune")
    assert config.weights == "imagenet" and config.layer_decay < 1 and config.epochs <= 20


def test_short_is_the_default_config():
    assert recipe_config("short") == TrainConfig()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_a_valid_config_at_its_own_batch_size(name):
    recipe = RECIPES[name]
    config = recipe_config(name, batch_size=recipe.batch)
    assert asdict(config) == pytest.approx(asdict(recipe.config) | {"batch_size": recipe.batch})
    assert recipe.summary


def test_the_values_of_a_recipe_are_those_that_are_not_the_defaults():
    assert RECIPES["short"].values == {}
    values = RECIPES["finetune"].values
    assert values["weights"] == "imagenet" and "batch_size" not in values
    assert TrainConfig(**values) == RECIPES["finetune"].config


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize(("batch", "accumulate"), [(16, 1), (64, 1), (16, 8), (512, 2)])
def test_the_rate_grows_in_proportion_to_the_images_of_a_step(name, batch, accumulate):
    own = recipe_config(name, batch_size=RECIPES[name].batch).learning_rate
    rate = recipe_config(name, batch_size=batch, accumulate=accumulate).learning_rate
    assert rate / own == pytest.approx(batch * accumulate / RECIPES[name].batch)


def test_a_rate_that_is_given_is_taken_as_it_is():
    config = recipe_config("paper", batch_size=8, learning_rate=0.5, epochs=3)
    assert (config.learning_rate, config.epochs, config.optimizer) == (0.5, 3, "rmsprop")


def test_an_unknown_recipe_or_option_gets_the_closest_one():
    with pytest.raises(UserError, match=r"Unknown recipe 'papper'\. Did you mean 'paper'"):
        recipe_config("papper")
    with pytest.raises(UserError, match=r"Unknown training option 'epoch'\. Did you mean 'epochs'"):
        recipe_config("short", epoch=3)

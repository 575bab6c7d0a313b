"""`TrainConfig`: YAML round trips, and refusals that name the field."""

from __future__ import annotations

import time
from dataclasses import FrozenInstanceError, replace

import pytest

from keras_effnet.config.train_config import TrainConfig
from keras_effnet.errors import UserError


def test_a_config_survives_yaml():
    config = TrainConfig(
        model="lite0",
        phi=-1.5,
        depth=0.5,
        image_size=64,
        epochs=7,
        learning_rate=1e-05,
        layer_decay=0.7,
        weights=None,
        freeze="block4b",
        flip=False,
        seed=3,
    )
    assert TrainConfig.from_yaml(config.to_yaml()) == config


def test_the_defaults_survive_yaml_and_an_empty_file_means_them():
    assert TrainConfig.from_yaml(TrainConfig().to_yaml()) == TrainConfig()
    assert TrainConfig.from_yaml("") == TrainConfig()


def test_a_config_cannot_be_changed_in_place():
    with pytest.raises(FrozenInstanceError):
        TrainConfig().epochs = 3


@pytest.mark.parametrize(("key", "close"), [("epoch", "epochs"), ("learning-rate", "learning_rate"), ("crops", "crop")])
def test_an_unknown_key_gets_the_closest_one(key, close):
    with pytest.raises(UserError, match=f"Unknown training option '{key}'. Did you mean '{close}'"):
        TrainConfig.from_dict({key: 1})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("batch_size", -4),
        ("learning_rate", 0),
        ("learning_rate", -1e-3),
        ("learning_rate", float("nan")),
        ("layer_decay", 0),
        ("layer_decay", 1.01),
        ("label_smoothing", 1.0),
        ("label_smoothing", -0.1),
        ("crop", 0),
        ("crop", 1.1),
        ("crop_scale", 0),
        ("crop_scale", 1.5),
        ("warmup_epochs", -1),
        ("weight_decay", -0.1),
        ("bn_momentum", 2.0),
    ],
)
def test_a_value_out_of_range_is_named(option, value):
    with pytest.raises(UserError, match=f"{option} must"):
        replace(TrainConfig(), **{option: value})


@pytest.mark.parametrize("option", ["dropout_rate", "drop_connect_rate"])
def test_a_drop_rate_of_one_is_refused(option):
    with pytest.raises(UserError, match=rf"{option} must be at least 0 and below 1"):
        assert TrainConfig(**{option: 1.0}).spec


def test_an_image_below_32_pixels_is_refused():
    with pytest.raises(UserError, match="image_size must be at least 32 and at most 4096, got 16"):
        assert TrainConfig(image_size=16).spec


def test_an_unknown_precision_gets_the_closest_one():
    with pytest.raises(UserError, match=r"Unknown precision 'mixed_floa16'\. Did you mean 'mixed_float16'"):
        TrainConfig(precision="mixed_floa16")


def test_multiworker_is_refused_with_the_strategy_that_works():
    with pytest.raises(UserError, match="--strategy data-parallel"):
        TrainConfig(strategy="multi_worker")


def test_a_config_costs_microseconds():
    def seconds() -> float:
        started = time.process_time()
        for _ in range(50):
            TrainConfig()
        return (time.process_time() - started) / 50

    seconds()
    assert min(seconds() for _ in range(5)) < 500e-6  # 50 on an idle machine; resolving the types each time took 25,000


@pytest.mark.parametrize("line", ["epochs: ten", "epochs: 2.5", "epochs:", "learning_rate: [1]", "flip: perhaps"])
def test_a_value_of_the_wrong_type_in_a_file_is_named(line):
    with pytest.raises(UserError, match=line.split(":")[0]):
        TrainConfig.from_yaml(line)


def test_a_number_written_1e_3_is_a_number():
    # YAML 1.1 reads it as text, for want of a dot; nobody who writes it means text.
    assert TrainConfig.from_yaml("learning_rate: 1e-3").learning_rate == 0.001


@pytest.mark.parametrize("text", ["5", "just words", "- epochs\n- 3", "epochs: [", "a: b: c"])
def test_a_file_that_is_no_table_of_options_is_refused_in_one_line(text):
    with pytest.raises(UserError) as caught:
        TrainConfig.from_yaml(text)
    assert "\n" not in str(caught.value)


def test_the_spec_follows_the_options():
    spec = TrainConfig(model="lite0", image_size=48, stem_stride=1, bn_momentum=0.8, dropout_rate=0.05).spec
    assert (spec.image_size, spec.stem_stride, spec.bn_momentum, spec.dropout_rate) == (48, 1, 0.8, 0.05)
    assert spec.drop_connect_rate == 0.2  # the network's own, where the config says nothing


def test_the_image_spec_is_that_of_the_network_with_the_crop_of_the_config():
    contract = TrainConfig(model="lite0", image_size=48, crop=0.875).image_spec
    assert (contract.size, contract.crop, contract.mean, contract.std) == (48, 0.875, 127.0, 128.0)

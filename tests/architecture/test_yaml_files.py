"""Custom networks as YAML files: round trips, and one-line errors for bad files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import yaml

from keras_effnet.architecture.baselines import SPECS, architecture_spec
from keras_effnet.architecture.scaling import CompoundScaling
from keras_effnet.architecture.yaml_files import read_spec, write_spec
from keras_effnet.complexity.counting import count
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.errors import UserError

STAGE = {"kernel": 3, "stride": 2, "expand": 1, "filters": 16, "repeats": 2}
SMALL = {"name": "tiny", "stem": 8, "head": 0, "stages": [STAGE]}


@pytest.fixture
def written(tmp_path):
    def write(values, name="net.yaml"):
        (tmp_path / name).write_text(values if isinstance(values, str) else yaml.safe_dump(values))
        return tmp_path / name

    return write


@pytest.mark.parametrize("name", SPECS)
def test_every_network_outlives_its_file(name, tmp_path):
    write_spec(SPECS[name], tmp_path / "net.yaml")
    assert read_spec(tmp_path / "net.yaml") == SPECS[name]


def test_numbers_of_numpy_are_plain_ones_in_a_spec_and_its_file(tmp_path):
    given = {"depth": np.float64(0.3), "width": np.float32(0.25), "image_size": np.int64(64)}
    spec = replace(architecture_spec("b0", **given), pixel_mean=(np.float32(0.5),) * 3)
    assert spec == replace(architecture_spec("b0", depth=0.3, width=0.25, image_size=64), pixel_mean=(0.5,) * 3)
    assert type(CompoundScaling(np.float32(1.5)).factors(np.float32(2)).depth) is float
    write_spec(spec, tmp_path / "net.yaml")
    assert read_spec(tmp_path / "net.yaml") == spec


def test_a_file_stands_where_a_name_does(tmp_path):
    path = tmp_path / "slim.yml"
    write_spec(architecture_spec("resnet18", width=0.5), path)
    assert count(architecture_spec(str(path), depth=2)) == count(architecture_spec("resnet18", width=0.5, depth=2))
    assert TrainConfig(model=str(path), image_size=64).spec.stem == 64


def test_a_hand_written_file_needs_no_more_than_the_table(written):
    spec = architecture_spec(written(SMALL))
    # By hand, two mbconv blocks without expansion: 3x3 stem 27 * 8, then 9 c_in + c_in c_out for each, two numbers a
    # channel for every normalization, and a classifier of 16 * 10 + 10.
    weights = 27 * 8 + (9 * 8 + 8 * 16) + (9 * 16 + 16 * 16)
    assert count(spec, classes=10).params == weights + 2 * (8 + 8 + 16 + 16 + 16) + 170


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("- just\n- a list", "expected fields with values"),
        ("a: [1, 2", "is not a network file"),
        ({**SMALL, "stemm": 3}, "Unknown field 'stemm'. Did you mean 'stem'"),
        ({**SMALL, "stages": [{**STAGE, "filter": 3}]}, "Did you mean 'filters'"),
        ({**SMALL, "stages": []}, "has no stages"),
        ({**SMALL, "stages": [3]}, r"stages\[0\] must be fields with values, .* got 3"),
        ({"name": "x", "stages": [STAGE]}, "head, stem are missing"),
        ({**SMALL, "dropout_rate": 2}, r"dropout_rate must lie in \[0, 1\)"),
        ({**SMALL, "activation": "swich"}, "Did you mean 'swish'"),
        ({**SMALL, "image_size": "large"}, "image_size must be an integer, got 'large'"),
        ({**SMALL, "image_size": 10_000_000}, "image_size must be at most 4,096 pixels"),
        ({**SMALL, "dropout_rate": float("nan")}, "dropout_rate must be a finite number, got nan"),
        ({**SMALL, "scale_stem": 1}, "scale_stem must be true or false, got 1"),
        ({**SMALL, "stages": [{**STAGE, "repeats": 2.5}]}, "repeats must be an integer, got 2.5"),
        ({**SMALL, "name": 3}, "name must be a string, got 3"),
        ({**SMALL, "depth": 1e9}, "more than 10,000 blocks"),
        ({**SMALL, "width": float("nan")}, "width must be a finite number"),
    ],
)
def test_bad_files_are_refused_with_their_name(written, values, message):
    with pytest.raises(UserError, match=message) as caught:
        read_spec(written(values))
    assert "net.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="Network file"):
        architecture_spec(str(tmp_path / "none.yaml"))

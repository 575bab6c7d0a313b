"""`detector.json`."""

import json

import pytest

from keras_effnet.architecture.detector_files import load_detector, save_detector
from keras_effnet.architecture.detectors import detector_spec
from keras_effnet.errors import UserError


def test_a_detector_is_read_as_it_was_written(tmp_path):
    spec = detector_spec("det-d0", backbone="resnet18", classes=3, anchor_scale=2.5, aspects=((1.0, 1.0), (1.6, 0.6)))
    save_detector(spec, tmp_path / "detector.json")
    assert load_detector(tmp_path / "detector.json") == spec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"anchor_scale": "large"}, "anchor_scale must be a finite number"),
        ({"anchors": 9}, "Unknown field 'anchors'"),
        ({"aspects": [[1.0]]}, "aspects"),
        ({"anchor_scale": -1}, "anchor_scale must be positive"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path, change, message):
    path = tmp_path / "detector.json"
    save_detector(detector_spec("det-lite0"), path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message) as raised:
        load_detector(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)

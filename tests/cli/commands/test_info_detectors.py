"""`keras-effnet info` on detectors."""

import json

import pytest
from click.testing import CliRunner

from keras_effnet.cli.commands.info import command
from keras_effnet.errors import UserError


def info(*arguments):
    result = CliRunner().invoke(command, arguments, catch_exceptions=False, standalone_mode=False)
    return result.output


def test_cost_and_rule_of_a_detector_are_shown():
    shown = info("det-d5")
    assert "306,900" in shown and "33.65 M" in shown and "1152 px" in shown


def test_patterns_list_detectors():
    found = json.loads(info("det-lite*", "--json"))
    assert list(found) == ["det-lite0", "det-lite1", "det-lite2", "det-lite3", "det-lite3x", "det-lite4"]
    assert found["det-lite0"]["anchors"] == 19_206 and found["det-lite0"]["backbone"] == "efficientnet-lite0"


def test_size_and_classes_change_the_cost_and_hide_the_published_ap():
    small = json.loads(info("det-d0", "--image-size", "256", "--classes", "3", "--json"))
    published = json.loads(info("det-d0", "--json"))
    assert (published["ap"], published["classes"], small["ap"], small["classes"]) == (34.3, 90, None, 3)
    assert small["macs"] < published["macs"] / 4 + 1e6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("det-d9",), "Did you mean 'det-d7'"),
        (("det-d0", "--width", "2"), "--width would have no effect"),
        (("det-d0", "--image-size", "8"), "image_size must lie in"),
        (("det-x*",), "Unknown detector"),
    ],
)
def test_what_a_detector_has_not_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        info(*arguments)

"""Detectors as data: the published table beside independent figures, the paper's rule, and what is refused."""

import re

import pytest

from keras_effnet.architecture.detectors import DETECTORS, DetectorSpec, detector_scaling, detector_spec
from keras_effnet.architecture.explanations import explain
from keras_effnet.architecture.pyramid import expand_detector
from keras_effnet.complexity import count, training_bytes
from keras_effnet.errors import UserError

# Million parameters as effdet 0.4.1 counts them at 90 classes, billion MACs of its convolutions without biases (hooks
# on its networks), and anchors. google/automl gives 9.3 M for Lite3x, whose MACs nobody counted.
FIGURES = {
    "det-d0": (3.880, 2.492, 49_104),
    "det-d1": (6.626, 6.003, 76_725),
    "det-d2": (8.097, 10.832, 110_484),
    "det-d3": (12.032, 24.569, 150_381),
    "det-d4": (20.724, 54.584, 196_416),
    "det-d5": (33.653, 134.134, 306_900),
    "det-d6": (51.872, 224.121, 306_900),
    "det-d7": (51.872, 322.732, 441_936),
    "det-d7x": (77.147, 407.628, 442_260),
    "det-lite0": (3.243, 0.974, 19_206),
    "det-lite1": (4.248, 1.967, 27_621),
    "det-lite2": (5.252, 3.371, 37_629),
    "det-lite3": (8.351, 7.480, 49_104),
    "det-lite3x": (9.281, None, 76_725),
    "det-lite4": (15.131, 20.168, 76_725),
}


def convolutions(spec):
    """Every convolution as often as it is computed."""
    network = expand_detector(spec)
    yield network.backbone.stem
    for block in network.backbone.blocks:
        yield from block.weighted
    yield from (extra.project for extra in network.extra if extra.project)
    for cell in network.cells:
        for node in cell:
            yield from node.weighted
    for head in network.heads:
        for steps in head.convolutions.values():
            yield from (part for pair in steps for part in pair)


def macs_without_biases(spec):
    return sum(
        part.kernel**2 * (1 if part.depthwise else part.in_channels) * part.out_channels * part.out_size**2
        for part in convolutions(spec)
    )


@pytest.mark.parametrize("name", DETECTORS)
def test_parameters_macs_and_anchors_are_the_published_ones(name):
    params, macs, anchors = FIGURES[name]
    spec = DETECTORS[name]
    assert round(count(spec).params / 1e6, 3) == params
    assert expand_detector(spec).anchors == anchors
    if macs is not None:
        assert round(macs_without_biases(spec) / 1e9, 3) == macs


def test_counted_macs_include_biases_and_weights_of_the_fusion():
    spec = DETECTORS["det-d0"]
    biases = sum(part.bias * part.out_channels * part.out_size**2 for part in convolutions(spec))
    fused = sum(len(node.inputs) for cell in expand_detector(spec).cells for node in cell)
    assert count(spec).macs == macs_without_biases(spec) + biases + fused


def test_training_memory_grows_with_batch_and_precision():
    spec = DETECTORS["det-lite0"]
    one, eight = training_bytes(spec, 1), training_bytes(spec, 8)
    assert eight.activations == pytest.approx(8 * one.activations, rel=1e-6)
    assert training_bytes(spec, 8, precision="mixed_float16").activations < 0.8 * eight.activations
    assert eight.activations > 1.2 * training_bytes(spec.backbone, 8, image_size=320).activations


def test_the_rule_is_shown_beside_the_table():
    explanation = explain("d5")
    assert (explanation.published.image_size, explanation.formula.image_size) == (1280, 1152)
    assert [explain(f"d{phi}").formula.width for phi in (2, 4, 7)] == [120, 216, 520]  # the table has 112, 224 and 384
    assert explain("DET-D7").formula.image_size == 1408
    assert "1152 px" in str(explanation) and "1280 px" in str(explanation)


@pytest.mark.parametrize("name", ["d0", "d1", "d3"])
def test_the_rule_gives_the_table_where_they_agree(name):
    explanation = explain(name)
    assert explanation.formula == explanation.published
    ruled, published = detector_spec(phi=int(name[1])), DETECTORS[f"det-{name}"]
    assert count(ruled).macs == count(published).macs


def test_any_coefficient_gives_a_network_between_its_neighbours():
    costs = [count(detector_spec(phi=phi)).macs for phi in (-1, -0.5, 0, 0.5, 1, 1.5, 2)]
    assert costs == sorted(costs) and len(set(costs)) == len(costs)


def test_resnets_and_v2_are_backbones():
    for name in ("resnet18", "v2-b0", "mobilenetv2"):
        assert expand_detector(detector_spec("lite0", backbone=name)).sizes == {3: 40, 4: 20, 5: 10, 6: 5, 7: 3}


def test_levels_beyond_the_pyramid_are_not_built():
    narrow = expand_detector(detector_spec("d0", levels=(3, 4)))
    assert narrow.sizes == {3: 64, 4: 32} and not narrow.extra
    assert narrow.backbone.blocks[-1].output.out_size == 32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levels": (3, 3)}, "finest and the coarsest level"),
        ({"levels": (6, 8)}, "feature maps of efficientnetb0 are P1, P2, P3, P4, P5"),
        ({"levels": [3, 7]}, "levels must be"),
        ({"aspects": ()}, "aspects must be pairs"),
        ({"aspects": ((1.0, -1.0),)}, "positive factors"),
        ({"aspects": ((1.0, 1.0), 2.0)}, "pairs of positive"),
        ({"fusion": "attention"}, "Unknown fusion"),
        ({"width": 0}, "width must be at least 1"),
        ({"width": 1.5}, "width must be a whole number"),
        ({"anchor_scale": 0.0}, "anchor_scale must be positive"),
        ({"image_size": 16}, "image_size must lie in"),
        ({"octave": 3}, "Unknown detector field 'octave'"),
        ({"backbone": "b9"}, "Unknown model 'b9'"),
    ],
    ids=str,
)
def test_invalid_values_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        detector_spec("det-d0", **changes)


@pytest.mark.parametrize(("phi", "message"), [(-4, "must lie in"), (99, "must lie in"), ("2", "must be a number")])
def test_impossible_coefficients_are_named(phi, message):
    with pytest.raises(UserError, match=message):
        detector_scaling(phi)


def test_unknown_names_are_answered_with_the_closest():
    with pytest.raises(UserError, match="Did you mean 'det-d7'"):
        detector_spec("d77")
    with pytest.raises(UserError, match="must be an ArchitectureSpec"):
        DetectorSpec("mine", "b0", 512, 64, 3, 3)


def test_a_detector_without_weights_is_no_network_to_export_or_evaluate(cli):
    for command in (("export", "det-lite0"), ("eval", "det-d0", "digits")):
        shown = cli(*command)
        assert shown.status == 2
        assert re.search(r"error: det-\w+ is a detector, and this takes other networks: .* trains it\.", shown.err)

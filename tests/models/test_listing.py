"""`list_models` and `model_info`."""

import json
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.errors import UserError
from keras_effnet.models.listing import list_models, model_info

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "efficientnet.json").read_text())
ALL = GOLDEN["models"] | GOLDEN["v2"] | GOLDEN["baselines"]
WITH_WEIGHTS = [
    *(f"b{number}" for number in range(8)),
    *("v2-b0", "v2-b1", "v2-b2", "v2-b3", "v2-s", "v2-m", "v2-l"),
    *("lite0", "lite1", "lite2"),
]


def test_list_models_names_every_network_once():
    assert sorted(list_models()) == sorted(ALL)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("resnet*", ["resnet18", "resnet34", "resnet50"]),
        ("*resnet50", ["resnet50", "wide_resnet50"]),
        ("b[0-2]", ["b0", "b1", "b2"]),
        ("LITE?", [f"lite{number}" for number in range(5)]),
        ("b4", ["b4"]),
        ("V2-?", ["v2-s", "v2-m", "v2-l"]),
        ("vgg*", []),
    ],
)
def test_list_models_takes_patterns_as_a_shell_does(pattern, names):
    assert list_models(pattern) == names


def test_list_models_can_keep_to_what_has_imagenet_weights():
    assert list_models(pretrained=True) == WITH_WEIGHTS
    assert list_models("lite*", pretrained=True) == ["lite0", "lite1", "lite2"]
    assert list_models("resnet*", pretrained=True) == []


@pytest.mark.parametrize("name", ALL)
def test_model_info_tells_the_published_figures(name):
    info, golden = model_info(name), ALL[name]
    assert (info.name, info.image_size, info.blocks) == (name, golden["resolution"], golden["blocks"])
    assert info.params == golden["params"]
    assert info.top1 == golden.get("top1")
    assert info.macs == golden.get("macs", info.macs)
    assert info.activations == golden.get("activations", info.activations)
    assert (info.weights is not None) == (name in WITH_WEIGHTS)


@pytest.mark.parametrize(
    ("name", "paper"),
    [
        ("b3", "Tan & Le"),
        ("lite4", "EfficientNet-Lite"),
        ("v2-b2", "EfficientNetV2 (ICML 2021)"),
        ("v2-xl", "EfficientNetV2 (ICML 2021)"),
        ("mobilenetv2", "Sandler et al."),
        ("resnet34", "He et al."),
        ("wide_resnet28", "Zagoruyko & Komodakis"),
    ],
)
def test_model_info_names_the_paper(name, paper):
    assert paper in model_info(name).source


def test_model_info_counts_the_classes_asked_for():
    assert model_info("wide_resnet28", classes=10).params == 369_498


def test_a_scaled_network_inherits_no_accuracy_and_no_weights():
    info = model_info(architecture_spec("b0", depth=2))
    assert info.name == "efficientnetb0-d2w1r1"
    assert (info.top1, info.weights, info.source) == (None, None, None)
    assert model_info(replace(architecture_spec("b0"), name="mine")).top1 is None


def test_model_info_is_frozen():
    with pytest.raises(FrozenInstanceError):
        model_info("b0").top1 = 100.0


def test_an_unknown_name_suggests_the_closest():
    with pytest.raises(UserError, match=r"Unknown model 'resnet-50'\. Did you mean 'resnet50'\?"):
        model_info("resnet-50")

"""`ImageSpec`: the same normalisation in model, data and export, and its file."""

import hashlib
import inspect
import json
import re
import socket
from dataclasses import asdict, replace

import numpy as np
import pytest

import keras_effnet
from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.errors import UserError
from keras_effnet.imagenet import decode_predictions, imagenet_classes, readable
from keras_effnet.preprocessing import ImageSpec, check_range, preprocess_input, range_mismatch

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, on pixels in 0..1
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3))

SPECS = {
    "imagenet": ImageSpec(224),
    "lite": ImageSpec(224, 127.0, 128.0),
    "one std": ImageSpec(64, (1.0, 2.0, 3.0), 4.0),
    "one mean": ImageSpec(64, 100.0, (1.0, 2.0, 4.0)),
    "raw": ImageSpec(64, 0.0, 1.0),
    "bicubic": ImageSpec(224, crop=0.875, interpolation="bicubic"),
    "outside": ImageSpec(224, in_network=False),
}
SMALL = architecture_spec("b0", depth=0.2, width=0.25, image_size=32)


@pytest.fixture
def offline(monkeypatch):
    """No connection can be made."""

    def refuse(*args):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def normalised(pixels, spec):
    return (pixels.astype("float64") - np.asarray(spec.mean)) / np.asarray(spec.std)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_scale_and_offset_equal_subtract_mean_and_divide_by_std(spec):
    scale, offset = spec.scale_and_offset()
    np.testing.assert_allclose(PIXELS * np.asarray(scale) + np.asarray(offset), normalised(PIXELS, spec), atol=1e-12)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_scale_and_offset_are_plain_numbers(spec):
    # They end in a Rescaling layer's config, which is saved as JSON.
    for value in spec.scale_and_offset():
        assert all(type(number) is float for number in (value if isinstance(value, list) else [value]))


def test_default_is_imagenets_mean_and_std():
    expected = (PIXELS / 255 - MEAN) / STD
    np.testing.assert_allclose(preprocess_input(PIXELS, ImageSpec(224)), expected, atol=1e-5)


def test_lite_maps_bytes_to_about_minus_one_to_one():
    spec = ImageSpec.of(architecture_spec("lite0"))
    np.testing.assert_allclose(preprocess_input(np.array([0.0, 127.0, 255.0]), spec), [-127 / 128, 0, 1])


def test_the_graph_normalises_as_the_contract_says():
    import keras

    spec = SPECS["imagenet"]
    in_graph = keras.layers.Rescaling(*spec.scale_and_offset())(PIXELS.astype("float32"))
    np.testing.assert_allclose(np.asarray(in_graph), normalised(PIXELS, spec), atol=1e-5)


@pytest.mark.parametrize("spec", [*SPECS.values(), ImageSpec(300, crop=0.875), ImageSpec(28, 33.0, 78.0, channels=1)])
def test_a_contract_survives_its_file(spec, tmp_path):
    spec.save(tmp_path / "image_spec.json")
    loaded = ImageSpec.load(tmp_path / "image_spec.json")
    assert loaded == spec
    assert hash(loaded) == hash(spec)


def test_contract_of_an_architecture():
    spec = architecture_spec("b3")
    assert ImageSpec.of(spec).size == 300
    assert ImageSpec.of(spec, size=128, crop=0.9) == ImageSpec(128, spec.pixel_mean, spec.pixel_std, 0.9)


def test_a_contract_of_an_older_version_still_loads(tmp_path):
    (tmp_path / "image_spec.json").write_text('{"size": 32, "mean": 127.0, "std": 128.0, "crop": 1.0, "channels": 3}')
    spec = ImageSpec.load(tmp_path / "image_spec.json")
    assert (spec.interpolation, spec.in_network) == ("bilinear", True)
    assert spec == ImageSpec(32, 127.0, 128.0)


@pytest.mark.parametrize(
    "content",
    [
        *("", "no json", "[1, 2]", '{"side": 3}', '{"size": 32, "crop": 7}', '{"size": -1}', '{"size": 10000000}'),
        *('{"size": "32"}', '{"size": 32, "mean": null}', '{"size": 32, "std": 0}', '{"size": 32, "mean": NaN}'),
        *('{"size": 32, "std": [1, 2]}', '{"size": 32, "channels": 0}', "[" * 100_000, "\0"),
    ],
)
def test_a_damaged_contract_is_refused_by_its_name(tmp_path, content):
    (tmp_path / "image_spec.json").write_text(content)
    with pytest.raises(UserError, match=r"image_spec\.json was not written by ImageSpec\.save: ") as caught:
        ImageSpec.load(tmp_path / "image_spec.json")
    assert "\n" not in str(caught.value)


def test_a_mistyped_interpolation_gets_the_closest():
    with pytest.raises(UserError, match=r"Unknown interpolation 'bicubical'\. Did you mean 'bicubic'\?"):
        ImageSpec(224, interpolation="bicubical")


# ------------------------------------------------------------------ channels


def test_one_channel_takes_the_mean_of_the_three():
    spec = ImageSpec.of(architecture_spec("b0"), channels=1)
    assert spec.mean == pytest.approx(255 * np.mean(MEAN)) and spec.std == pytest.approx(255 * np.mean(STD))


@pytest.mark.parametrize(("channels", "order"), [(2, "RG"), (3, "RGB"), (4, "RGBR"), (6, "RGBRGB")])
def test_more_channels_repeat_red_green_blue(channels, order):
    spec = ImageSpec.of(architecture_spec("b0"), channels=channels)
    assert spec.channels == channels
    assert spec.mean == pytest.approx([255 * MEAN["RGB".index(colour)] for colour in order])
    assert spec.std == pytest.approx([255 * STD["RGB".index(colour)] for colour in order])


@pytest.mark.parametrize("channels", [1, 4])
def test_a_scalar_serves_any_number_of_channels(channels):
    assert ImageSpec.of(architecture_spec("lite0"), channels=channels) == ImageSpec(224, 127.0, 128.0, 1.0, channels)


def test_statistics_of_another_length_than_the_channels_are_not_adapted():
    infrared = replace(SMALL, pixel_mean=(1.0, 2.0, 3.0, 4.0), pixel_std=5.0)
    assert ImageSpec.of(infrared, channels=4).mean == (1.0, 2.0, 3.0, 4.0)
    for channels in (1, 3, 8):
        with pytest.raises(UserError, match=f"mean has 4 values but the input has {channels} channels"):
            ImageSpec.of(infrared, channels=channels)


@pytest.mark.parametrize("channels", [1, 4, 6])
def test_a_network_of_other_channels_normalises_by_its_contract(channels):
    model = keras_effnet.EfficientNet(SMALL, weights=None, classes=3, input_shape=(32, 32, channels))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, channels)).astype("float32")
    expected = preprocess_input(pixels, ImageSpec.of(SMALL, channels=channels))
    np.testing.assert_allclose(np.asarray(model.get_layer("rescaling")(pixels)), expected, atol=1e-4)


# ------------------------------------------------------------------ the contract of a built model


def assert_close(spec, expected):
    """Equal but for the rounding of a reciprocal's reciprocal."""
    for got, wanted in zip(asdict(spec).values(), asdict(expected).values(), strict=True):
        assert got == (wanted if isinstance(wanted, str) else pytest.approx(wanted, rel=1e-12))


@pytest.mark.parametrize("name", ["b0", "lite0", "resnet18"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_contract_is_read_off_a_built_network(name, channels):
    spec = architecture_spec(name, depth=0.2, width=0.25, image_size=32)
    model = keras_effnet.EfficientNet(spec, weights=None, classes=3, input_shape=(48, 48, channels))
    assert_close(ImageSpec.of_model(model, crop=0.9), ImageSpec.of(spec, size=48, crop=0.9, channels=channels))


def test_a_network_without_preprocessing_expects_what_its_published_form_does():
    for name in ("b0", "lite0"):
        spec = architecture_spec(name, depth=0.2, width=0.25, image_size=32)
        model = keras_effnet.EfficientNet(spec, weights=None, classes=3, include_preprocessing=False)
        assert ImageSpec.of_model(model) == replace(ImageSpec.of(spec), in_network=False)


def test_a_foreign_network_takes_pixels_as_they_are(fragile_model):
    assert ImageSpec.of_model(fragile_model()) == ImageSpec(8, 0.0, 1.0)


def test_the_normalisation_of_a_foreign_network_is_read_layer_by_layer(toy_model):
    import keras

    assert_close(ImageSpec.of_model(toy_model()), ImageSpec(8, 0.0, 255.0))
    # ImageNet's statistics of pixels in -1..1, behind a layer that brings them there.
    in_two_steps = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Rescaling(2 / 255, offset=-1),
            keras.layers.Normalization(mean=2 * np.array(MEAN) - 1, variance=np.square(2 * np.array(STD))),
            keras.layers.Conv2D(2, 3),
        ]
    )
    spec = ImageSpec.of_model(in_two_steps)
    assert spec.mean == pytest.approx(255 * np.array(MEAN), rel=1e-5)
    assert spec.std == pytest.approx(255 * np.array(STD), rel=1e-5)


def test_a_network_of_any_size_needs_to_be_told_one():
    model = keras_effnet.EfficientNet(SMALL, weights=None, include_top=False)
    with pytest.raises(UserError, match=r"accepts images of any size: give one, such as size=224"):
        ImageSpec.of_model(model)
    assert ImageSpec.of_model(model, size=96).size == 96


def test_contract_of_a_network_that_normalises_itself():
    assert ImageSpec.raw((None, 96, 96, 1)) == ImageSpec(96, 0.0, 1.0, channels=1)
    np.testing.assert_array_equal(preprocess_input(PIXELS, ImageSpec.raw((1, 4, 4, 3))), PIXELS)


def test_channel_mismatch_names_the_cures():
    with pytest.raises(UserError, match=r"mean has 3 values but the input has 1 channels\. Give a scalar mean and std"):
        ImageSpec(28, channels=1)
    with pytest.raises(UserError, match=r"std has 2 values.*include_preprocessing=False"):
        ImageSpec(28, 0.0, (1.0, 2.0))


@pytest.mark.parametrize("crop", [0, -0.5, 1.1])
def test_crop_is_a_share(crop):
    with pytest.raises(UserError, match=rf"crop must lie in \(0, 1\], got {crop}"):
        ImageSpec(224, crop=crop)


def test_preprocess_input_without_a_contract_does_nothing():
    # As keras.applications.efficientnet.preprocess_input: the network normalises.
    assert preprocess_input(PIXELS) is PIXELS


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float16", "float32", "float64"])
def test_preprocess_input_gives_float32_from_pixels_of_any_type(dtype):
    for spec in (SPECS["imagenet"], SPECS["lite"]):
        out = preprocess_input(PIXELS.astype(dtype), spec)
        assert out.dtype == np.float32
        np.testing.assert_allclose(out, normalised(PIXELS, spec), atol=1e-4)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_preprocess_input_takes_tensors(dtype):
    from keras import ops

    out = preprocess_input(ops.convert_to_tensor(PIXELS, dtype=dtype), SPECS["imagenet"])
    np.testing.assert_allclose(np.asarray(out), normalised(PIXELS, SPECS["imagenet"]), atol=1e-4)


def test_decode_predictions_names_the_best_classes_in_order():
    preds = np.array([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]])
    assert decode_predictions(preds, top=2, class_names=["a", "b", "c"]) == [
        [("b", 0.6), ("c", 0.3)],
        [("a", 0.5), ("c", 0.3)],
    ]


def test_decode_predictions_keeps_the_order_of_classes_in_a_tie():
    decoded = decode_predictions(np.full((1, 3), 1 / 3), class_names=["x", "y", "z"])
    assert [name for name, _ in decoded[0]] == ["x", "y", "z"]


def test_decode_predictions_names_imagenets_classes_as_keras_does(offline):
    preds = np.zeros((2, 1000))
    preds[0, [281, 285]] = 0.75, 0.25
    preds[1, 999] = 1.0
    decoded = decode_predictions(preds, top=2)
    assert decoded[0] == [("n02123045", "tabby", 0.75), ("n02124075", "Egyptian_cat", 0.25)]
    assert decoded[1][0] == ("n15075141", "toilet_tissue", 1.0)


def test_the_shipped_names_are_byte_for_byte_those_that_keras_downloads():
    from keras.applications.imagenet_utils import decode_predictions as decode_imagenet

    index = {str(number): list(names) for number, names in enumerate(imagenet_classes())}
    (published,) = re.findall(r'file_hash="(\w+)"', inspect.getsource(decode_imagenet))
    assert hashlib.md5(json.dumps(index).encode()).hexdigest() == published


def test_wordnet_ids_are_unique_where_two_names_are_not():
    wnids, names = zip(*imagenet_classes(), strict=True)
    assert len(set(wnids)) == 1000 and list(wnids) == sorted(wnids)
    assert {name for name in names if names.count(name) > 1} == {"crane", "maillot"}


def test_wordnet_ids_become_words_and_other_names_stay():
    assert readable(["n02124075", "my_cat", "n00000000"]) == ("Egyptian cat", "my_cat", "n00000000")


def test_words_tell_the_cranes_apart():
    assert readable(["n02012849", "n03126707"]) == ("crane (n02012849)", "crane (n03126707)")
    assert len(set(readable(wnid for wnid, _ in imagenet_classes()))) == 1000


@pytest.mark.parametrize(
    ("shape", "names", "message"),
    [
        ((3,), None, r"shape \(N, classes\), got \(3,\)"),
        ((1, 10), None, "10 classes, not ImageNet's 1000: pass class_names"),
        ((1, 3), ["a", "b"], "preds has 3 classes but class_names has 2"),
    ],
)
def test_decode_predictions_refuses_what_does_not_fit(shape, names, message):
    with pytest.raises(UserError, match=message):
        decode_predictions(np.zeros(shape), class_names=names)


# ------------------------------------------------------------------ images in the wrong range


def test_images_in_0_to_255_pass_in_any_type(smooth_images):
    images = smooth_images(4, 32)
    for dtype in ("uint8", "int32", "float16", "float32"):
        assert range_mismatch(images.astype(dtype)) is None


def test_images_in_0_to_1_are_noticed_with_the_cure(smooth_images):
    message = range_mismatch(smooth_images(4, 32) / np.float32(255))
    assert "lie in 0..1" in message and "expects 0..255" in message
    assert "multiply by 255" in message and "your own rescaling" in message


def test_one_dark_photograph_in_0_to_1_is_noticed(smooth_images):
    assert "lie in 0..1" in range_mismatch(smooth_images(1, 32) / 255.0 * 0.1)


def test_bytes_of_0_and_1_are_noticed():
    # What is left of images that were divided by 255 and cast back to bytes.
    binary = (np.arange(1024).reshape(1, 32, 32, 1) % 5 == 0).astype("uint8")
    assert "lie in 0..1" in range_mismatch(binary)


@pytest.mark.parametrize("kind", ["lite", "imagenet", "centred"])
def test_normalised_images_are_noticed_where_pixels_are_expected(smooth_images, kind):
    images = smooth_images(4, 32)
    ready = images / 255.0 - 0.5 if kind == "centred" else preprocess_input(images, SPECS[kind])
    message = range_mismatch(ready)
    assert f"{ready.min():.4g} to {ready.max():.4g}" in message and "remove your own normalisation" in message


def test_images_less_their_mean_are_noticed(smooth_images):
    assert "remove your own normalisation" in range_mismatch(smooth_images(4, 32) - 120.0)


def test_16_bit_images_are_noticed(smooth_images):
    assert "scale them to 8 bits" in range_mismatch(smooth_images(4, 32).astype("uint16") * 257)


@pytest.mark.parametrize("name", ["imagenet", "lite"])
def test_pixels_are_noticed_where_normalised_values_are_expected(smooth_images, name):
    expected = replace(SPECS[name], in_network=False).input_range
    message = range_mismatch(smooth_images(4, 32), expected)
    assert "does not normalise" in message and "preprocess_input" in message
    assert range_mismatch(preprocess_input(smooth_images(4, 32), SPECS[name]), expected) is None


def test_the_range_that_a_network_expects():
    assert ImageSpec(224).input_range == (0, 255)
    assert ImageSpec(224, 127.0, 128.0, in_network=False).input_range == (-127 / 128, 1)
    # ImageNet's: (0 - 0.485) / 0.229 and (1 - 0.406) / 0.225
    assert ImageSpec(224, in_network=False).input_range == pytest.approx((-2.1179, 2.64), abs=1e-4)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 8, 8, 3), "uint8"),
        np.zeros((2, 8, 8, 3), "float32"),
        np.full((2, 8, 8, 3), 255, "uint8"),
        np.pad(np.ones((2, 1, 1, 3), "float32"), ((0, 0), (0, 15), (0, 15), (0, 0))),
        np.random.default_rng(0).integers(0, 4, (2, 8, 8, 3)).astype("uint8"),
        np.random.default_rng(0).uniform(0, 5, (2, 8, 8, 3)),
        np.random.default_rng(0).uniform(-30, 285, (2, 8, 8, 3)),
        np.zeros((0, 8, 8, 3), "float32"),
    ],
    ids=["black", "black floats", "white", "black with a spark", "dim bytes", "dim floats", "overshoot", "none"],
)
def test_odd_but_sound_pixels_raise_no_alarm(images):
    assert range_mismatch(images) is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_noticed(smooth_images, value):
    images = smooth_images(2, 32).astype("float32")
    images[1, 2, 3, 0] = value
    assert "NaN or infinite" in range_mismatch(images)


def test_a_warning_is_logged_for_wrong_images_alone(smooth_images, caplog):
    check_range(smooth_images(2, 32))
    assert not caplog.records
    check_range(smooth_images(2, 32) / 255)
    (record,) = caplog.records
    assert record.levelname == "WARNING" and record.name.startswith("keras_effnet")
    assert "multiply by 255" in record.getMessage()


@pytest.mark.images
def test_real_photographs_one_by_one_raise_no_alarm_and_each_is_noticed_when_divided(images_root):
    from keras_effnet.datasets.decoding import read

    for path in sorted((images_root / "imagenet-sample-300").glob("*.JPEG"))[:100]:
        pixels = read(path)
        assert range_mismatch(pixels) is None
        assert range_mismatch(pixels / np.float32(255)) is not None
        assert range_mismatch(preprocess_input(pixels, ImageSpec(224))) is not None


def test_public_names_are_these():
    assert keras_effnet.preprocess_input is preprocess_input
    assert keras_effnet.decode_predictions is decode_predictions
    assert keras_effnet.ImageSpec is ImageSpec

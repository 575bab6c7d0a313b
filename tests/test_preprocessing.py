"""The normalisation contract: one arithmetic for model, data and export, and a file that carries it."""

import numpy as np
import pytest

import keras_effnet
from keras_effnet.baselines import architecture_spec
from keras_effnet.errors import UserError
from keras_effnet.preprocessing import ImageSpec, decode_predictions, preprocess_input

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, on pixels in 0..1
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3))

SPECS = {
    "imagenet": ImageSpec(224),
    "lite": ImageSpec(224, 127.0, 128.0),
    "one std": ImageSpec(64, (1.0, 2.0, 3.0), 4.0),
    "one mean": ImageSpec(64, 100.0, (1.0, 2.0, 4.0)),
    "raw": ImageSpec(64, 0.0, 1.0),
}


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


def test_decode_predictions_reads_imagenets_names_through_keras(monkeypatch):
    from keras.applications.imagenet_utils import decode_predictions as decode_imagenet

    # Keras fetches its index of names once; here it is given.
    index = {str(i): (f"n{i:08d}", f"name{i}") for i in range(1000)}
    monkeypatch.setitem(decode_imagenet.__globals__, "CLASS_INDEX", index)
    preds = np.zeros((1, 1000))
    preds[0, 281] = 1
    assert decode_predictions(preds, top=1)[0][0][:2] == ("n00000281", "name281")


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


def test_public_names_are_these():
    assert keras_effnet.preprocess_input is preprocess_input
    assert keras_effnet.decode_predictions is decode_predictions
    assert keras_effnet.ImageSpec is ImageSpec

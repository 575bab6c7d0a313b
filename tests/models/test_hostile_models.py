"""Hostile `.keras` files: a one-line error, no code run, no module imported, bounded memory."""

import json
import resource
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest

from keras_effnet.errors import UserError
from keras_effnet.models.saving import load_model, load_state

LIMIT = 100 << 20  # bytes; a bomb claims a gigabyte


@pytest.fixture(scope="module")
def model():
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(image)
    x = keras.layers.Dropout(0.1)(x)
    return keras.Model(image, keras.layers.Dense(2, name="dense")(keras.layers.GlobalAveragePooling2D()(x)))


@pytest.fixture(scope="module")
def members(model, tmp_path_factory):
    """Name -> bytes of the members of a sound file."""
    path = tmp_path_factory.mktemp("sound") / "x.keras"
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def reconfigured(members, change):
    config = json.loads(members["config.json"])
    change(config)
    return {**members, "config.json": json.dumps(config)}


@pytest.fixture
def refusal(tmp_path):
    """Function from a file to the line that says why it was refused; nothing else has happened."""

    def load(path, **options):
        modules, resident = set(sys.modules), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(UserError) as error:
            load_model(path, **options)
        # An error of Keras may import its own modules, but nothing that a file names.
        assert not {"antigravity", "this", "victim"} & (set(sys.modules) - modules)
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident) << 10 < LIMIT
        assert not (tmp_path / "victim").exists()
        message = str(error.value)
        assert message.isprintable() and len(message) < 600 and "safe_mode" not in message
        return message

    return load


def test_the_sound_file_opens_with_its_values(model, members, tmp_path):
    """Otherwise its refusals would prove nothing."""
    again = load_model(written(tmp_path / "x.keras", members))
    assert [np.array_equal(a, b) for a, b in zip(model.get_weights(), again.get_weights(), strict=True)] == [True] * 4


# --- members


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5", "metadata.json"])
def test_a_member_that_unpacks_to_much_more_is_refused(name, members, refusal, tmp_path):
    bomb = members | {name: bytes(64 << 20)}
    message = refusal(written(tmp_path / "x.keras", bomb, zipfile.ZIP_DEFLATED))
    assert "in it is compressed, unlike any weights file; refused" in message


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("assets/vocabulary.txt", "it holds assets, such as a vocabulary"),
        ("../victim", "it holds ../victim, unlike any file that Keras saves; refused"),
        ("/tmp/victim", "it holds /tmp/victim, unlike any file"),
        ("layers.py", "it holds layers.py, unlike any file"),
    ],
)
def test_members_that_keras_does_not_write_are_refused(extra, message, members, refusal, tmp_path):
    assert message in refusal(written(tmp_path / "x.keras", members | {extra: b"x"}))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(members, refusal, tmp_path):
    with zipfile.ZipFile(written(tmp_path / "x.keras", members), "a") as archive:
        archive.writestr("config.json", "{}")
    assert "it has two members of one name; refused" in refusal(tmp_path / "x.keras")


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5"])
def test_a_file_without_a_member_names_it(name, members, refusal, tmp_path):
    rest = {key: value for key, value in members.items() if key != name}
    assert f"it lacks {name}." in refusal(written(tmp_path / "x.keras", rest))


def test_a_configuration_out_of_proportion_is_refused(members, refusal, tmp_path):
    path = written(tmp_path / "x.keras", members | {"config.json": b" " * (17 << 20)})
    assert "its config.json has 17,825,792 bytes, more than 16,777,216; refused" in refusal(path)


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"{", b"[" * 100_000, b"[]", b"null", b'"model"', b"{}", b'{"a": 1}']
)
def test_a_configuration_that_describes_nothing_is_refused(content, members, refusal, tmp_path):
    assert "is not a Keras model: it" in refusal(written(tmp_path / "x.keras", members | {"config.json": content}))


# --- sizes


def test_more_weights_than_the_file_holds_are_not_allocated(members, refusal, tmp_path):
    def enlarge(config):
        config["config"]["layers"][-1]["config"]["units"] = 10**9

    message = refusal(written(tmp_path / "x.keras", reconfigured(members, enlarge)))
    assert "its configuration describes 20,000,000,448 bytes of weights, but it stores" in message
    with keras.StatelessScope():  # whose end initializes what is left over
        pass


def test_more_bytes_than_the_network_can_have_are_refused(members, refusal, tmp_path):
    padded = members["model.weights.h5"] + bytes(8 << 20)
    message = refusal(written(tmp_path / "x.keras", members | {"model.weights.h5": padded}))
    assert "but its configuration describes 488; refused" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda file: file.create_dataset("x", (10**6, 10**6), "f4"),
            "/x claims more values than the",
        ),
        (lambda file: file.create_dataset("x", (4,), "f4", compression="gzip"), "/x is chunked or compressed"),
        (lambda file: file.create_dataset("x", (4,), "f4", external=[("victim", 0, 16)]), "in another file"),
        (lambda file: file.__setitem__("x", h5py.ExternalLink("victim", "/")), "/x is a link; refused"),
        (lambda file: file.__setitem__("x", h5py.SoftLink("/layers")), "/x is a link; refused"),
        (lambda file: file.__setitem__("x", file["layers"]), "it contains a group twice"),
        (lambda file: file.create_dataset("x", data="text"), "/x does not hold numbers"),
        (lambda file: file.__delitem__("layers/dense/vars/1"), "Layer 'dense' expected 2 variables"),
        (
            lambda file: (
                file.__delitem__("layers/dense/vars/1"),
                file.create_dataset("layers/dense/vars/1", data=np.zeros(3, "f4")),
            ),
            "shape",
        ),
    ],
    ids=["zeros", "compressed", "external", "external link", "soft link", "cycle", "text", "missing", "shape"],
)
def test_weights_that_are_not_in_the_file_are_refused(change, message, members, refusal, tmp_path):
    weights = tmp_path / "w.h5"
    weights.write_bytes(members["model.weights.h5"])
    with h5py.File(weights, "a") as file:
        change(file)
    path = written(tmp_path / "x.keras", members | {"model.weights.h5": weights.read_bytes()})
    assert message in refusal(path)
    with pytest.raises(UserError, match=r"x\.keras does not fit: "):
        load_state(load_model(written(tmp_path / "sound.keras", members)), path)


# --- code and foreign objects

CODE = ["gASV", None, None]
OBJECTS = {
    "a lambda": ({"class_name": "__lambda__", "config": {"value": CODE}}, "it holds Python code"),
    "a Lambda layer": (
        {"module": "keras.layers", "class_name": "Lambda", "config": {"name": "f", "function": "x"}},
        "it holds Python code (a Lambda layer or function 'f'), which is never run",
    ),
    "a Lambda without a module": ({"class_name": "Lambda", "config": {}}, "it holds Python code"),
    "a saved TensorFlow graph": (
        {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"name": "g", "filepath": "victim"}},
        "its layer 'g' is a TFSMLayer, which reads other files or code; refused",
    ),
    "a pickle of torch": (
        {"module": "keras.layers", "class_name": "TorchModuleWrapper", "config": {"module": "x"}},
        "is a TorchModuleWrapper, which reads",
    ),
    "a vocabulary file": (
        {"module": "keras.layers", "class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}},
        "is a StringLookup, which reads other files",
    ),
    "a module": (
        {"module": "antigravity", "class_name": "Flight", "config": {}},
        "it needs antigravity.Flight, which is not of Keras: register it with",
    ),
    "os.system": (
        {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"},
        "it needs os.system, which is not of Keras",
    ),
    "a package that Keras trusts": (
        {"module": "keras_hub.models", "class_name": "Backbone", "config": {}},
        "it needs keras_hub.models.Backbone, which is not of Keras",
    ),
    "a download": (
        {"module": "keras.utils", "class_name": "function", "config": "get_file"},
        "it needs keras.utils.get_file, which is not of Keras",
    ),
    "Keras' switch for lambdas": (
        {"module": "keras.config", "class_name": "function", "config": "enable_unsafe_deserialization"},
        "it needs keras.config.enable_unsafe_deserialization",
    ),
    "a private module": (
        {"module": "keras.src.utils.torch_utils", "class_name": "TorchModule", "config": {}},
        "it needs keras.src.utils.torch_utils.TorchModule",
    ),
    "a type of TensorFlow": ({"class_name": "__typespec__", "config": []}, "an object of the kind __typespec__"),
    "gigabytes of text": (
        {"class_name": "__numpy__", "config": {"value": "a", "dtype": "U999999999"}},
        "it holds an array of U999999999, which are no numbers; refused",
    ),
    "an array of objects": ({"class_name": "__tensor__", "config": {"value": 1, "dtype": "O"}}, "an array of O"),
    "a class that is a list": ({"class_name": ["a\nb"], "config": {}}, "which is no name; refused"),
    "two lines": ({"module": "a\nb\x1b[2J", "class_name": "C" * 999, "config": {}}, "it needs a b?[2J.CCC"),
    "an unregistered class": (
        {"module": None, "class_name": "Mine", "registered_name": "shop>Mine", "config": {}},
        "Could not locate class 'Mine'",
    ),
}


@pytest.mark.parametrize("case", OBJECTS)
@pytest.mark.parametrize("place", ["layer", "initializer", "build_config", "root"])
def test_an_object_that_no_network_needs_is_refused(case, place, members, refusal, tmp_path):
    hostile, message = OBJECTS[case]
    if case == "an unregistered class" and place != "layer":
        return  # refused by Keras, in words that depend on the place

    def change(config):
        layers = config["config"]["layers"]
        if place == "layer":
            layers[1] = {**layers[1], **{"module": None, "registered_name": None}, **hostile}
        elif place == "initializer":
            layers[1]["config"]["kernel_initializer"] = hostile
        elif place == "build_config":
            layers[1]["build_config"] = {"input_shape": hostile}
        else:
            config.clear()
            config.update(hostile)

    path = written(tmp_path / "x.keras", reconfigured(members, change))
    assert message in refusal(path, compile=False)


def test_code_to_compile_with_leaves_the_network_to_be_opened(members, refusal, tmp_path):
    loss = {"module": "antigravity", "class_name": "function", "config": "fly", "registered_name": "fly"}
    compiled = reconfigured(members, lambda config: config.update(compile_config={"optimizer": "sgd", "loss": loss}))
    message = refusal(written(tmp_path / "x.keras", compiled))
    assert "opens with compile=False only: it needs antigravity.fly, which is not of Keras" in message
    load_model(tmp_path / "x.keras", compile=False)


def test_a_class_that_this_process_registered_is_its_own_code(tmp_path):
    @keras.saving.register_keras_serializable("tests")
    class Twice(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    image = keras.Input((4,))
    keras.Model(image, Twice()(image)).save(tmp_path / "x.keras")
    assert isinstance(load_model(tmp_path / "x.keras").layers[-1], Twice)

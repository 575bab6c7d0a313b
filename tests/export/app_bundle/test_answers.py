"""Bundles and pages of every task: one rule for answers in Python, JavaScript and the generated code."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess

import keras
import numpy as np
import pytest
from app_documents import app_document, write_modules

from keras_effnet.errors import UserError
from keras_effnet.export import write_bundle
from keras_effnet.export.app_bundle.answers import SHOWN, shown
from keras_effnet.export.app_bundle.rendering import render_all
from keras_effnet.preprocessing import ImageSpec

NAMES = ["sky", "road", "$tree"]
OUTPUTS = {
    "classification": [0.2, 0.7, 0.1],
    "binary": [0.8],
    "multilabel": [0.9, 0.3, 0.7],
    "regression": [3.25, -120000, 7],
    "segmentation": [[[0.1, 0.8, 0.1], [0.2, 0.5, 0.3]], [[0.1, 0.2, 0.7], [0.3, 0.4, 0.3]]],
}
THRESHOLDS = {"binary": (0.85,), "multilabel": (0.5, 0.25, 0.75)}


def names_of(task):
    return NAMES[: np.shape(OUTPUTS[task])[-1]]


def document(task):
    return app_document([(1, *np.shape(OUTPUTS[task]))], task=task, thresholds=THRESHOLDS.get(task))


def answers(task):
    return SHOWN[task].answers(np.array(OUTPUTS[task]), names_of(task))


def test_answers_follow_the_task():
    found = {task: [(answer.label, round(answer.score, 4)) for answer in answers(task)] for task in OUTPUTS}
    assert set(SHOWN) == {*OUTPUTS, "detection"}  # whose boxes have tests of their own
    assert found == {
        "classification": [("road", 0.7), ("sky", 0.2), ("$tree", 0.1)],
        "binary": [("sky", 0.8)],
        "multilabel": [("sky", 0.9), ("$tree", 0.7), ("road", 0.3)],
        "regression": [("sky", 3.25), ("road", -120000), ("$tree", 7)],
        "segmentation": [("road", 0.75), ("$tree", 0.25), ("sky", 0)],
    }


@pytest.mark.parametrize("task", OUTPUTS)
def test_the_generated_code_and_the_page_give_the_same_answers(task, tmp_path, monkeypatch):
    made = document(task)
    texts = dict(render_all(made, made.files[0]))
    wanted = [answer.index for answer in answers(task)]
    (tmp_path / "model.json").write_text(made.to_json())
    (tmp_path / "labels.txt").write_text("".join(f"{name}\n" for name in names_of(task)))
    (tmp_path / "classify.py").write_text(texts["classify.py"])
    spec = importlib.util.spec_from_file_location("classify", tmp_path / "classify.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script.Classifier, "__init__", lambda self: None)
    monkeypatch.setattr(script.Classifier, "output", lambda self, path: np.array(OUTPUTS[task]))
    found = script.Classifier().top5("any.png")
    assert [index for index, _, _ in found] == wanted
    np.testing.assert_allclose([score for *_, score in found], [answer.score for answer in answers(task)])
    said = [script.line(*answer).split() for answer in found]
    if task == "multilabel":
        assert [line[1] for line in said] == ["yes", "no", "yes"]  # 0.9 of 0.5, 0.7 of 0.75, 0.3 of 0.25

    if not (node := shutil.which("node")):
        pytest.skip("node is not installed")
    write_modules(tmp_path, texts)
    values = json.dumps(np.ravel(OUTPUTS[task]).tolist())
    (tmp_path / "run.mjs").write_text(
        'import { readFileSync } from "fs"; import { answersOf } from "./classify.js";\n'
        'import { decode, overlay } from "./decode.js";\n'
        'const model = JSON.parse(readFileSync("model.json")); const { shape } = model.files[0].outputs[0];\n'
        f"const output = Float32Array.from({values}); const labels = {json.dumps(names_of(task))};\n"
        "const { answers, scores, mask } = decode([output], labels, model, { shape });\n"
        "const drawn = mask && Array.from(overlay(new Float32Array(12).fill(100), mask, model.image, shape));\n"
        "const code = answersOf(output, labels, model);\n"
        "console.log(JSON.stringify({ code, page: answers, scores: [...scores], drawn }));\n"
    )
    done = subprocess.run([node, "run.mjs"], cwd=tmp_path, check=True, capture_output=True, text=True)
    seen = json.loads(done.stdout)
    assert [answer["index"] for answer in seen["code"]] == wanted
    assert [answer["index"] for answer in seen["page"]] == wanted[: len(seen["page"])]
    np.testing.assert_allclose([seen["scores"][a.index] for a in answers(task)], [a.score for a in answers(task)], 1e-6)
    if task == "multilabel":
        assert [answer["text"][:3] for answer in seen["page"]] == ["yes", "no,", "yes"]
        assert [answer["yes"] for answer in seen["code"]] == [True, False, True]
    if task == "segmentation":  # class 1 is dark red, class 2 dark green, half over grey 100
        assert seen["drawn"] == [114, 50, 50, 114, 50, 50, 50, 114, 50, 114, 50, 50]


@pytest.mark.parametrize("task", OUTPUTS)
def test_code_for_phones_decodes_the_task_and_nothing_else(task):
    made = document(task)
    texts = {path.rpartition("/")[2]: text for path, text in render_all(made, made.files[0])}
    phone = texts["Classifier.swift"] + texts["Classifiers.kt"] + texts["ModelSpec.kt"] + texts["Preprocessing.kt"]
    assert ("mask" in phone) == (task == "segmentation")
    assert ("thresholds" in phone.lower()) == (task in THRESHOLDS)
    for name in ("Classifier.swift", "Classifiers.kt", "ModelSpec.kt", "Preprocessing.kt"):
        assert texts[name].count("{") == texts[name].count("}"), name


def test_a_task_with_nothing_to_show_is_refused_in_one_line():
    with pytest.raises(UserError, match=r"^The task of faces is embedding, for which bundles and pages have nothing"):
        shown("embedding", "faces")


def test_thresholds_without_the_names_of_their_labels_are_refused(tmp_path):
    model = network("multilabel")
    with pytest.raises(UserError, match="3 thresholds for 0 labels"):
        write_bundle(model, tmp_path, ["none"], held_out=None, thresholds=(0.1, 0.2, 0.3))


def network(task):
    keras.utils.set_random_seed(1)
    pixels = keras.Input((8, 8, 3))
    maps = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(keras.layers.Rescaling(1 / 255)(pixels))
    if task == "segmentation":
        return keras.Model(pixels, keras.layers.Conv2D(3, 1, activation="softmax")(maps))
    activation = {"multilabel": "sigmoid", "binary": "sigmoid"}.get(task)
    dense = keras.layers.Dense(1 if task == "binary" else 3, activation=activation)
    return keras.Model(pixels, dense(keras.layers.Flatten()(maps)))


@pytest.mark.slow
@pytest.mark.parametrize("task", ["binary", "multilabel", "regression", "segmentation"])
def test_a_bundle_of_the_task_answers_its_test_image_as_expected(task, tmp_path, smooth_images, capsys):
    images = smooth_images(8, 8, seed=2)
    model = network(task)
    names = names_of("binary" if task == "binary" else "multilabel")
    bundle = write_bundle(
        model,
        tmp_path,
        ["none"],
        held_out=images,
        task=task,
        labels=names,
        image_spec=ImageSpec.of_model(model),
        app_bundle=True,
        test_images=images,
        thresholds=THRESHOLDS.get(task),
    )
    bundle.raise_if_refused()
    found = json.loads((tmp_path / "bundle/model.json").read_text())
    assert found["task"] == task and found["thresholds"] == (list(THRESHOLDS[task]) if task in THRESHOLDS else None)
    spec = importlib.util.spec_from_file_location("classify", tmp_path / "bundle/classify.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.main([]) == 0 and "As expected." in capsys.readouterr().out

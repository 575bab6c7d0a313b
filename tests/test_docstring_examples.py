"""Examples in docstrings that state a result: each is run and gives it, unless it needs files or a trained network."""

from __future__ import annotations

import ast
import doctest
import importlib
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_effnet
from keras_effnet.preprocessing import ImageSpec

ROOT = Path(__file__).resolve().parents[1]
PARSER = doctest.DocTestParser()
NEED_MORE = {  # files of the user, or a network that was trained
    "read_coco",
    "average_precision",
    "grad_cam",
    "range_mismatch",
    "build",
    "write_app_bundle",
    "inspect",
}
SECONDS = {"EfficientDet", "segmentation_model", "policy_of", "task_of", "features", "learning_rate_factors"}
SECONDS |= {"candidates", "structure_of", "check_data"}


def stated():
    """Docstrings with an example whose result is stated: name of the module, of the object, and text."""
    for folder in (ROOT / "keras_effnet", ROOT / "export"):
        for path in sorted(folder.rglob("*.py")):
            if (ROOT / "keras_effnet" / "export") in path.parents:  # a link to the other folder
                continue
            name, source = ".".join(path.relative_to(ROOT).with_suffix("").parts), path.read_text()
            for node in ast.walk(ast.parse(source)) if ">>>" in source else ():
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                    text = ast.get_docstring(node) or ""
                    if any(example.want for example in PARSER.get_examples(text)):
                        yield name, getattr(node, "name", name), text


STATED = [*stated()]
EXAMPLES = [
    pytest.param(module, text, id=name, marks=pytest.mark.slow if name in SECONDS else ())
    for module, name, text in STATED
    if name not in NEED_MORE
]


@pytest.mark.parametrize(("module", "text"), EXAMPLES)
def test_an_example_gives_the_result_that_it_states(module, text):
    found = importlib.import_module(module if module.startswith("keras_effnet") else f"keras_effnet.{module}")
    handed_on = {name: getattr(keras_effnet, name) for name in ("architecture_spec", "detector_spec")}
    libraries = {"np": np, "keras": keras, "tf": tf, "ImageSpec": ImageSpec}
    names = handed_on | libraries | vars(found) | {"keras_effnet": keras_effnet}
    test = PARSER.get_doctest(text, names, module, None, None)
    reports: list[str] = []
    doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=reports.append)
    assert not reports, "".join(reports)


def test_what_is_left_out_has_an_example():
    assert {name for _, name, _ in STATED} >= (NEED_MORE | SECONDS) and len(EXAMPLES) > 35

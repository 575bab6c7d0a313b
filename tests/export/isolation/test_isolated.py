"""Files run in a worker process: same answers, and no crash, hang or orphan in the process of the user."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from ai_edge_litert import schema_py_generated as generated
from tiny_files import tiny_file

from keras_effnet.errors import UserError
from keras_effnet.export.isolation import examination, isolated
from keras_effnet.export.isolation.isolated import IsolatedModel, Worker
from keras_effnet.export.isolation.parallel import ParallelModel
from keras_effnet.export.tflite_file.interpreter import CannotRunError, TFLiteModel
from keras_effnet.export.tflite_file.schema import pack, parse

IMAGE, SCORES = ("float32", (1, 4, 4, 3)), ("float32", (1, 48))


def classifier(**changes) -> bytes:
    """A file that returns its image as scores."""
    arguments = {
        "tensors": {"x": IMAGE, "y": SCORES},
        "steps": [("RESHAPE", "x", "y")],
        "inputs": "x",
        "outputs": "y",
    }
    model = parse(tiny_file(**arguments | changes))
    for operator in model.subgraphs[0].operators[:1]:
        operator.builtinOptionsType = generated.BuiltinOptions.ReshapeOptions
        operator.builtinOptions = generated.ReshapeOptionsT()
        operator.builtinOptions.newShape = [int(model.subgraphs[0].tensors[0].shape[0]), -1]
    return pack(model)


def play(monkeypatch, code: str) -> None:
    """Use a program as the worker."""
    monkeypatch.setattr(isolated, "_COMMAND", (sys.executable, "-c", code))


def test_answers_are_those_of_this_process(exported, smooth_images):
    images = smooth_images(5, 32).astype("float32")
    for result in exported.values():
        ours, theirs = IsolatedModel(result.path), TFLiteModel(result.path)
        np.testing.assert_array_equal(ours.predict(images), theirs.predict(images))
        assert (ours.input_shape, ours.classes) == (theirs.input_shape, theirs.classes)
        assert ours.input["dtype"] == theirs.input["dtype"]
        assert ours.input["quantization"] == pytest.approx(theirs.input["quantization"])


def test_bytes_are_sent_to_the_worker(exported, smooth_images):
    path, images = exported["none"].path, smooth_images(1, 32)
    np.testing.assert_array_equal(IsolatedModel(path.read_bytes()).predict(images), TFLiteModel(path).predict(images))


def test_several_workers_give_the_answers_in_order_and_start_only_for_enough_images(exported, smooth_images):
    path, images = exported["none"].path, smooth_images(9, 32).astype("float32")
    before = children()
    model = ParallelModel(path, workers=3)
    model.predict(images[:7])
    assert len(children() - before) == 1
    np.testing.assert_array_equal(model.predict(images), TFLiteModel(path).predict(images))
    assert len(children() - before) == 2


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV, signal.SIGFPE])
def test_a_crash_is_an_error_that_names_the_signal(monkeypatch, number):
    play(monkeypatch, f"import os; os.kill(os.getpid(), {number:d})")
    message = rf"LiteRT crashed \({number.name}\) on The model: the file is damaged or needs operators that this"
    with pytest.raises(CannotRunError, match=message):
        IsolatedModel(classifier())


def test_a_file_that_crashes_litert_leaves_this_process_alive():
    """An operator without the inputs and options that it takes for granted: all indices are valid.

    LiteRT reads memory that is not its own, so whether it crashes or refuses the file depends on what lies there.
    """
    model = parse(classifier())
    code = model.operatorCodes[0]
    code.builtinCode = code.deprecatedBuiltinCode = generated.BuiltinOperator.STRIDED_SLICE
    model.subgraphs[0].operators[0].builtinOptionsType = generated.BuiltinOptions.NONE
    with pytest.raises(CannotRunError, match=r"LiteRT crashed .* on The model|The model cannot be run by LiteRT"):
        IsolatedModel(pack(model))


def test_a_worker_without_progress_is_ended(monkeypatch):
    play(monkeypatch, "import time; time.sleep(60)")
    monkeypatch.setattr(examination, "PATIENCE", 0.3)
    started = time.monotonic()
    with pytest.raises(CannotRunError, match=r"The model gave no result in 0\.3 seconds"):
        IsolatedModel(classifier())
    assert time.monotonic() - started < 5


def test_a_worker_that_cannot_start_says_why(monkeypatch):
    play(monkeypatch, "import no_such_module")
    with pytest.raises(CannotRunError, match=r"The process that runs The model failed: .*No module named"):
        IsolatedModel(classifier())


def test_an_error_while_running_is_a_refusal_and_the_model_is_closed(exported):
    model = IsolatedModel(exported["none"].path)
    with pytest.raises(UserError):
        list(model.run_each(np.zeros((2, 1, 8, 8, 3), "float32")))  # not the size of the file
    with pytest.raises(CannotRunError, match="was closed; load it again"):
        model.run(np.zeros((1, 32, 32, 3), "float32"))


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE}


def test_the_worker_ends_with_its_model(exported):
    before = children()
    model = IsolatedModel(exported["none"].path)
    assert len(children() - before) == 1
    del model
    gc.collect()
    assert children() <= before


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_the_worker_ends_with_a_process_that_is_killed(exported, end):
    code = (
        "import signal, time\n"
        "from keras_effnet.export.isolation.isolated import IsolatedModel\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background\n"
        f"model = IsolatedModel({str(exported['none'].path)!r})\n"
        "print(model._worker._process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        worker = psutil.Process(int(process.stdout.readline()))
        process.send_signal(end)
        errors = process.stderr.read().decode()
        worker.wait(5)
    assert "Traceback" not in errors or (end is signal.SIGINT and errors.count("Traceback") == 1)


def test_the_worker_ends_while_a_run_never_does(exported, monkeypatch):
    """A thread notices the end of the other process: the main thread may be in LiteRT for ever."""
    endless = "; ".join(
        (
            "from keras_effnet.export.isolation import worker",
            "import time",
            "worker._answer = lambda *_: time.sleep(60)",
            "worker._serve()",
        )
    )
    play(monkeypatch, endless)
    worker = Worker("file")
    worker.send("run")
    process = psutil.Process(worker._process.pid)
    worker._process.stdin.close()
    process.wait(10)


def test_memory_beyond_the_free_one_is_refused_before_it_is_taken():
    side = 400_000
    tensors = {"x": ("float32", (1, side, side, 3)), "y": SCORES}
    with pytest.raises(UserError, match=r"needs [\d.]+ GB for its activations, but only [\d.]+ GB are free"):
        IsolatedModel(classifier(tensors=tensors))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"tensors": {"x": IMAGE, "z": IMAGE, "y": SCORES}, "inputs": "x z"}, "it has 2 inputs and 1 outputs"),
        ({"inputs": "", "stored": "x"}, "it has 0 inputs"),
        ({"tensors": {"x": ("int64", (1, 4, 4, 3)), "y": ("int64", (1, 48))}}, "maps int64 to int64; expected float32"),
        ({"tensors": {"x": ("float32", (1, -1, -1, 3)), "y": ("float32", (1, 3))}}, "takes images of no fixed size"),
        ({"tensors": {"x": ("float32", (5, 4, 4, 3)), "y": ("float32", (5, 48))}}, r"it maps shape \[5, 4, 4, 3\]"),
        ({"tensors": {"x": ("float32", (1, 48)), "y": SCORES}}, r"it maps shape \[1, 48\] to \[1, 48\]"),
        ({"steps": [("FlexInv", "x", "y")]}, "cannot be run by LiteRT: .*FlexInv"),
        ({"steps": [("MyOperator", "x", "y")]}, "cannot be run by LiteRT: .*MyOperator"),
    ],
)
def test_files_that_are_no_image_classifiers_are_refused_in_one_line(changes, why):
    with pytest.raises(UserError, match=why) as caught:
        IsolatedModel(classifier(**changes))
    assert "\n" not in str(caught.value)


def test_several_outputs_arrive_joined():
    tensors = {"x": IMAGE, "z": SCORES, "y": SCORES}
    file = classifier(tensors=tensors, steps=[("RESHAPE", "x", "y"), ("RELU", "y", "z")], outputs="y z")
    images = np.arange(-48.0, 48.0).reshape(2, 4, 4, 3)
    flat = images.reshape(2, 48)
    np.testing.assert_array_equal(IsolatedModel(file).predict(images), np.hstack([flat, np.maximum(flat, 0)]))


def test_a_batch_of_any_size_is_run_as_one_image():
    file = classifier(tensors={"x": ("float32", (-1, 4, 4, 3)), "y": ("float32", (-1, 48))})
    images = np.arange(96.0).reshape(2, 4, 4, 3)
    np.testing.assert_array_equal(IsolatedModel(file).predict(images), images.reshape(2, 48))

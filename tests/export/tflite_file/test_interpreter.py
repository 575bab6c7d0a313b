"""Interpreter: images in 0..255 in, float predictions out, and no output of C++."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_effnet.errors import UserError
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.system.output import captured_output


def test_shape_and_classes_are_read_off_the_file(exported):
    model = TFLiteModel(exported["none"].path)
    assert model.input_shape == (1, 32, 32, 3) and model.classes == 10


def test_bytes_serve_as_well_as_a_path(exported, smooth_images):
    images = smooth_images(3, 32)
    from_path, from_bytes = TFLiteModel(exported["none"].path), TFLiteModel(exported["none"].path.read_bytes())
    np.testing.assert_array_equal(from_path.predict(images), from_bytes.predict(images))


def test_raw_bytes_go_into_a_uint8_file_as_they_are(exported, smooth_images):
    model = TFLiteModel(exported["int8"].path)
    image = smooth_images(1, 32)[0]
    np.testing.assert_array_equal(model.quantized_input(image.astype("float32")), image)
    clipped = model.quantized_input(np.array([-3.0, 0.4, 0.6, 254.6, 300.0]))
    assert clipped.dtype == np.uint8 and clipped.tolist() == [0, 0, 1, 255, 255]


def test_images_of_another_size_are_refused(exported):
    with pytest.raises(UserError, match=r"takes images of \(32, 32, 3\), got \(8, 8, 3\)"):
        TFLiteModel(exported["none"].path).predict(np.zeros((2, 8, 8, 3)))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.tflite does not exist"):
        TFLiteModel(tmp_path / "gone.tflite")


def test_running_a_file_does_not_import_tensorflow(exported):
    code = (
        "import sys, numpy as np\n"
        "from keras_effnet.export.tflite_file.interpreter import TFLiteModel\n"
        f"model = TFLiteModel({str(exported['int8'].path)!r})\n"
        "assert model.predict(np.zeros((1, 32, 32, 3))).shape == (1, 10)\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_output_of_c_libraries_is_kept_off_the_terminal_and_put_back():
    code = (
        "import os\n"
        "from keras_effnet.system.output import captured_output\n"
        "with captured_output() as lines:\n"
        "    os.write(1, b'from C to stdout\\n')\n"
        "    os.write(2, b'from C to stderr\\n')\n"
        "    print('from Python')\n"
        "assert sorted(lines) == ['from C to stderr', 'from C to stdout', 'from Python'], lines\n"
        "os.write(1, b'visible again\\n')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "visible again\n" and result.stderr == ""


def test_the_terminal_comes_back_after_an_error(capfd):
    with pytest.raises(RuntimeError), captured_output():
        os.write(1, b"hidden\n")
        raise RuntimeError
    os.write(1, b"visible\n")
    assert capfd.readouterr().out == "visible\n"


def test_capturing_leaks_no_descriptors():
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("no /proc to count descriptors in")
    before = len(list(folder.iterdir()))
    for _ in range(5):
        with captured_output():
            pass
    assert len(list(folder.iterdir())) == before

"""Export to SavedModel and ONNX, each run and compared with the model before it is written. TensorFlow."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_effnet.datasets.splits import Split
from keras_effnet.errors import UserError, VerificationError
from keras_effnet.export.calibration import Images, load_images, synthetic_images
from keras_effnet.export.conversion.float_graph import check_exportable
from keras_effnet.export.conversion.plausibility import check_predictions
from keras_effnet.export.conversion.structure import float32_copy, plain
from keras_effnet.export.measure.verify_report import Evidence, VerifyReport
from keras_effnet.export.outputs import Outputs
from keras_effnet.export.recipes import PRECISIONS
from keras_effnet.export.verification import compare
from keras_effnet.preprocessing import ImageSpec, check_range, preprocess_input
from keras_effnet.system.files import atomic, cannot_write, staging
from keras_effnet.system.output import captured_output
from keras_effnet.tasks import Task
from keras_effnet.tasks.recognition import is_detector

_BATCH = 16
_GRAPH = "saved_model.pb"  # identifies a folder as a SavedModel
_ONNX_PACKAGES = ("tf2onnx", "onnxruntime")

Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class FormatResult:
    """A written SavedModel or ONNX file and the evidence that it works.

    Args:
        path: Path of the ONNX file or SavedModel folder.
        size_bytes: Int; for a folder the sum of its files.
        format: `"savedmodel"` or `"onnx"`.
        sha256: String; for a folder over names and contents of its files.
        seconds: Float, time of writing and verification.
        report: `VerifyReport`.
    """

    path: Path
    size_bytes: int
    format: str
    sha256: str
    seconds: float
    report: VerifyReport


def export_savedmodel(
    model: keras.Model,
    path: str | Path,
    *,
    verification: Images | None = None,
    image_spec: ImageSpec | None = None,
    samples: int = 100,
    seed: int = 0,
    overwrite: bool = False,
) -> FormatResult:
    """Export a verified TensorFlow SavedModel for TensorFlow Serving and converters.

    It computes in float32, takes batches of any size, and has the endpoints `serve` and `serving_default`. Keras stores
    each weight twice: expect eight bytes per parameter.

    Args:
        model: Functional Keras model with one image input of fixed size and one output.
        path: Path of the folder.
        verification: Images to compare on: a folder, a `tf.data.Dataset` of batches, an array of shape
            `(N, height, width, 3)` or a `Split`, whose labels are used; pixels in 0..255. Default: smooth synthetic
            images, which suffice for float arithmetic.
        image_spec: `ImageSpec`, how images are cropped.
        samples: Int, maximum number of images; a `Split` is used completely.
        seed: Int, seed of the draw from a folder.
        overwrite: Bool, whether an existing SavedModel may be replaced.

    Returns:
        A `FormatResult`.

    Raises:
        UserError: Wrong arguments, implausible images, or an existing path.
        VerificationError: The export disagrees with the model; nothing is written.

    Example:

    >>> result = keras_effnet.export.export_savedmodel(model, "serving/flowers/1", verification="flowers/test")
    >>> result.report.max_abs_diff
    """
    path = Path(path)
    if overwrite and path.exists() and not (path / _GRAPH).is_file() and (path.is_file() or any(path.iterdir())):
        raise UserError(f"{path} is not a SavedModel and is not replaced; give another path.")
    return _export(model, path, _SAVEDMODEL, verification, image_spec, samples, seed, overwrite)


def export_onnx(
    model: keras.Model,
    path: str | Path,
    *,
    verification: Images | None = None,
    image_spec: ImageSpec | None = None,
    samples: int = 100,
    seed: int = 0,
    overwrite: bool = False,
) -> FormatResult:
    """Export a verified ONNX file, compared in onnxruntime. Needs the extra `onnx`.

    It computes in float32 and takes batches of any size, channels last, as the input `image`.

    Args:
        model: Functional Keras model with one image input of fixed size and one output.
        path: Path that ends in `.onnx`.
        verification, image_spec, samples, seed, overwrite: As in `export_savedmodel`.

    Returns:
        A `FormatResult`.

    Raises:
        UserError: Wrong arguments, implausible images, an existing path, or the extra is not installed.
        VerificationError: The export disagrees with the model; nothing is written.

    Example:

    >>> keras_effnet.export.export_onnx(model, "flowers.onnx").size_bytes
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise UserError(f"The path must end in .onnx, got {path}.")
    missing = [package for package in _ONNX_PACKAGES if find_spec(package) is None]
    if missing:
        raise UserError(f"ONNX needs {' and '.join(missing)}: pip install 'keras-effnet[onnx]'.")
    return _export(model, path, _ONNX, verification, image_spec, samples, seed, overwrite)


# --- writing, loading and atomic replacement of each format


def _signature(model: keras.Model) -> list[tf.TensorSpec]:
    # Explicit, since Keras mistakes a model that was never called for an unbuilt one.
    return [tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="image")]


def _inference(model: keras.Model) -> keras.Model:
    """The model in inference mode; otherwise augmentation layers, whose mode is training by default, change images."""
    image = keras.Input(model.input_shape[1:])
    return keras.Model(image, model(image, training=False), name=model.name)


def _write_savedmodel(model: keras.Model, path: Path) -> None:
    _inference(model).export(path, format="tf_saved_model", verbose=False, input_signature=_signature(model))


def _write_onnx(model: keras.Model, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*np.object", category=FutureWarning)  # Keras' patch of tf2onnx
        _inference(model).export(path, format="onnx", verbose=False, input_signature=_signature(model))


def _open_savedmodel(path: Path) -> Run:
    loaded = tf.saved_model.load(str(path))
    return lambda batch: loaded.serve(tf.constant(batch)).numpy()


def _open_onnx(path: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, {session.get_inputs()[0].name: batch})[0]


@contextmanager
def _atomic_folder(path: Path) -> Iterator[Path]:
    """Like `files.atomic`, for a folder: an existing one cannot be replaced in one step, so it is moved aside first."""
    with staging(path.parent) as staged:
        temporary, old = staged / path.name, staged / "replaced"
        try:
            yield temporary
            if path.exists():
                path.replace(old)
            temporary.replace(path)
        finally:
            if old.exists() and not path.exists():
                old.replace(path)


@dataclass(frozen=True)
class _Format:
    name: str
    write: Callable[[keras.Model, Path], None]
    open: Callable[[Path], Run]
    atomic: Callable


_SAVEDMODEL = _Format("savedmodel", _write_savedmodel, _open_savedmodel, _atomic_folder)
_ONNX = _Format("onnx", _write_onnx, _open_onnx, atomic)


def _export(
    model: keras.Model,
    path: Path,
    kind: _Format,
    verification: Images | None,
    image_spec: ImageSpec | None,
    samples: int,
    seed: int,
    overwrite: bool,
) -> FormatResult:
    started, model = time.perf_counter(), plain(model)
    check_exportable(model)
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists; pass overwrite=True to replace it.")
    spec = image_spec or ImageSpec.of_model(model)
    if is_detector(model):
        raise UserError("SavedModel and ONNX files have one output, a detector has two: export it to .tflite files.")
    task = Outputs.of(model).only.task
    labels = verification.labels if isinstance(verification, Split) and task.accuracy else None
    evidence: Evidence = "synthetic" if verification is None else "held-out"
    if verification is None:
        images = synthetic_images(model.input_shape[1:])
    else:
        images = load_images(verification, spec, samples if labels is None else len(labels), seed)
        check_range(images)
    inputs = (images if spec.in_network else np.asarray(preprocess_input(images, spec))).astype("float32")

    model = float32_copy(model)  # also the reference of the comparison: the model's float16 noise does not count
    answers = model.predict(inputs, batch_size=_BATCH, verbose=0)
    check_predictions(model, inputs, answers)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with kind.atomic(path) as temporary:
            with captured_output():
                kind.write(model, temporary)
                run = kind.open(temporary)
            report = replace(_compare(answers, run, inputs, labels, task), evidence=evidence)
            size, digest = _size_and_digest(temporary)
            if not PRECISIONS["none"].accepts(report):
                raise VerificationError(
                    f"The {kind.name} disagrees with the model: {report.agreement}, SQNR {report.sqnr_db:.1f} dB. "
                    "Not written."
                )
    except (OSError, tf.errors.ResourceExhaustedError) as error:  # TensorFlow reports a full disk as the latter
        raise cannot_write(f"to {path.parent}", error) from None
    return FormatResult(path, size, kind.name, digest, time.perf_counter() - started, report)


def _compare(answers: np.ndarray, run: Run, inputs: np.ndarray, labels: np.ndarray | None, task: Task) -> VerifyReport:
    batches = [inputs[start : start + _BATCH] for start in range(0, len(inputs), _BATCH)]
    got = np.concatenate([run(batch) for batch in batches])
    return compare(answers, got, labels, task)


def _size_and_digest(path: Path) -> tuple[int, str]:
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    digest, size = hashlib.sha256(), 0
    for file in files:
        content = file.read_bytes()
        if path.is_dir():
            digest.update(str(file.relative_to(path)).encode())
        digest.update(content)
        size += len(content)
    return size, digest.hexdigest()


# Name of a format -> suffix of the path, and the export function.
WRITERS = {"savedmodel": ("_savedmodel", export_savedmodel), "onnx": (".onnx", export_onnx)}

"""SavedModel and ONNX: what Keras writes, run beside the model like every other file before it gets its name.

Imports `calibration`, `conversion`, `quantization`, `verification` beside it, and `datasets`,
`preprocessing`, `quiet`, `runs`, `errors` above.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_effnet.datasets.loading import Split
from keras_effnet.errors import UserError, VerificationError, first_line
from keras_effnet.export.calibration import Images, load_images, synthetic_images
from keras_effnet.export.conversion import check_exportable, float32_copy
from keras_effnet.export.recipes import PRECISIONS
from keras_effnet.export.verification import VerifyReport, compare
from keras_effnet.preprocessing import ImageSpec, preprocess_input
from keras_effnet.system.files import atomic
from keras_effnet.system.output import captured_output

_BATCH = 16
_GRAPH = "saved_model.pb"  # what makes a folder a SavedModel
_ONNX_PACKAGES = ("tf2onnx", "onnxruntime")

Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class FormatResult:
    """A SavedModel or an ONNX file that was written, and the evidence that it works.

    Args:
        path: Path of the file, or of a SavedModel's folder.
        size_bytes: Int, of a folder the sum of its files.
        format: `"savedmodel"` or `"onnx"`.
        sha256: String; of a folder over names and contents of its files.
        seconds: Float, writing and verification together.
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
    """Writes a TensorFlow SavedModel, for TensorFlow Serving and for converters, after running it beside the model.

    It computes in float32, takes batches of any size, and has the endpoints `serve` and `serving_default`. Keras stores
    each weight twice in it, so expect eight bytes a parameter.

    Args:
        model: Functional Keras model with one image input of fixed size and one output.
        path: Path of the folder.
        verification: Images to compare on: a folder, a `tf.data.Dataset` of batches, an array of shape
            `(N, height, width, 3)` or a `Split`, which brings its labels; pixels in 0..255. By default smooth synthetic
            ones, which serve for float arithmetic.
        image_spec: `ImageSpec`, how images are cropped.
        samples: Int, images at most; of a `Split` all are used.
        seed: Int, of the draw from a folder.
        overwrite: Bool, whether an existing SavedModel may be replaced.

    Returns:
        A `FormatResult`.

    Raises:
        UserError: Wrong arguments, images that cannot be right, or a path in use.
        VerificationError: It disagrees with the model; then nothing is written.

    Example:

    >>> result = keras_effnet.export.export_savedmodel(model, "serving/flowers/1", verification="flowers/test")
    >>> result.report.max_abs_diff
    """
    path = Path(path)
    if overwrite and path.exists() and not (path / _GRAPH).is_file() and (path.is_file() or any(path.iterdir())):
        raise UserError(f"{path} is no SavedModel, so it is not replaced; give another path.")
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
    """Writes an ONNX file, after running it with onnxruntime beside the model. Needs the extra `onnx`.

    It computes in float32 and takes batches of any size, channels last, under the name `image`.

    Args:
        model: Functional Keras model with one image input of fixed size and one output.
        path: Path that ends in `.onnx`.
        verification, image_spec, samples, seed, overwrite: As in `export_savedmodel`.

    Returns:
        A `FormatResult`.

    Raises:
        UserError: Wrong arguments, images that cannot be right, a path in use, or the extra is not installed.
        VerificationError: It disagrees with the model; then nothing is written.

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


# --- how each is written, opened and put in place


def _signature(model: keras.Model) -> list[tf.TensorSpec]:
    # Given, not left to Keras: it takes a model that was never called for one that was never built.
    return [tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="image")]


def _write_savedmodel(model: keras.Model, path: Path) -> None:
    model.export(path, format="tf_saved_model", verbose=False, input_signature=_signature(model))


def _write_onnx(model: keras.Model, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*np.object", category=FutureWarning)  # Keras' patch of tf2onnx
        model.export(path, format="onnx", verbose=False, input_signature=_signature(model))


def _open_savedmodel(path: Path) -> Run:
    loaded = tf.saved_model.load(str(path))
    return lambda batch: loaded.serve(tf.constant(batch)).numpy()


def _open_onnx(path: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, {session.get_inputs()[0].name: batch})[0]


@contextmanager
def _atomic_folder(path: Path) -> Iterator[Path]:
    """As `runs.atomic`, for a folder: an old one, which cannot be replaced in one step, is moved aside just before."""
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    old = path.with_name(f".{os.getpid()}-old-{path.name}")
    try:
        yield temporary
        if path.exists():
            path.replace(old)
        temporary.replace(path)
    finally:
        if old.exists() and not path.exists():
            old.replace(path)
        for leftover in (temporary, old):
            shutil.rmtree(leftover, ignore_errors=True)


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
    started = time.perf_counter()
    check_exportable(model)
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists; pass overwrite=True to replace it.")
    spec = image_spec or ImageSpec.of_model(model)
    labels = verification.labels if isinstance(verification, Split) else None
    if verification is None:
        images = synthetic_images(model.input_shape[1:])
    else:
        images = load_images(verification, spec, samples if labels is None else len(labels), seed)
    inputs = images if spec.in_network else np.asarray(preprocess_input(images, spec))

    model = float32_copy(model)  # also what is compared with: float16 noise is not the file's fault
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with kind.atomic(path) as temporary:
            with captured_output():
                kind.write(model, temporary)
                run = kind.open(temporary)
            report = _compare(model, run, inputs.astype("float32"), labels)
            size, digest = _size_and_digest(temporary)
            if not PRECISIONS["none"].accepts(report):
                raise VerificationError(
                    f"The {kind.name} disagrees with the model: the same class on {report.top1_agreement:.1%} of "
                    f"{report.samples} images, SQNR {report.sqnr_db:.1f} dB. Not written."
                )
    except (OSError, tf.errors.ResourceExhaustedError) as error:  # the latter is TensorFlow's word for a full disk
        cause = getattr(error, "strerror", None) or first_line(error).rpartition("; ")[2]
        raise UserError(f"Cannot write to {path.parent}: {cause}.") from None
    return FormatResult(path, size, kind.name, digest, time.perf_counter() - started, report)


def _compare(model: keras.Model, run: Run, inputs: np.ndarray, labels: np.ndarray | None) -> VerifyReport:
    batches = [inputs[start : start + _BATCH] for start in range(0, len(inputs), _BATCH)]
    got = np.concatenate([run(batch) for batch in batches])
    return compare(model.predict(inputs, batch_size=_BATCH, verbose=0), got, labels)


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


# Name of a format -> what follows the name of a model, and the function that writes it.
WRITERS = {"savedmodel": ("_savedmodel", export_savedmodel), "onnx": (".onnx", export_onnx)}

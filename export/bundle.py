"""The folder that a mobile developer receives: every precision asked for, labels, and a report that says which to ship.

Imports `tflite`, `latency`, `quantization`, `verification` beside it, and `plots`, `preprocessing`, `runs` above.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import keras

from keras_effnet import plots
from keras_effnet.errors import UserError, VerificationError
from keras_effnet.export.calibration import Pictures
from keras_effnet.export.latency import LatencyReport, benchmark
from keras_effnet.export.quantization import CALIBRATED, RECIPES
from keras_effnet.export.tflite import ExportResult, check_arguments, export_tflite
from keras_effnet.export.verification import VerifyReport
from keras_effnet.preprocessing import ImageSpec
from keras_effnet.runs import cpu_name, write_text


@dataclass(frozen=True)
class Row:
    """One precision of a bundle: the file, how it compares, how fast it is; or why it was refused."""

    quantization: str
    export: ExportResult | None = None
    latency: LatencyReport | None = None
    refused: str = ""

    @property
    def report(self) -> VerifyReport | None:
        return self.export.report if self.export else None

    def cells(self) -> tuple[str, ...]:
        """The row as text: precision, size, accuracy, agreement, SQNR, latency."""
        if self.export is None:
            return (self.quantization, "refused", "", "", "", "")
        accuracy = self.report.accuracy_tflite
        return (
            self.quantization,
            f"{self.export.size_bytes / 1e6:.2f} MB",
            "-" if accuracy is None else f"{accuracy:.1%}",
            f"{self.report.top1_agreement:.1%}",
            f"{self.report.sqnr_db:.1f} dB",
            f"{self.latency.median_ms:.2f} ms",
        )


HEADERS = ("precision", "size", "accuracy", "agreement", "SQNR", "latency")


@dataclass(frozen=True)
class Bundle:
    """What `write_bundle` wrote.

    Args:
        folder: Path.
        rows: Tuple of `Row`s, one a precision.
        recommendation: String, one sentence.
    """

    folder: Path
    rows: tuple[Row, ...]
    recommendation: str

    @property
    def refused(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.refused)

    def raise_if_refused(self) -> None:
        """Raises `VerificationError` with every reason if a precision was refused; the other files are kept."""
        if self.refused:
            raise VerificationError(" ".join(row.refused for row in self.refused))

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, default=str)


def _recommend(rows: Sequence[Row]) -> str:
    """The fastest file that keeps the model's answers; files within a tenth of it yield to the smallest."""
    sound = [row for row in rows if row.export and row.report.top1_agreement >= 0.97]
    if not sound:
        return "No file agrees with the model on 97% of the pictures; ship none before looking into it."
    fastest = min(row.latency.median_ms for row in sound)
    near = [row for row in sound if row.latency.median_ms <= 1.1 * fastest]
    best = min(near, key=lambda row: row.export.size_bytes)
    return (
        f"Ship {best.export.path.name}: {best.export.size_bytes / 1e6:.2f} MB, {best.latency.median_ms:.2f} ms on this "
        f"machine, and the model's own answer on {best.report.top1_agreement:.1%} of {best.report.samples} pictures."
    )


def _markdown(rows: Sequence[Row], recommendation: str) -> str:
    lines = ["# Export report", "", recommendation, ""]
    lines += [f"| {' | '.join(HEADERS)} |", "|---" * len(HEADERS) + "|"]
    lines += [f"| {' | '.join(row.cells())} |" for row in rows]
    lines += ["", "![](precisions.png)", ""]
    samples = next((row.report for row in rows if row.report), None)
    if samples:
        if samples.accuracy_keras is not None:
            lines.append(f"The Keras model on the same {samples.samples} pictures: {samples.accuracy_keras:.1%}.")
        lines.append(f"Latency: median of one picture, one thread, on {cpu_name()}.")
        lines.append("Agreement: share of pictures with the Keras model's most probable class. SQNR: of the logits.")
    lines += [f"{row.quantization} refused: {row.refused}" for row in rows if row.refused]
    files = [row.export for row in rows if row.export]
    lines += [f"`{file.path.name}` by {file.method}, sha256 {file.sha256}" for file in files]
    return "\n".join(lines) + "\n"


def _plot(rows: Sequence[Row], path: Path) -> None:
    kept = [row for row in rows if row.export]
    panels = {
        "size (MB)": [row.export.size_bytes / 1e6 for row in kept],
        "latency (ms)": [row.latency.median_ms for row in kept],
        "agreement (%)": [100 * row.report.top1_agreement for row in kept],
    }
    if kept and kept[0].report.accuracy_tflite is not None:
        panels["accuracy (%)"] = [100 * row.report.accuracy_tflite for row in kept]
    if kept:
        title = f"{len(kept)} precisions, verified on {kept[0].report.samples} pictures; {cpu_name()}"
        plots.precision_bars([row.quantization for row in kept], panels, title, path)


def write_bundle(
    model: keras.Model,
    folder: str | Path,
    quantizations: Sequence[str] = tuple(RECIPES),
    *,
    held_out: Pictures | None,
    calibration: Pictures | None = None,
    name: str = "model",
    input_type: str = "float32",
    labels: Sequence[str] | None = None,
    image_spec: ImageSpec | None = None,
    samples: int = 100,
    seed: int = 0,
    overwrite: bool = False,
    allow_degraded: bool = False,
    announce: Callable[[str], None] = lambda step: None,
) -> Bundle:
    """Exports several precisions, compares each with the model on held-out pictures, times it, and writes the report.

    A precision that is refused does not stop the others: its row says why.

    Args:
        model: Functional Keras model.
        folder: Where `NAME_PRECISION.tflite`, `labels.txt`, `image_spec.json`, `report.md`, `report.json` and
            `precisions.png` go.
        quantizations: Names of precisions.
        held_out: Pictures to compare on, as `verification` of `export_tflite`.
        calibration: Pictures for int8.
        name: String, first part of the file names.
        input_type: `"float32"` or `"uint8"`, of the int8 file.
        labels, image_spec, samples, seed, overwrite, allow_degraded: As in `export_tflite`.
        announce: Called with a line of text before each step, for progress.

    Returns:
        A `Bundle`.

    Raises:
        UserError: Wrong arguments or pictures.
    """
    folder = Path(folder)
    paths = {quantization: folder / f"{name}_{quantization}.tflite" for quantization in quantizations}
    # Only a calibrated file can take bytes.
    types = {quantization: input_type if quantization in CALIBRATED else "float32" for quantization in quantizations}
    if input_type not in types.values():
        raise UserError(f"input_type={input_type!r} needs int8 among the precisions, got {', '.join(quantizations)}.")
    for quantization, path in paths.items():
        check_arguments(model, path, quantization, calibration, types[quantization], labels, overwrite)

    spec = image_spec or ImageSpec.of_model(model)
    rows = []
    for quantization, path in paths.items():
        announce(f"Exporting {quantization}")
        try:
            result = export_tflite(
                model,
                path,
                quantization,
                calibration=calibration,
                verification=held_out,
                input_type=types[quantization],
                labels=labels,
                image_spec=spec,
                samples=samples,
                seed=seed,
                overwrite=overwrite,
                allow_degraded=allow_degraded,
            )
        except VerificationError as error:
            rows.append(Row(quantization, refused=str(error)))
        else:
            rows.append(Row(quantization, result, benchmark(result.path)))

    bundle = Bundle(folder, tuple(rows), _recommend(rows))
    spec.save(folder / "image_spec.json")
    _plot(rows, folder / "precisions.png")
    write_text(folder / "report.md", _markdown(rows, bundle.recommendation))
    write_text(folder / "report.json", bundle.to_json() + "\n")
    return bundle

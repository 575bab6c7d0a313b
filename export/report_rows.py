"""Rows of an export report, one per precision, and the charts drawn from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import NamedTuple

from keras_effnet.evaluation import quantization_plots as plots
from keras_effnet.export.acceptance import Attempt
from keras_effnet.export.candidate_trial import ExportResult
from keras_effnet.export.int8.layer_errors import LOST_DB, LayerError
from keras_effnet.export.int8.swish_profile import SwishProfile
from keras_effnet.export.measure.latency import LatencyReport
from keras_effnet.export.measure.verify_report import VerifyReport
from keras_effnet.export.tflite_file.inspection import Inspection
from keras_effnet.system.machine import cpu_name
from keras_effnet.tasks import TASKS


class KeptFile(NamedTuple):
    """The figures of a file that was written: those of its `ReportRow`, none missing but the memory."""

    quantization: str
    export: ExportResult
    report: VerifyReport
    latency: LatencyReport
    inspection: Inspection
    memory_mb: float | None


@dataclass(frozen=True)
class ReportRow:
    """Result of one precision: comparison and cost of its file, or why it was refused.

    Args:
        quantization: String.
        report: `VerifyReport`, or None if no file could be run.
        layers: Tuple of `LayerError`s.
        export: `ExportResult`, or None if the file was refused.
        latency: `LatencyReport`.
        memory_mb: Float, peak memory of loading and running the file; None if the system does not report it.
        inspection: `Inspection`.
        warning: String, the defect of a file that was kept nevertheless.
        doubt: String, why too few images were compared to tell whether the file meets its bound.
        refused: String, the reason why no file was written.
        attempts: Tuple of an `Attempt` for each method that was tried, if there were several.
        swishes: Tuple of `SwishProfile`s of an int8 or mixed file.
    """

    quantization: str
    report: VerifyReport | None = None
    layers: tuple[LayerError, ...] = ()
    export: ExportResult | None = None
    latency: LatencyReport | None = None
    memory_mb: float | None = None
    inspection: Inspection | None = None
    warning: str = ""
    doubt: str = ""
    refused: str = ""
    attempts: tuple[Attempt, ...] = ()
    swishes: tuple[SwishProfile, ...] = ()

    @property
    def kept(self) -> KeptFile | None:
        """The figures of a file that was kept and measured; None if the precision was refused."""
        if self.export is None or self.report is None or self.latency is None or self.inspection is None:
            return None
        return KeptFile(self.quantization, self.export, self.report, self.latency, self.inspection, self.memory_mb)


def draw_charts(rows: Sequence[ReportRow], folder: Path) -> list[Path]:
    """Draw the charts that the rows have data for and return their paths."""
    kept = [file for row in rows if (file := row.kept)]
    images = []
    if kept:
        panels = {
            "size (MB)": [file.export.size_bytes / 1e6 for file in kept],
            "latency (ms)": [file.latency.median_ms for file in kept],
        }
        for place, output in enumerate(kept[0].report.each):
            task = TASKS[output.task]
            scale, unit = (100, " (%)") if task.percent else (1, "")
            name = "".join(f"{name}: " for name in list(kept[0].report.outputs)[place : place + 1])
            scores = [scale * file.report.each[place].score for file in kept]
            panels[f"{name}{task.header}{unit} of {output.samples}"] = scores
        accuracies = [accuracy for file in kept if (accuracy := file.report.accuracy_tflite) is not None]
        if len(accuracies) == len(kept):
            panels["accuracy (%)"] = [100 * accuracy for accuracy in accuracies]
        title = f"{len(kept)} precisions, verified on {kept[0].report.samples} images; {cpu_name()}"
        images.append(folder / "precisions.png")
        plots.precision_bars([file.quantization for file in kept], panels, title, images[-1])
    profiles = {row.quantization: [(e.layer, e.sqnr_db) for e in row.layers] for row in rows if row.layers}
    if profiles:
        images.append(folder / "layers.png")
        plots.layer_errors(profiles, LOST_DB, images[-1])
    if profiled := [row for row in rows if row.swishes]:
        images.append(folder / "swishes.png")
        plots.swish_profiles(*_swish_chart(profiled), images[-1])
    return images


def _swish_chart(rows: Sequence[ReportRow]) -> tuple[dict[str, Sequence[float]], dict[str, list[float | None]]]:
    """Ranges before each swish, and the SQNR behind it in the first and the kept file of each precision."""
    ranges: dict[str, Sequence[float]] = {
        each.layer: (each.low, each.high, each.bulk_low, each.bulk_high) for each in rows[0].swishes
    }
    lines: dict[str, list[float | None]] = {}
    for row in rows:
        first, *rest = [attempt.method for attempt in row.attempts] or [""]
        if rest:
            lines[f"{row.quantization}, {shorten(first, 40)}"] = [each.first_db for each in row.swishes]
        lines[f"{row.quantization}, kept" if rest else row.quantization] = [each.kept_db for each in row.swishes]
    return ranges, lines

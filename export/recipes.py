"""Precisions: for each the recipe that makes the bytes of a `.tflite` file, and the bounds that the file must meet.

TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from keras_effnet.errors import UserError, one_of, real_number
from keras_effnet.export.choices import INPUT_TYPES
from keras_effnet.export.conversion.float_graph import FloatGraph
from keras_effnet.export.conversion.source import ExportSource
from keras_effnet.export.finetune.parent import FineTuning
from keras_effnet.export.int8.correction import correct
from keras_effnet.export.int8.equalization import normalizes_swishes, scalable
from keras_effnet.export.int8.fitted_files import (
    equalized,
    fitted,
    quantize_fitted,
    with_float_blocks,
    with_int8_convolutions,
)
from keras_effnet.export.int8.quantizers import best_calibrated, quantize_int8, quantize_int16x8
from keras_effnet.export.measure.verify_report import VerifyReport
from keras_effnet.export.tflite_file.weight_storage import dynamic_range, float16_weights, int8_weights
from keras_effnet.tasks import TASKS, TaskName

_COMPARED = 32  # calibration images on which minmax and percentile ranges are compared


@dataclass(frozen=True)
class Settings:
    """Options of a recipe.

    Args:
        input_type: `"float32"` or `"uint8"`.
        method: String, the int8 method to use; by default several are tried in turn.
        float_blocks: Tuple of names of the parts that a mixed file computes in float; by default the convolutions or
            blocks are chosen by measured noise and time.
        tuning: `FineTuning` of quantization-aware training, or None for its default.
        budget: Float, most time for one image relative to the float32 file, or None. With a budget all int8 methods or
            sets of convolutions or blocks near it are tried.
        announce: Called with a line of text before each long step.
    """

    input_type: str = "float32"
    method: str | None = None
    float_blocks: tuple[str, ...] = ()
    tuning: FineTuning | None = None
    budget: float | None = None
    announce: Callable[[str], None] = field(default=lambda step: None, repr=False)


class Candidate(NamedTuple):
    """A file made by a recipe.

    Args:
        method: String, name of the method.
        content: The file's bytes.
        graph: `FloatGraph` that it was made from, to compare layers with.
    """

    method: str
    content: bytes
    graph: FloatGraph


def _float32(source: ExportSource, settings: Settings) -> Iterator[Candidate]:
    graph = source.graph("float32")
    yield Candidate("float32", graph.content, graph)


def _float16(source: ExportSource, settings: Settings) -> Iterator[Candidate]:
    """Weights in float16, arithmetic in float32 on CPUs and float16 on GPUs."""
    graph = source.graph("float32")
    yield Candidate("float16", float16_weights(graph.content), graph)


def _dynamic(source: ExportSource, settings: Settings) -> Iterator[Candidate]:
    """Weights in int8, activations quantized at run time."""
    graph = source.graph("float32")
    yield Candidate("dynamic", dynamic_range(graph.content), graph)


def _weight_only(source: ExportSource, settings: Settings) -> Iterator[Candidate]:
    """Weights in int8, unpacked to float32 when the file is loaded; arithmetic in float."""
    graph = source.graph("float32")
    yield Candidate("weight_only", int8_weights(graph.content), graph)


def _minmax(source: ExportSource, settings: Settings) -> Candidate:
    graph = source.calibrated(settings.input_type)
    return Candidate("minmax", quantize_int8(graph.minmax, settings.input_type), graph)


def _percentile(source: ExportSource, settings: Settings) -> Candidate:
    """Percentile ranges: extreme values saturate, and the step of all others is smaller."""
    graph = source.calibrated(settings.input_type)
    return Candidate("percentile", quantize_int8(graph.percentile, settings.input_type), graph)


def _corrected(source: ExportSource, settings: Settings) -> Candidate:
    """The better of minmax and percentile ranges, plus bias and gain correction; no loss of speed."""
    graph = source.calibrated(settings.input_type)
    compared = graph.inputs(graph.calibration[:_COMPARED])
    content = quantize_int8(best_calibrated(graph, compared), settings.input_type)
    return Candidate("corrected", correct(content, graph), graph)


def _fitted(source: ExportSource, settings: Settings) -> Candidate:
    """Fitted ranges, correction and float logits."""
    graph, calibrated = fitted(source.calibrated(settings.input_type))
    return Candidate("fitted", quantize_fitted(graph, calibrated, settings.input_type), graph)


def _equalized(source: ExportSource, settings: Settings) -> Candidate:
    """The same after channel equalization of every swish; slower by one multiplication per swish."""
    if not scalable(source.model):
        raise UserError(
            f"{source.model.name} has no swish behind batch normalization that can be scaled: use method='fitted' "
            "(--method fitted), which gives the same file."
        )
    graph, calibrated = equalized(source.calibrated(settings.input_type))
    return Candidate("equalized", quantize_fitted(graph, calibrated, settings.input_type), graph)


def _trained(source: ExportSource, settings: Settings) -> Candidate:
    """Quantization-aware training on the calibration images."""
    from keras_effnet.export.finetune import qat  # imported here: rarely used

    result = qat.train_quantized(source.model, source.images, settings.tuning or qat.TUNING, settings.announce)
    return Candidate("qat", *result.file(settings.input_type))


# By increasing time of their files, and by how many runtimes take them: float logits come after files that are int8
# throughout. Correction gains 1.9 to 3.7 dB on every network that minmax or percentile ranges do not destroy; a
# destroyed one can lose by it, so plain ranges follow. Training runs only on request.
_TRIED = {
    "corrected": _corrected,
    "minmax": _minmax,
    "percentile": _percentile,
    "fitted": _fitted,
    "equalized": _equalized,
}
_INT8_METHODS = _TRIED | {"qat": _trained}


def _int8(source: ExportSource, settings: Settings) -> Iterator[Candidate]:
    useful = [name for name in _TRIED if name != "equalized" or scalable(source.model)]
    for name in [settings.method] if settings.method else useful:
        settings.announce(f"int8 by {name}")
        yield _INT8_METHODS[name](source, settings)


def _int16x8(source: ExportSource, settings: Settings) -> Iterator[Candidate]:
    """Weights in int8, activations in int16: close to float, for hardware with int16 kernels; slow on CPUs."""
    graph = source.calibrated("float32")
    yield Candidate("minmax", quantize_int16x8(graph.minmax), graph)


def _mixed(source: ExportSource, settings: Settings) -> Iterator[Candidate]:
    """int8 in a part of the network, named or chosen by noise over time: of swish networks convolutions, else blocks.

    Blocks are also the way to a budget that no file of int8 convolutions meets.
    """
    graph, made = source.calibrated(settings.input_type), 0
    if normalizes_swishes(source.model) and not settings.float_blocks:
        files = with_int8_convolutions(graph, settings.input_type, settings.budget, settings.announce)
        for chosen, content, origin in files:
            made += 1
            yield Candidate(f"int8: {chosen}; corrected", content, origin)
    if made > 1:  # a single one may exceed the budget; it is tried so that users see what a larger budget gives
        return
    choices = settings.input_type, settings.float_blocks, settings.budget, settings.announce
    for blocks, content in with_float_blocks(graph, *choices):
        yield Candidate(f"float: {', '.join(blocks) or 'nothing'}; corrected", content, graph)


@dataclass(frozen=True)
class Bounds:
    """Minimum figures of a file.

    Recipes are tried until one reaches the bound of its task's agreement; a file is refused if the 95% interval of its
    agreement lies below it.

    Args:
        decisions: Float in [0, 1], share of the float model's classes or decisions.
        r2, cosine, iou: Floats, R², mean cosine similarity and mean IoU against the float model.
        boxes: Float in [0, 1], share of detections that the float model makes too.
        ap: Float in [0, 1], average precision that a detector's file may lose against true boxes: a maximum.
        sqnr_db: Float, signal-to-quantization-noise ratio of the output.
    """

    decisions: float
    r2: float
    cosine: float
    iou: float
    boxes: float
    ap: float
    sqnr_db: float


@dataclass(frozen=True)
class Precision:
    """Recipe of a precision and the bounds that its file must meet.

    Args:
        candidates: Function `(ExportSource, Settings)` to an iterator of `Candidate`s, tried until one passes.
        needs_calibration: Bool.
        takes_bytes: Bool, whether uint8 input is supported.
        weight_bytes: Float, minimum bytes per weight in the file.
        bounds: `Bounds`.
    """

    candidates: Callable[[ExportSource, Settings], Iterator[Candidate]]
    needs_calibration: bool
    takes_bytes: bool
    weight_bytes: float
    bounds: Bounds

    def meets(self, report: VerifyReport) -> bool:
        """Whether the measured agreement and SQNR reach the bounds of this precision."""
        return all(
            each.score >= self.min_agreement(each.task)
            and each.sqnr_db >= self.bounds.sqnr_db
            and not self.loses(each.lost)
            for each in report.each
        )

    def accepts(self, report: VerifyReport) -> bool:
        """Whether a report is consistent with the bounds: the intervals of agreement and loss reach them.

        With few images, an agreement just below the bound is no evidence against the file.
        """
        return all(
            each.agreement_interval[1] >= self.min_agreement(each.task)
            and each.sqnr_db >= self.bounds.sqnr_db
            and not self.loses(each.surely_lost)
            for each in report.each
        )

    def loses(self, average_precision: float | None) -> bool:
        """Whether a loss of average precision exceeds the bound; an unknown one does not."""
        return average_precision is not None and average_precision > self.bounds.ap

    def min_agreement(self, task: TaskName) -> float:
        """The bound of the agreement for a task."""
        return getattr(self.bounds, TASKS[task].bound)

    def with_min_agreement(self, least: float | None) -> Precision:
        """This precision with another bound of the agreement, whatever the task; None changes nothing."""
        if least is None:
            return self
        if not 0 <= real_number("min_agreement", least) <= 1:
            raise UserError(f"min_agreement must lie between 0 and 1, got {least}.")
        return replace(self, bounds=Bounds(least, least, least, least, least, self.bounds.ap, self.bounds.sqnr_db))


# The int8 bounds of decisions reject per-tensor weights and ranges calibrated on noise (91.5% agreement on Lite2).
# Those of R² are the same noise as those of the SQNR.
#                                                   bytes per weight    decisions   r2  cosine   iou  boxes  ap  sqnr_db
PRECISIONS: dict[str, Precision] = {
    "none": Precision(_float32, False, False, 4.0, Bounds(0.999, 0.999999, 0.9999, 0.99, 0.99, 0.002, 60.0)),
    "float16": Precision(_float16, False, False, 2.0, Bounds(0.99, 0.999, 0.999, 0.98, 0.97, 0.005, 30.0)),
    "dynamic": Precision(_dynamic, False, False, 1.0, Bounds(0.95, 0.937, 0.97, 0.93, 0.8, 0.03, 12.0)),
    "weight_only": Precision(_weight_only, False, False, 1.0, Bounds(0.97, 0.968, 0.98, 0.95, 0.85, 0.02, 15.0)),
    "int8": Precision(_int8, True, True, 1.0, Bounds(0.93, 0.90, 0.95, 0.90, 0.8, 0.03, 10.0)),
    "int16x8": Precision(_int16x8, True, False, 1.0, Bounds(0.97, 0.99, 0.99, 0.95, 0.9, 0.01, 20.0)),
    "mixed": Precision(_mixed, True, True, 1.0, Bounds(0.97, 0.968, 0.98, 0.95, 0.85, 0.02, 15.0)),
}
BUDGETED = ("int8", "mixed")  # tried by several methods of different speed
CALIBRATED = tuple(name for name, recipe in PRECISIONS.items() if recipe.needs_calibration)


def check_settings(quantization: str, settings: Settings) -> Precision:
    """Return a precision after checking that the settings apply to it.

    Raises:
        UserError: An unknown name (with the closest match), or a setting that the precision does not use.
    """
    recipe = PRECISIONS[one_of("quantization", quantization, PRECISIONS)]
    one_of("input type", settings.input_type, INPUT_TYPES)
    if settings.input_type != "float32" and not recipe.takes_bytes:
        raise UserError(
            f"input_type={settings.input_type!r} needs quantization='int8' or 'mixed'; a {quantization} file takes "
            "float32."
        )
    if settings.method is not None:
        one_of("method", settings.method, _INT8_METHODS)
        if quantization != "int8":
            raise UserError(f"method={settings.method!r} is a way to an int8 file, not to a {quantization} one.")
    if settings.budget is not None:
        if quantization not in BUDGETED:
            raise UserError(f"A budget bounds the time of int8 and mixed files, not of {quantization} ones.")
        if not (math.isfinite(settings.budget) and settings.budget > 0):
            raise UserError(f"The budget is time over float32's, such as 0.65, got {settings.budget}.")
    if settings.float_blocks and quantization != "mixed":
        raise UserError(f"float_blocks go with quantization='mixed', not {quantization!r}.")
    return recipe

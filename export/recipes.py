"""The precisions: for each a small recipe from a network to the bytes of a `.tflite` file.

Imports `conversion`, `correction`, `equalization`, `integer`, `islands`, `ranges`, `storage`, `verification` beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from keras_effnet.errors import UserError, one_of
from keras_effnet.export.choices import INPUT_TYPES
from keras_effnet.export.conversion import ExportSource, FloatGraph
from keras_effnet.export.finetune.parent import FineTuning
from keras_effnet.export.int8.correction import correct
from keras_effnet.export.int8.equalization import LOGISTIC_RANGE, equalize
from keras_effnet.export.int8.float_islands import by_sensitivity, with_islands
from keras_effnet.export.int8.quantizers import best_calibrated, quantize_int8, quantize_int16x8
from keras_effnet.export.int8.ranges import scaled_swish_ranges, with_ranges
from keras_effnet.export.tflite_file.weight_storage import float16_weights, int8_weights
from keras_effnet.export.verification import VerifyReport

_COMPARED = 32  # calibration images on which two ways to take ranges are compared


@dataclass(frozen=True)
class Settings:
    """What a recipe is told beside the network.

    Args:
        input_type: `"float32"` or `"uint8"`.
        method: String, the one way to take of those that an int8 file may be made; by default they are tried in turn.
        float_blocks: Tuple of names of the parts that a mixed file computes in float; by default they are found by
            measuring.
        tuning: `FineTuning` of quantization-aware training, or None for its default.
        announce: Called with a line of text as long steps go on.
    """

    input_type: str = "float32"
    method: str | None = None
    float_blocks: tuple[str, ...] = ()
    tuning: FineTuning | None = None
    announce: Callable[[str], None] = field(default=lambda step: None, repr=False)


class Candidate(NamedTuple):
    """A file that a recipe made.

    Args:
        method: String, the way it was made.
        content: The file's bytes.
        graph: `FloatGraph` whose tensors it has, to compare them with.
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
    """Weights in int8, activations quantized while running."""
    graph = source.graph("float32")
    yield Candidate("dynamic", int8_weights(graph.content), graph)


def _minmax(source: ExportSource, settings: Settings) -> Candidate:
    graph = source.graph(settings.input_type)
    return Candidate("minmax", quantize_int8(graph.minmax, settings.input_type), graph)


def _percentile(source: ExportSource, settings: Settings) -> Candidate:
    """Ranges of the bulk: a few extreme values saturate, and the steps of all others shrink."""
    graph = source.graph(settings.input_type)
    return Candidate("percentile", quantize_int8(graph.percentile, settings.input_type), graph)


def _corrected(source: ExportSource, settings: Settings) -> Candidate:
    """The ranges that serve better, and every convolution's mean and gain put right; as fast as without."""
    graph = source.graph(settings.input_type)
    calibrated = best_calibrated(graph, graph.inputs(graph.pixels[:_COMPARED]))
    return Candidate("corrected", correct(quantize_int8(calibrated, settings.input_type), graph), graph)


def equalized(plain: FloatGraph) -> tuple[FloatGraph, bytes]:
    """A graph with every swish equalized channel by channel, and its float file with ranges."""
    model, swishes = equalize(plain.model, plain.images)
    graph = replace(plain, model=model)
    lows = {swish.scale.tobytes(): -swish.low for swish in swishes}
    return graph, with_ranges(graph.percentile, scaled_swish_ranges(graph.minmax, lows, LOGISTIC_RANGE))


def _equalized(source: ExportSource, settings: Settings) -> Candidate:
    """Every swish equalized, then corrected; one more product for each swish, so slower."""
    graph, calibrated = equalized(source.graph(settings.input_type))
    return Candidate("equalized", correct(quantize_int8(calibrated, settings.input_type), graph), graph)


def _trained(source: ExportSource, settings: Settings) -> Candidate:
    """Quantization-aware training on the calibration images."""
    from keras_effnet.export.finetune import qat  # late: few need it

    result = qat.train_quantized(source.model, source.pixels, settings.tuning or qat.TUNING, settings.announce)
    return Candidate("qat", *result.file(settings.input_type))


# In the order of tries. Correction costs no speed and gained every network that int8 does not destroy 1.9 to 3.7 dB;
# one that it does can lose by it, so plain ranges follow. Equalizing is the slowest; training is done when asked for.
_TRIED = {"corrected": _corrected, "minmax": _minmax, "percentile": _percentile, "equalized": _equalized}
INT8_METHODS = _TRIED | {"qat": _trained}


def _int8(source: ExportSource, settings: Settings) -> Iterator[Candidate]:
    for name in [settings.method] if settings.method else _TRIED:
        settings.announce(f"int8 by {name}")
        yield INT8_METHODS[name](source, settings)


def _int16x8(source: ExportSource, settings: Settings) -> Iterator[Candidate]:
    """Weights in int8, activations in int16: nearly float's answers, on hardware that has it; slow on CPUs."""
    graph = source.graph("float32")
    yield Candidate("minmax", quantize_int16x8(graph.minmax), graph)


def _mixed(source: ExportSource, settings: Settings) -> Iterator[Candidate]:
    """int8, corrected, with islands of float: the named blocks, or more and more of those that int8 hurts most."""
    graph = source.graph(settings.input_type)
    if names := settings.float_blocks:
        islands = (
            (names, with_islands(calibrated, graph.model, names, settings.input_type))
            for calibrated in (graph.minmax, graph.percentile)
        )
    else:
        settings.announce("Measuring what each block loses in int8")
        islands = by_sensitivity(graph, settings.input_type)
    for chosen, content in islands:
        method = f"float: {', '.join(chosen) or 'nothing'}"
        yield Candidate(f"{method}; corrected", correct(content, graph), graph)
        yield Candidate(method, content, graph)  # where int8 destroys much, correction can lose, as in an int8 file


@dataclass(frozen=True)
class Precision:
    """How a precision is made, and what its file must reach to be kept.

    Args:
        candidates: Function `(ExportSource, Settings)` to an iterator of files, which ends when one of them passes.
        needs_calibration: Bool.
        takes_bytes: Bool, whether the file may take uint8.
        weight_bytes: Float, least bytes a weight takes in the file.
        min_agreement: Float in [0, 1], least share of images with the float model's most probable class.
        min_sqnr_db: Float, least signal-to-quantization-noise ratio of the logits.
    """

    candidates: Callable[[ExportSource, Settings], Iterator[Candidate]]
    needs_calibration: bool
    takes_bytes: bool
    weight_bytes: float
    min_agreement: float
    min_sqnr_db: float

    def accepts(self, report: VerifyReport) -> bool:
        """Whether a report meets the bounds of this precision."""
        return report.top1_agreement >= self.min_agreement and report.sqnr_db >= self.min_sqnr_db


# int8 bounds are set so that per-tensor weights and ranges from noise (91.5% agreement on Lite2) fail them.
#                     candidates calibration bytes weight_bytes agreement sqnr_db
PRECISIONS: dict[str, Precision] = {
    "none": Precision(_float32, False, False, 4.0, 0.999, 60.0),
    "float16": Precision(_float16, False, False, 2.0, 0.99, 30.0),
    "dynamic": Precision(_dynamic, False, False, 1.0, 0.95, 12.0),
    "int8": Precision(_int8, True, True, 1.0, 0.93, 10.0),
    "int16x8": Precision(_int16x8, True, False, 1.0, 0.97, 20.0),
    "mixed": Precision(_mixed, True, True, 1.0, 0.97, 15.0),
}
CALIBRATED = tuple(name for name, recipe in PRECISIONS.items() if recipe.needs_calibration)


def check_settings(quantization: str, settings: Settings) -> Precision:
    """The recipe of a precision, if the settings are for it.

    Raises:
        UserError: An unknown name, with the closest match, or a setting that the precision has no use for.
    """
    recipe = PRECISIONS[one_of("quantization", quantization, PRECISIONS)]
    one_of("input type", settings.input_type, INPUT_TYPES)
    if settings.input_type != "float32" and not recipe.takes_bytes:
        raise UserError(
            f"input_type={settings.input_type!r} needs quantization='int8' or 'mixed'; a {quantization} file takes "
            "float32."
        )
    if settings.method is not None:
        one_of("method", settings.method, INT8_METHODS)
        if quantization != "int8":
            raise UserError(f"method={settings.method!r} is a way to an int8 file, not to a {quantization} one.")
    if settings.float_blocks and quantization != "mixed":
        raise UserError(f"float_blocks go with quantization='mixed', not {quantization!r}.")
    return recipe

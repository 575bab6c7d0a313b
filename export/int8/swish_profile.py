"""Ranges before each swish, and the signal-to-noise ratio behind it in the first and the kept file: why int8 loses.

LiteRT and numpy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from keras_effnet.export.conversion.float_graph import BULK, FloatGraph
from keras_effnet.export.int8.layer_errors import LayerError
from keras_effnet.export.int8.range_fitting import ActivationFit
from keras_effnet.export.tflite_file.tensors import layer_of


@dataclass(frozen=True)
class SwishProfile:
    """Values before one swish in the float file, and the quantization error of its output.

    Args:
        layer: String, name of the Keras layer, with a number if it has several swishes.
        low, high: Floats, minimum and maximum of the pre-activation on the calibration images.
        bulk_low, bulk_high: Floats, range of the central 99.8% of its values.
        first_db: Float, SQNR of the output in the file of the first method that was tried, or None if not measured.
        kept_db: Float, SQNR of the output in the file that was kept, or None.
    """

    layer: str
    low: float
    high: float
    bulk_low: float
    bulk_high: float
    first_db: float | None
    kept_db: float | None


def profile_swishes(
    graph: FloatGraph, first: Sequence[LayerError], kept: Sequence[LayerError]
) -> tuple[SwishProfile, ...]:
    """Profile the swishes of a network in execution order, without those of squeeze-and-excite.

    Args:
        graph: `FloatGraph` with images, of the network as it was given.
        first: Layer errors of the file of the first method that was tried.
        kept: Layer errors of the file that was kept.
    """
    fit = ActivationFit(graph.content, graph.images)
    names = [layer.name for layer in graph.model.layers]
    before, after = ({error.layer: error.sqnr_db for error in errors} for errors in (first, kept))
    found: list[SwishProfile] = []
    places: Counter[str] = Counter()
    for given, output in fit.swishes.items():
        name = layer_of(fit.file.subgraphs[0].tensors[output].name, names)
        if name is None or fit.pooled(given):
            continue
        seen, errors = graph.observed[given], (before.get(name), after.get(name))
        places[name] += 1
        shown = name if places[name] == 1 else f"{name} ({places[name]})"
        found.append(SwishProfile(shown, seen.low, seen.high, *seen.bulk(BULK), *errors))
    return tuple(found)

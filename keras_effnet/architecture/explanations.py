"""Published networks beside the rule that they were scaled by. Pure Python."""

from __future__ import annotations

from dataclasses import dataclass

from keras_effnet.architecture import scaling as rules
from keras_effnet.architecture.detectors import DETECTORS, DetectorScaling, detector_scaling, published_name
from keras_effnet.architecture.scaling import PUBLISHED, CompoundScaling, Explanation
from keras_effnet.errors import UserError, one_of


@dataclass(frozen=True)
class DetectorExplanation:
    """Comparison of a published detector with the paper's rule; `str()` formats it as a table."""

    name: str
    phi: float
    published: DetectorScaling
    formula: DetectorScaling

    def __str__(self) -> str:
        rows = [("resolution", f"{self.published.image_size} px", f"{self.formula.image_size} px")]
        for label, field in (("BiFPN width", "width"), ("BiFPN cells", "cells"), ("head depth", "head_depth")):
            rows.append((label, f"{getattr(self.published, field)}", f"{getattr(self.formula, field)}"))
        table = "\n".join(f"  {label:<18}{ours:>10}{rule:>16}" for label, ours, rule in rows)
        lite = " Lite detectors have sizes of their own." if "lite" in self.name else ""
        return (
            f"{self.name}: published by hand, to be compared with the rule at phi = {self.phi:g}.{lite}\n"
            f"  {'':<18}{'published':>10}{'formula':>16}\n{table}"
        )


def explain_detector(name: str) -> DetectorExplanation:
    """Compare a published detector with the paper's rule at its number; D7x and Lite3x count as 7 and 3.

    Args:
        name: Name of a published detector, `"det-"` may be left out.

    Returns:
        A `DetectorExplanation`; print it.

    Raises:
        UserError: No published detector has this name.
    """
    known = one_of("published detector", published_name(name), DETECTORS)
    spec, phi = DETECTORS[known], int("".join(filter(str.isdigit, known)))
    published = DetectorScaling(spec.image_size, spec.width, spec.cells, spec.head_depth)
    return DetectorExplanation(known, phi, published, detector_scaling(phi))


def explain(name: str, scaling: CompoundScaling | None = None) -> Explanation | DetectorExplanation:
    """Compare a published network or detector with the scaling rule of its paper.

    B1-B7 are not exactly alpha^phi, beta^phi, gamma^phi: the authors rounded a table by hand and trained what it says.
    The row is shown beside the formula at the phi that fits it best. D0-D7 have such a table too.

    Args:
        name: `"b0"` to `"b7"`, `"lite0"` to `"lite4"`, `"v2-b0"` to `"v2-b3"`; or a detector: `"d0"` to `"d7"`,
            `"d7x"`, `"det-lite0"` to `"det-lite4"`. V2-S to V2-XL were not scaled but searched one by one.
        scaling: `CompoundScaling`, by default with the paper's constants; the rule of detectors has no such constants.

    Returns:
        An `Explanation` or a `DetectorExplanation`; print it.

    Raises:
        UserError: The published tables have no such name.

    Example:

    >>> print(explain("d5"))
    """
    lower = str(name).lower()
    if lower not in PUBLISHED and published_name(lower) in DETECTORS:
        if scaling is not None:
            raise UserError(f"{name} is a detector, whose rule takes no CompoundScaling: leave it out.")
        return explain_detector(lower)
    return rules.explain(one_of("published model", lower, [*PUBLISHED, *DETECTORS]), scaling)

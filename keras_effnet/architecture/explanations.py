"""Published networks beside the rule that they were scaled by. Pure Python."""

from __future__ import annotations

from keras_effnet.architecture import scaling as rules
from keras_effnet.architecture.detectors import DETECTORS, DetectorExplanation, explain_detector, published_name
from keras_effnet.architecture.scaling import PUBLISHED, CompoundScaling, Explanation
from keras_effnet.errors import UserError, one_of


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

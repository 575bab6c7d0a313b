"""A recommended network as predicted, and as it was trained and measured. Pure Python."""

from __future__ import annotations

from dataclasses import dataclass

from keras_effnet.study.recommendation import CostLimit, Recommendation
from keras_effnet.study.summary import Summary


@dataclass(frozen=True)
class PredictionCheck:
    """Prediction of a recommendation beside the result of training the network by the study's protocol.

    Args:
        found: `Recommendation`.
        got: `Summary` of the trained network.
        limit: `CostLimit` that was asked for.
    """

    found: Recommendation
    got: Summary
    limit: CostLimit

    @property
    def within(self) -> bool | None:
        """Whether the accuracy lies in the interval; None where the prediction has no interval."""
        low, high = self.found.band
        return None if self.found.band == (0.0, 1.0) else low <= self.got.accuracy <= high

    @property
    def cost(self) -> float:
        """Cost of the trained network, in the unit of the limit."""
        return float(getattr(self.got, self.limit.kind))

    def to_dict(self) -> dict[str, float | int | bool | None]:
        """Figures for JSON."""
        return {
            "accuracy_predicted": self.found.accuracy,
            "accuracy_got": self.got.accuracy,
            "within": self.within,
            "cost_predicted": self.found.cost,
            "cost_got": self.cost,
            "seeds": len(self.got.accuracies),
        }

    def sentences(self) -> list[str]:
        """Predicted against got, for the accuracy and for the cost."""
        found, got = self.found, self.got
        interval = f" ({found.band[0]:.1%} to {found.band[1]:.1%})" if self.within is not None else ""
        verdict = {True: "within the interval", False: "outside the interval", None: "no interval to judge it by"}
        seeds = f"{len(got.accuracies)} seed{'s' * (len(got.accuracies) > 1)}"
        shown = self.limit.shown
        kept = "kept" if self.cost <= self.limit.amount else "exceeded"
        return [
            f"Accuracy: predicted {found.accuracy:.1%}{interval}, got {got.accuracy:.1%} over {seeds} on {got.split} "
            f"images: {verdict[self.within]}.",
            f"Cost: predicted {shown(found.cost)}, got {shown(self.cost)} (x{self.cost / found.cost:.2f}); the budget "
            f"of {shown(self.limit.amount)} is {kept}.",
        ]

"""Numbers of seeds after which a growing study is judged, and the share of false findings of each look. Pure Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras_effnet.study.statistics.comparisons import LEVEL


def growing(first: int, last: int, factor: int) -> list[int]:
    """Whole numbers from `first` to `last`, each `factor` times the one before, but for the last.

    >>> growing(1, 9, 3)
    [1, 3, 9]
    """
    steps = [first]
    while steps[-1] * factor < last:
        steps.append(steps[-1] * factor)
    return [*steps, last] if steps[-1] < last else [last]


@dataclass(frozen=True)
class Looks:
    """Interim analyses of a study whose seeds grow until its comparisons are settled.

    Whoever looks several times, and stops at the first difference, finds one between equal networks more often than in
    5% of studies. So the 5% is divided among the looks, in proportion to their seeds: the probability of a false
    finding at any of them is at most the sum of their shares.

    Args:
        first: Int, seeds of every network.
        most: Int, seeds up to which unclear comparisons grow.
    """

    first: int
    most: int

    @property
    def seeds(self) -> list[int]:
        """Seeds at each look: doubled each time, up to `most`."""
        return growing(self.first, max(self.first, self.most), 2)

    def level(self, seeds: int) -> float:
        """Share of false findings of the look after so many seeds, or of the last one before."""
        reached = max((look for look in self.seeds if look <= seeds), default=self.first)
        return LEVEL * (reached / sum(self.seeds))

    def correction(self) -> str:
        """The correction in words, such as `for looks after 3, 6 and 12 seeds`; empty for a single look."""
        return f"for looks after {in_series(self.seeds)} seeds" if len(self.seeds) > 1 else ""

    def outcome(self, seeds: Mapping[str, int], unclear: int) -> str:
        """Say which networks got further seeds, and what they left open.

        Args:
            seeds: Mapping, name of each network to the number of its seeds.
            unclear: Int, comparisons that are not settled.
        """
        grown = [f"{name} ({count})" for name, count in seeds.items() if count > self.first]
        rest = f"; the others have {self.first}" if len(grown) < len(seeds) else ""
        added = f"No seeds were added to the {self.first} of each network."
        if grown:
            added = f"Seeds were added where a comparison was unclear: {in_series(grown)}{rest}."
        if not unclear:
            return f"{added} Every comparison is settled."
        most = max(seeds.values())
        why = "the most allowed" if most >= self.most else "because the time was up or a training failed"
        comparisons = "One comparison stays" if unclear == 1 else f"{unclear} comparisons stay"
        return f"{added} {comparisons} open after {most} seeds, {why}."


def looks_of(protocol: Mapping[str, Any]) -> Looks | None:
    """Looks of a study by the fields of its `protocol.yaml`; None if its seeds do not grow."""
    most = protocol.get("max_seeds")
    return Looks(protocol["seeds"], most) if most else None


def in_series(items: Sequence[Any]) -> str:
    """Join items as `3, 6 and 12`."""
    *before, last = map(str, items)
    return f"{', '.join(before)} and {last}" if before else last

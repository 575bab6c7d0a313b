"""Search space of baselines: which values each entry of a stage table may take. Pure Python."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from keras_effnet.architecture.scaling import round_filters
from keras_effnet.architecture.specs import ArchitectureSpec, StageSpec

Choice = str | float

_SE = 0.25
# Column of a stage -> values beside the baseline's own.
_COLUMNS: Mapping[str, tuple[Choice, ...]] = {
    "kernel": (3, 5),
    "expand": (3, 4, 6),
    "width": (0.75, 1.0, 1.25),
    "more": (-1, 0, 1),
    "block": ("mbconv", "mbconv-se", "fused"),
}
_ACTIVATIONS = ("swish", "relu6", "hard_swish")


@dataclass(frozen=True)
class BaselineSpace:
    """Networks with the stages and strides of a baseline, and other kernels, widths, depths, blocks and activations.

    Of every stage it varies kernel, expand ratio, filters (as a factor of the baseline's), repeats (one more or fewer)
    and block: MBConv with or without squeeze-and-excite, or Fused-MBConv. A stage that does not expand stays one.

    Args:
        base: `ArchitectureSpec` of MBConv or Fused-MBConv stages.

    Source: the factorized hierarchical space of MnasNet, Tan et al. (CVPR 2019), from which EfficientNet-B0 came.
    """

    base: ArchitectureSpec

    @property
    def choices(self) -> dict[str, tuple[Choice, ...]]:
        """Name of each entry, such as `stage3_kernel`, and its possible values."""
        found: dict[str, tuple[Choice, ...]] = {"activation": _with(_ACTIVATIONS, self.base.activation)}
        for number, stage in enumerate(self.base.stages, start=1):
            own = _row(stage)
            for column, values in _COLUMNS.items():
                possible = values
                if column == "expand":
                    possible = (1,) if stage.expand == 1 else _with(values, stage.expand)
                elif column in own:
                    possible = _with(values, own[column])
                if column == "more" and stage.repeats == 1:
                    possible = (0, 1)
                found[f"stage{number}_{column}"] = possible
        return found

    @property
    def own(self) -> dict[str, Choice]:
        """The baseline's own entries."""
        found: dict[str, Choice] = {"activation": self.base.activation}
        for number, stage in enumerate(self.base.stages, start=1):
            found |= {f"stage{number}_{column}": value for column, value in _row(stage).items()}
        return found

    def spec(self, entries: Mapping[str, Any]) -> ArchitectureSpec:
        """The network with these entries; its name tells networks apart."""
        stages = tuple(
            _stage(stage, {column: entries[f"stage{number}_{column}"] for column in _COLUMNS})
            for number, stage in enumerate(self.base.stages, start=1)
        )
        found = replace(self.base, stages=stages, activation=str(entries["activation"]))
        return replace(found, name=f"found-{hashlib.sha256(repr(found).encode()).hexdigest()[:8]}")


def _with(values: tuple[Choice, ...], own: Choice) -> tuple[Choice, ...]:
    return values if own in values else (*values, own)


def _row(stage: StageSpec) -> dict[str, Choice]:
    """A stage as values of the columns."""
    block = "mbconv-se" if stage.se_ratio else stage.block
    return {"kernel": stage.kernel, "expand": stage.expand, "width": 1.0, "more": 0, "block": block}


def _stage(stage: StageSpec, row: Mapping[str, Any]) -> StageSpec:
    block, _, squeezed = str(row["block"]).partition("-")
    return replace(
        stage,
        kernel=int(row["kernel"]),
        expand=int(row["expand"]),
        filters=round_filters(stage.filters, row["width"]),
        repeats=stage.repeats + int(row["more"]),
        block=block,
        se_ratio=(stage.se_ratio or _SE) if squeezed else 0.0,
    )

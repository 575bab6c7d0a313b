"""Cost of a network and of its parts: MACs, parameters and activations. Pure Python."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Cost of one part of a network for one image.

    Args:
        name: String, name of the block or layer.
        macs: Int, multiply-adds of convolutions and dense layers, plus one per output element where there is a bias.
        params: Int, trainable parameters.
        activations: Int, output elements of convolutions and dense layers.
        non_trainable: Int, parameters that are not trained: moving means and variances, and weights of frozen layers.
    """

    name: str
    macs: int = 0
    params: int = 0
    activations: int = 0
    non_trainable: int = 0

    @classmethod
    def total(cls, name: str, parts: Iterable[Cost]) -> Cost:
        """Sum of the costs of some parts."""
        parts = list(parts)
        fields = ("macs", "params", "activations", "non_trainable")
        return cls(name, *(sum(getattr(part, field) for part in parts) for field in fields))


@dataclass(frozen=True)
class Complexity:
    """Cost of a whole network for one image, and of each of its `blocks` (of a Keras model: its layers)."""

    macs: int
    params: int
    activations: int
    blocks: tuple[Cost, ...]
    total_params: int

    @property
    def flops(self) -> int:
        """2 x MACs. The paper's "FLOPs" are MACs."""
        return 2 * self.macs

    @classmethod
    def of(cls, blocks: Iterable[Cost]) -> Complexity:
        """Total of the given blocks."""
        blocks = tuple(blocks)
        total = Cost.total("total", blocks)
        return cls(total.macs, total.params, total.activations, blocks, total.params + total.non_trainable)

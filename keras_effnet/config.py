"""`TrainConfig`: how a network is built and trained, as data. Imports `architecture`, `preprocessing`; no Keras."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import yaml

from keras_effnet.architecture import ArchitectureSpec
from keras_effnet.baselines import architecture_spec
from keras_effnet.errors import UserError, one_of
from keras_effnet.preprocessing import ImageSpec

PRECISIONS = ("auto", "float32", "mixed_float16", "mixed_bfloat16")


@dataclass(frozen=True)
class TrainConfig:
    """How a network is built and trained. The defaults train a small network from scratch on a small dataset.

    Args:
        model: A name of `list_models()`.
        phi: Float or None, compound scaling on top of `model`; -2 is about a quarter of its cost.
        depth, width: Floats, further multipliers of layers and channels.
        image_size: Int or None, side of the input in pixels; the network's own by default.
        stem_stride: Int, 2 as published; 1 keeps the detail of small pictures at four times the cost.
        weights: None for random weights, a path, or `"imagenet"`.
        epochs: Int.
        batch_size: Int.
        learning_rate: Float, the peak, reached after warm-up and followed by a cosine to 0.
        warmup_epochs: Float.
        weight_decay: Float, of AdamW; kernels only.
        clip_norm: Float, largest norm of one variable's gradient.
        label_smoothing: Float in [0, 1).
        precision: `"auto"` (float32 on CPU, mixed_float16 on GPU, mixed_bfloat16 on TPU) or one of them.
        bn_momentum: Float. 0.9 follows a run of a few hundred steps; the published 0.99 lags behind it.
        dropout_rate, drop_connect_rate: Floats or None for the network's own.
        crop_scale: Float in (0, 1], smallest share of a picture's area that a random crop keeps.
        flip: Bool or None for what the dataset allows.
        crop: Float in (0, 1], central crop in evaluation.
        seed: Int.
    """

    model: str = "b0"
    phi: float | None = None
    depth: float = 1.0
    width: float = 1.0
    image_size: int | None = None
    stem_stride: int = 2
    weights: str | None = None
    epochs: int = 30
    batch_size: int = 32
    learning_rate: float = 2e-3
    warmup_epochs: float = 2.0
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    label_smoothing: float = 0.1
    precision: str = "auto"
    bn_momentum: float = 0.9
    dropout_rate: float | None = None
    drop_connect_rate: float | None = None
    crop_scale: float = 0.35
    flip: bool | None = None
    crop: float = 1.0
    seed: int = 0

    def __post_init__(self):
        one_of("precision", self.precision, PRECISIONS)
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.learning_rate <= 0:
            raise UserError(f"learning_rate must be positive, got {self.learning_rate}.")
        for name in ("crop_scale", "crop"):
            if not 0 < getattr(self, name) <= 1:
                raise UserError(f"{name} must lie in (0, 1], got {getattr(self, name)}.")
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"label_smoothing must lie in [0, 1), got {self.label_smoothing}.")

    def to_yaml(self) -> str:
        return yaml.safe_dump(asdict(self), sort_keys=False)

    @classmethod
    def from_yaml(cls, text: str) -> TrainConfig:
        """The config that `to_yaml` wrote; see `from_dict`."""
        return cls.from_dict(yaml.safe_load(text) or {})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """A config from option names and values.

        Raises:
            UserError: A key is no field; the message names the closest one.
        """
        names = [field.name for field in fields(cls)]
        for key in values:
            one_of("training option", key, names)
        return cls(**values)

    @property
    def spec(self) -> ArchitectureSpec:
        """The architecture that the config describes."""
        changes = {
            name: getattr(self, name)
            for name in ("dropout_rate", "drop_connect_rate")
            if getattr(self, name) is not None
        }
        return architecture_spec(
            self.model,
            phi=self.phi,
            depth=self.depth,
            width=self.width,
            image_size=self.image_size,
            stem_stride=self.stem_stride,
            bn_momentum=self.bn_momentum,
            **changes,
        )

    @property
    def image_spec(self) -> ImageSpec:
        return ImageSpec.of(self.spec, crop=self.crop)

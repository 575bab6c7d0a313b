"""`TrainConfig`: how a network is built and trained, as data. Pure Python."""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import yaml

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.architecture.specs import ArchitectureSpec
from keras_effnet.config.resizing import SMALLEST, ResizeStage, image_sizes, stages
from keras_effnet.errors import UserError, one_of
from keras_effnet.preprocessing import ImageSpec

PRECISIONS = ("auto", "float32", "mixed_float16", "mixed_bfloat16")
POLICIES = ("none", "randaugment", "autoaugment")
CACHES = ("auto", "memory", "disk", "none")
# Options that name one of several things -> what they may name.
_CHOICES: dict[str, tuple[str, ...]] = {
    "precision": PRECISIONS,
    "optimizer": ("adamw", "lamb", "rmsprop", "sgd"),
    "schedule": ("cosine", "exponential", "constant"),
    "policy": POLICIES,
    "class_weight": ("none", "balanced"),
    "cache": CACHES,
}

# Option -> least and greatest value. Of some the ends themselves are excluded.
_RANGES: dict[str, tuple[float, float]] = {
    "depth": (0, math.inf),
    "width": (0, math.inf),
    "image_size": (SMALLEST, math.inf),
    "stem_stride": (1, 2),
    "epochs": (1, math.inf),
    "batch_size": (1, math.inf),
    "learning_rate": (0, math.inf),
    "layer_decay": (0, 1),
    "warmup_epochs": (0, math.inf),
    "weight_decay": (0, math.inf),
    "clip_norm": (0, math.inf),
    "momentum": (0, 1),
    "decay_rate": (0, 1),
    "decay_epochs": (0, math.inf),
    "ema": (0, 1),
    "accumulate": (1, math.inf),
    "policy_layers": (1, 8),
    "magnitude": (0, 10),
    "color_jitter": (0, 1),
    "erasing": (0, 1),
    "mixup": (0, math.inf),
    "cutmix": (0, math.inf),
    "label_smoothing": (0, 1),
    "bn_momentum": (0, 1),
    "dropout_rate": (0, 1),
    "drop_connect_rate": (0, 1),
    "crop_scale": (0, 1),
    "crop": (0, 1),
    "seed": (0, 2**32 - 1),
}
_ABOVE_ZERO = (
    "depth",
    "width",
    "learning_rate",
    "layer_decay",
    "clip_norm",
    "decay_rate",
    "decay_epochs",
    "crop_scale",
    "crop",
)
_BELOW_ONE = ("label_smoothing", "bn_momentum", "dropout_rate", "drop_connect_rate", "momentum", "ema")
_KINDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}


def _checked(name: str, value: Any) -> Any:
    """An option's value in its type and range, or a `UserError`. YAML reads `1e-3` as text, so text may be a number."""
    hint = typing.get_type_hints(TrainConfig)[name]
    kind = next((kind for kind in typing.get_args(hint) if kind is not type(None)), hint)
    if value is None and kind is not hint:
        return None
    wrong = UserError(f"{name} must be {_KINDS[kind]}, got {value!r}.")
    if kind in (str, bool):
        if not isinstance(value, kind):
            raise wrong
        return value
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        raise wrong from None
    if not math.isfinite(number) or kind(number) != number:
        raise wrong
    low, high = _RANGES.get(name, (-math.inf, math.inf))
    above, below = name in _ABOVE_ZERO, name in _BELOW_ONE
    if not low <= number <= high or (above and number == low) or (below and number == high):
        least = f"{'above' if above else 'at least'} {low:g}"
        most = f" and {'below' if below else 'at most'} {high:g}" if math.isfinite(high) else ""
        raise UserError(f"{name} must be {least}{most}, got {value!r}.")
    return kind(number)


@dataclass(frozen=True)
class TrainConfig:
    """How a network is built and trained. The defaults train a small network from scratch on a small dataset.

    Args:
        model: String, a name that `keras-effnet info` lists, or a `.yaml` file of a network, see `spec_files`.
        phi: Float or None, compound scaling on top of `model`; -2 is about a quarter of its cost.
        depth: Float, multiplier of the layers, on top of `phi`.
        width: Float, multiplier of the channels, on top of `phi`.
        image_size: Int or None, side of the input in pixels; the network's own by default.
        stem_stride: Int, 2 as published; 1 keeps the detail of small images at four times the cost.
        weights: String or None, a weights file or `"imagenet"`; random weights by default.
        freeze: String or None, the last part that keeps its weights: `"stem"`, a stage or block (`"block4"`,
            `"block4b"`), or `"backbone"`, all but the classifier. Nothing by default; for fine-tuning.
        epochs: Int, passes over the training images.
        batch_size: Int, images a step, over all devices together.
        accumulate: Int, batches whose gradients are averaged before the weights move: the memory of one batch, the
            steps of a larger one.
        optimizer: String, `"adamw"`, `"lamb"` (for batches of thousands), `"rmsprop"` (as published) or `"sgd"`.
        momentum: Float in [0, 1), of rmsprop and sgd.
        learning_rate: Float, the peak, reached after warm-up.
        schedule: String, what follows warm-up: `"cosine"` to 0, `"exponential"` steps down, or `"constant"`.
        decay_rate: Float in (0, 1], factor of each step down of the exponential schedule.
        decay_epochs: Float, epochs between two such steps.
        layer_decay: Float in (0, 1], what the learning rate is multiplied by from each stage to the one before; 1 lets
            all learn alike, 0.7 suits fine-tuning.
        warmup_epochs: Float, epochs over which the learning rate rises from almost nothing.
        weight_decay: Float, kernels only; a share of the learning rate.
        clip_norm: Float or None, largest norm of one variable's gradient.
        ema: Float in [0, 1), decay of the moving average of the weights, which is evaluated beside them; 0 for none. In
            a short run the average spans a tenth of it at most.
        label_smoothing: Float in [0, 1), share of the target that is spread over all classes.
        class_weight: String, `"none"`, or `"balanced"` to let rare classes count as much as frequent ones.
        precision: String, `"auto"` (float32 on CPU, mixed_float16 on GPU, mixed_bfloat16 on TPU) or one of them.
        bn_momentum: Float in [0, 1). 0.9 follows a run of a few hundred steps; the published 0.99 lags behind it.
        dropout_rate: Float in [0, 1) or None, before the classifier; the network's own by default.
        drop_connect_rate: Float in [0, 1) or None, stochastic depth of the last block; 0.2 as published by default.
        progressive: String or None, image sizes that share the epochs equally, `"32,48,64"`: smaller images first,
            with weaker dropout and augmentation. The last must be that of the network.
        crop_scale: Float in (0, 1], smallest share of an image's area that a random crop keeps.
        flip: Bool or None, mirror half of the images; by default where the dataset allows it.
        policy: String, `"none"`, `"randaugment"` or `"autoaugment"`, which has strengths of its own.
        policy_layers: Int, operations that RandAugment applies to an image.
        magnitude: Float in [0, 10], strength of RandAugment.
        color_jitter: Float in [0, 1], how far brightness, contrast and saturation may move.
        erasing: Float in [0, 1], share of images of which a box is erased.
        mixup: Float, alpha of MixUp: 0 for none, 0.2 is usual.
        cutmix: Float, alpha of CutMix: 0 for none, 1 is usual. With both, each batch draws one of them.
        crop: Float in (0, 1], side of the central crop in evaluation, as a share of the shorter side.
        cache: String, where decoded images are kept: `"memory"`, `"disk"`, `"none"`, or `"auto"` by their size.
        data_service: String or None, address of a tf.data service that prepares the training images.
        strategy: String, `"none"`, `"mirrored"`, `"tpu"` or `"data-parallel"`: how devices share the work.
        deterministic: Bool, bit-identical results for the same seed, at some cost of speed.
        seed: Int, of the initial weights, shuffling and augmentation.
    """

    model: str = "b0"
    phi: float | None = None
    depth: float = 1.0
    width: float = 1.0
    image_size: int | None = None
    stem_stride: int = 2
    weights: str | None = None
    freeze: str | None = None
    epochs: int = 30
    batch_size: int = 32
    accumulate: int = 1
    optimizer: str = "adamw"
    momentum: float = 0.9
    learning_rate: float = 2e-3
    schedule: str = "cosine"
    decay_rate: float = 0.97
    decay_epochs: float = 2.4
    layer_decay: float = 1.0
    warmup_epochs: float = 2.0
    weight_decay: float = 0.05
    clip_norm: float | None = 1.0
    ema: float = 0.0
    label_smoothing: float = 0.1
    class_weight: str = "none"
    precision: str = "auto"
    bn_momentum: float = 0.9
    dropout_rate: float | None = None
    drop_connect_rate: float | None = None
    progressive: str | None = None
    crop_scale: float = 0.35
    flip: bool | None = None
    policy: str = "none"
    policy_layers: int = 2
    magnitude: float = 9.0
    color_jitter: float = 0.0
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    crop: float = 1.0
    cache: str = "auto"
    data_service: str | None = None
    strategy: str = "none"
    deterministic: bool = False
    seed: int = 0

    def __post_init__(self):
        for field in fields(self):
            object.__setattr__(self, field.name, _checked(field.name, getattr(self, field.name)))
        for name, choices in _CHOICES.items():
            one_of(name, getattr(self, name), choices)
        if self.ema and self.layer_decay < 1:
            raise UserError("ema averages the weights of one optimizer, layer_decay has one a stage: set one of them.")
        if self.progressive is not None:
            image_sizes(self.progressive)

    def to_yaml(self) -> str:
        """The config as YAML, all fields included."""
        return yaml.safe_dump(asdict(self), sort_keys=False)

    @staticmethod
    def read_yaml(text: str) -> dict[str, Any]:
        """The options that a YAML text names, checked, and no others.

        Raises:
            UserError: It is no YAML, or names what is no option.
        """
        try:
            values = yaml.safe_load(text) or {}
        except yaml.YAMLError as error:
            raise UserError(f"The options are no YAML: {' '.join(str(error).split())}.") from None
        config = TrainConfig.from_dict(values)
        return {name: getattr(config, name) for name in values}

    @classmethod
    def from_yaml(cls, text: str) -> TrainConfig:
        """The config that `to_yaml` wrote; see `from_dict`."""
        return cls(**cls.read_yaml(text))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """A config from option names and values.

        Raises:
            UserError: A key is no field; the message names the closest one.
        """
        if not isinstance(values, Mapping):
            raise UserError(f"Options are names and values, `epochs: 20` for instance, not {values!r}.")
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
    def stages(self) -> tuple[ResizeStage, ...]:
        """The epochs by image size: one stage, or with `progressive` several; see `stages.stages`."""
        return stages(self.progressive, self.epochs, self.spec.image_size)

    @property
    def image_spec(self) -> ImageSpec:
        """The `ImageSpec` of the network."""
        return ImageSpec.of(self.spec, crop=self.crop)

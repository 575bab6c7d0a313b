"""`TrainConfig`: how a network is built and trained, as data. Pure Python."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

import yaml

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.architecture.detectors import DetectorSpec
from keras_effnet.architecture.specs import ArchitectureSpec
from keras_effnet.config.declarations import declared_options, documented, option
from keras_effnet.config.detectors import check_detector_options, detector_of
from keras_effnet.config.resizing import LARGEST, SMALLEST, ResizeStage, image_sizes, stages
from keras_effnet.errors import UserError, one_of
from keras_effnet.system.documents import parse_yaml
from keras_effnet.system.typed_values import shown

if TYPE_CHECKING:
    from keras_effnet.preprocessing import ImageSpec

TrainingPrecision = Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"]
Policy = Literal["none", "randaugment", "autoaugment"]
CacheChoice = Literal["auto", "memory", "disk", "packed", "none"]
Strategy = Literal["none", "mirrored", "tpu", "data-parallel"]

TRAINING_PRECISIONS: tuple[str, ...] = typing.get_args(TrainingPrecision)
POLICIES: tuple[str, ...] = typing.get_args(Policy)
CACHES: tuple[str, ...] = typing.get_args(CacheChoice)
STRATEGIES: tuple[str, ...] = typing.get_args(Strategy)

NO_MULTIWORKER = (
    "MultiWorkerMirroredStrategy does not work with model.fit of Keras 3. Several hosts train by --strategy "
    "data-parallel on the JAX backend, one process per host; `keras-effnet launch` starts them, see docs/scale-out.md."
)


@documented
@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a network is built and trained. The defaults train a small network from scratch on a small dataset."""

    model: str = option("b0", "A name that `keras-effnet info` lists, or a `.yaml` file of a network.")
    phi: float | None = option(
        None,
        "Compound scaling on top of `model`; -2 is about a quarter of its cost. Of a detector: the paper's rule, with "
        "model det-d0.",
        at_least=-20,
        at_most=20,
    )
    depth: float = option(1.0, "Multiplier of the layers, on top of `phi`.", above=0, at_most=100)
    width: float = option(1.0, "Multiplier of the channels, on top of `phi`.", above=0, at_most=100)
    image_size: int | None = option(
        None,
        "Side of the input in pixels; the network's own by default.",
        at_least=SMALLEST,
        at_most=LARGEST,
    )
    stem_stride: int = option(
        2,
        "2 as published; 1 keeps the detail of small images at four times the cost.",
        at_least=1,
        at_most=2,
    )
    decoder: Literal["unet", "fpn", "deeplab-lite"] = option(
        "unet", "Decoder behind the network for segmentation, finest and most expensive first."
    )
    backbone: str | None = option(
        None, "Network below a detector's pyramid: a name or a `.yaml` file; its own by default."
    )
    bifpn_width: int | None = option(None, "Channels of a detector's feature pyramid and heads.", at_least=1)
    bifpn_cells: int | None = option(None, "Repeats of the cell of that pyramid.", at_least=1)
    head_depth: int | None = option(None, "Convolutions of each of a detector's heads.", at_least=1)
    anchor_scale: float | None = option(
        None,
        "Side of a detector's smallest anchor in strides of its level; by default chosen to fit the boxes of the data.",
        above=0,
        at_most=100,
    )
    anchor_aspects: str | None = option(
        None, "Factors of width and height of the anchors, such as 1x1,1.4x0.7,0.7x1.4; by default as the scale."
    )
    weights: str | None = option(None, 'A weights file or `"imagenet"`; `"none"`, the default, for random weights.')
    freeze: str | None = option(
        None,
        'The last part that keeps its weights: `"stem"`, a stage or block (`"block4"`, `"block4b"`), or '
        '`"backbone"`, everything but the classifier. Nothing by default; for fine-tuning.',
    )
    frozen_epochs: int = option(
        0, "First epochs, in which all but the head (of a detector: pyramid and heads) keep their weights.", at_least=0
    )
    epochs: int = option(30, "Passes over the training images.", at_least=1)
    batch_size: int = option(32, "Images per step, over all devices together.", at_least=1)
    accumulate: int = option(
        1,
        "Batches whose gradients are averaged before an update: the memory of one batch, the steps of a larger one.",
        at_least=1,
    )
    optimizer: Literal["adamw", "lamb", "rmsprop", "sgd"] = option(
        "adamw",
        "`lamb` is for batches of thousands, `rmsprop` as published.",
    )
    momentum: float = option(0.9, "Momentum of rmsprop and sgd.", at_least=0, below=1)
    learning_rate: float = option(2e-3, "The peak, reached after warm-up.", above=0)
    schedule: Literal["cosine", "exponential", "constant"] = option(
        "cosine",
        "What follows warm-up: cosine decay to 0, exponential decay in steps, or a constant rate.",
    )
    decay_rate: float = option(0.97, "Factor of each step of the exponential schedule.", above=0, at_most=1)
    decay_epochs: float = option(2.4, "Epochs between two such steps.", above=0)
    layer_decay: float = option(
        1.0,
        "Factor by which the learning rate shrinks from each stage to the one before; 1 trains all stages alike, 0.7 "
        "suits fine-tuning.",
        above=0,
        at_most=1,
    )
    warmup_epochs: float = option(2.0, "Epochs over which the learning rate rises from almost nothing.", at_least=0)
    weight_decay: float = option(
        0.05,
        "Decoupled weight decay of kernels only; a share of the learning rate.",
        at_least=0,
    )
    clip_norm: float | None = option(1.0, "Largest norm of one variable's gradient.", above=0)
    global_clip_norm: float | None = option(
        None, "Largest norm of all gradients together, instead of `clip_norm`.", above=0
    )
    ema: float = option(
        0.0,
        "Decay of the moving average of the weights, which is evaluated beside them; 0 for none. In a short run the "
        "average spans a tenth of it at most.",
        at_least=0,
        below=1,
    )
    label_smoothing: float = option(0.1, "Share of the target that is spread over all classes.", at_least=0, below=1)
    class_weight: Literal["none", "balanced"] = option(
        "none",
        "`balanced` lets rare classes count as much as frequent ones.",
    )
    ap_every: int = option(1, "Epochs between two measurements of a detector's average precision.", at_least=1)
    precision: TrainingPrecision = option(
        "auto", "`auto` is float32 on CPU, mixed_float16 on GPU, mixed_bfloat16 on TPU."
    )
    bn_momentum: float = option(
        0.9,
        "Momentum of the batch normalization statistics: 0.9 follows a run of a few hundred steps; the published "
        "0.99 lags behind it.",
        at_least=0,
        below=1,
    )
    dropout_rate: float | None = option(
        None,
        "Dropout before the classifier; the network's own rate by default.",
        at_least=0,
        below=1,
    )
    drop_connect_rate: float | None = option(
        None,
        "Stochastic depth of the last block; 0.2 as published by default.",
        at_least=0,
        below=1,
    )
    progressive: str | None = option(
        None,
        'Image sizes that share the epochs equally, `"32,48,64"`: smaller images first, with weaker dropout and '
        "augmentation. The last must be that of the network; none for one size.",
    )
    crop_scale: float = option(0.35, "Smallest share of an image's area that a random crop keeps.", above=0, at_most=1)
    flip: bool | None = option(None, "Mirror half of the images; by default where the dataset allows it.")
    policy: Policy = option("none", "Augmentation policy; `autoaugment` has strengths of its own.")
    policy_layers: int = option(2, "Operations that RandAugment applies to an image.", at_least=1, at_most=8)
    magnitude: float = option(9.0, "Strength of RandAugment.", at_least=0, at_most=10)
    color_jitter: float = option(0.0, "How far brightness, contrast and saturation may move.", at_least=0, at_most=1)
    erasing: float = option(0.0, "Share of images in which a box is erased.", at_least=0, at_most=1)
    mixup: float = option(0.0, "Alpha of MixUp: 0 for none, 0.2 is usual.", at_least=0)
    cutmix: float = option(
        0.0,
        "Alpha of CutMix: 0 for none, 1 is usual. With both, each batch draws one of them.",
        at_least=0,
    )
    crop: float = option(
        1.0,
        "Side of the central crop in evaluation, as a share of the shorter side.",
        above=0,
        at_most=1,
    )
    fit: Literal["stretch", "letterbox"] = option(
        "stretch", "How images become the square input of a detector; MediaPipe stretches them."
    )
    scale_low: float = option(0.7, "Smallest scale of an image in a detector's training.", above=0, at_most=1)
    scale_high: float = option(1.4, "Largest scale; what exceeds the input is cropped.", at_least=1, at_most=10)
    mosaic: float = option(0.0, "Share of a detector's training images made of four.", at_least=0, at_most=1)
    cache: CacheChoice = option(
        "auto", "Where decoded images are kept; `auto` decides by size, `packed` shrinks them once, beside the data."
    )
    data_service: str | None = option(None, "Address of a tf.data service that prepares the training images.")
    strategy: Strategy = option(
        "none",
        "How devices share the work.",
        unsupported={"multiworker": NO_MULTIWORKER, "multiworkermirrored": NO_MULTIWORKER},
    )
    deterministic: bool = option(False, "Bit-identical results for the same seed, at some cost of speed.")
    seed: int = option(0, "Seed of the initial weights, shuffling and augmentation.", at_least=0, at_most=2**32 - 1)

    def __post_init__(self) -> None:
        for name, declared in declared_options(TrainConfig).items():
            value = getattr(self, name)
            checked = declared.check(value)
            if checked is not value:
                object.__setattr__(self, name, checked)
        if self.ema and self.layer_decay < 1:
            raise UserError(
                "ema averages the weights of a single optimizer, layer_decay uses one per stage: set only one of them."
            )
        if self.ema and self.frozen_epochs:
            raise UserError(
                "ema would average weights that frozen_epochs has not begun to train: set only one of them."
            )
        if self.progressive is not None:
            image_sizes(self.progressive)
        check_detector_options(self)

    def to_yaml(self) -> str:
        """All options as YAML text, which `from_yaml` reads."""
        return yaml.safe_dump(asdict(self), sort_keys=False)

    @staticmethod
    def read_yaml(text: str) -> dict[str, Any]:
        """Read options from YAML text and validate them.

        Returns:
            Dict of the options that the text sets, without those left at their defaults.

        Raises:
            UserError: The text is not YAML, names an unknown option, or sets an invalid value.
        """
        try:
            values = parse_yaml(text)
        except UserError as error:
            raise UserError(f"The options cannot be read: {error}.") from None
        values = {} if values is None else values
        config = TrainConfig.from_dict(values)
        return {name: getattr(config, name) for name in values}

    @classmethod
    def from_yaml(cls, text: str) -> TrainConfig:
        """Build a config from YAML text; options that it does not name keep their defaults. See `from_dict`."""
        return cls(**cls.read_yaml(text))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Build a config from option names and values.

        Raises:
            UserError: A key is not an option, the message names the closest one; or a value is invalid.
        """
        if not isinstance(values, Mapping):
            raise UserError(f"Options must be names with values, for example `epochs: 20`; got {shown(values)}.")
        names = [field.name for field in fields(cls)]
        for key in values:
            one_of("training option", key, names)
        return cls(**values)

    @property
    def _dropout(self) -> dict[str, float]:
        rates = {name: getattr(self, name) for name in ("dropout_rate", "drop_connect_rate")}
        return {name: rate for name, rate in rates.items() if rate is not None}

    @property
    def detector(self) -> DetectorSpec | None:
        """The detector that the config describes, with the table's number of classes; None for other networks."""
        return detector_of(self, **self._dropout)

    @property
    def spec(self) -> ArchitectureSpec:
        """The scaled architecture that the config describes; of a detector its backbone, at the detector's size."""
        detector = self.detector
        if detector is not None:
            return replace(detector.backbone, image_size=detector.image_size)
        return architecture_spec(
            self.model,
            phi=self.phi,
            depth=self.depth,
            width=self.width,
            image_size=self.image_size,
            stem_stride=self.stem_stride,
            bn_momentum=self.bn_momentum,
            **self._dropout,
        )

    @property
    def stages(self) -> tuple[ResizeStage, ...]:
        """Stages of progressive resizing; a single one unless `progressive` is set. See `resizing.stages`."""
        return stages(self.progressive, self.epochs, self.spec.image_size)

    @property
    def image_spec(self) -> ImageSpec:
        """The preprocessing of the network's input."""
        from keras_effnet.preprocessing import ImageSpec  # late: it imports NumPy, which a command's --help can spare

        spec = ImageSpec.of(self.spec, crop=self.crop)
        return spec if self.detector is None else replace(spec, fit=self.fit)

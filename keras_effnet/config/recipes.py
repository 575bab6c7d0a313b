"""Training recipes: named options, with the cost and the accuracy to expect. Pure Python."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from keras_effnet.config.detectors import names_detector
from keras_effnet.config.resizing import growing
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.errors import UserError, one_of


@dataclass(frozen=True)
class Recipe:
    """Named training options.

    Args:
        summary: String, one line on its purpose.
        config: `TrainConfig`.
        batch: Int, the batch size that the learning rate is meant for; at others the rate is scaled in proportion.
        stages: Int, image sizes of progressive resizing, from half of the network's size to all of it; 1 for none.
    """

    summary: str
    config: TrainConfig
    batch: int = TrainConfig.batch_size
    stages: int = 1

    @property
    def values(self) -> dict[str, Any]:
        """The options that differ from the defaults of `TrainConfig`."""
        config = self.config
        return {each.name: value for each in fields(config) if (value := getattr(config, each.name)) != each.default}


# The published training of EfficientNet, Tan & Le (ICML 2019), section 5: 350 epochs of ImageNet at batch size 4096 on
# TPUs, for B0 about 10^18 multiply-adds; top-1 77.1% for B0, 84.3% for B7. On small datasets it needs many epochs: its
# learning rate decays slowly, and RMSprop takes a while to settle.
PAPER = Recipe(
    "as published: RMSprop, stepwise decay, AutoAugment, moving average; 350 epochs of ImageNet",
    TrainConfig(
        epochs=350,
        optimizer="rmsprop",
        learning_rate=0.016,
        schedule="exponential",
        warmup_epochs=5.0,
        weight_decay=1e-5,
        clip_norm=None,
        bn_momentum=0.99,
        ema=0.9999,
        policy="autoaugment",
        drop_connect_rate=0.2,
        crop_scale=0.08,
    ),
    batch=256,
)

# The published training of EfficientNetV2, Tan & Le (ICML 2021), section 5.1 and table 6, for V2-S: as above, but in
# four stages whose image size, RandAugment, MixUp and dropout grow. The paper's RandAugment grows from 5 to 15; 10 is
# the largest here. Its first size is 0.43 of the last. Top-1 83.9% for V2-S.
PAPER_V2 = Recipe(
    "EfficientNetV2 as published: `paper` with RandAugment, MixUp and progressive resizing in four stages",
    replace(
        PAPER.config,
        policy="randaugment",
        magnitude=10.0,
        mixup=0.2,
        dropout_rate=0.3,
        progressive="112,148,188,224",  # of B0; `recipe_config` adapts them to the network
    ),
    batch=256,
    stages=4,
)

# Later findings: Wightman et al., ResNet strikes back (2021); Tan & Le, EfficientNetV2 (ICML 2021). MixUp and CutMix
# keep the training loss high, so judge by validation. After ten epochs from scratch `short` was still ahead of it.
MODERN = Recipe(
    "AdamW, cosine, RandAugment, MixUp and CutMix, moving average; 100 epochs or more from scratch",
    TrainConfig(
        epochs=100,
        learning_rate=2e-3,
        warmup_epochs=5.0,
        ema=0.9998,
        policy="randaugment",
        magnitude=6.0,
        mixup=0.2,
        cutmix=1.0,
        erasing=0.1,
        crop_scale=0.2,
    ),
)

# Fine-tuning of a published network: each stage learns slower than the one after it (Howard & Ruder, ULMFiT, ACL 2018).
# Lite0 on a few thousand images takes minutes on two cores.
FINETUNE = Recipe(
    "a published network on new classes: low rate, early stages slower; 10 epochs",
    TrainConfig(
        epochs=10,
        weights="imagenet",
        learning_rate=1e-3,
        layer_decay=0.7,
        warmup_epochs=1.0,
        crop_scale=0.5,
        drop_connect_rate=0.1,
    ),
)

# The defaults of `TrainConfig`. B0 at 64 pixels on 5,000 images of ten classes: 17 minutes on a CPU for 20 epochs.
SHORT = Recipe("a small network from scratch on a small dataset, in minutes; the default", TrainConfig())

# The default of `study` and `search`. In so few epochs no network overfits, and regularization only slows the learning
# that is compared.
STUDY = Recipe(
    "small networks compared after a few epochs: no dropout, large crops, hard labels; 3 to 15 epochs",
    TrainConfig(
        epochs=3,
        batch_size=64,  # at 32 pixels a step of 32 images takes nearly as long
        learning_rate=4e-3,
        warmup_epochs=1.0,
        label_smoothing=0.0,
        dropout_rate=0.0,
        drop_connect_rate=0.0,
        crop_scale=0.8,
    ),
    batch=64,
)

RECIPES: dict[str, Recipe] = {
    "short": SHORT,
    "finetune": FINETUNE,
    "modern": MODERN,
    "paper": PAPER,
    "paper-v2": PAPER_V2,
    "study": STUDY,
}


# Detectors: pyramid and heads learn on fixed features first, then all weights at what is left of the rate.
FINETUNE_DETECTOR = Recipe(
    "a detector on new classes, from ImageNet weights: backbone frozen for the first half; 16 epochs",
    TrainConfig(
        model="det-lite0",
        epochs=16,
        frozen_epochs=8,
        batch_size=8,
        weights="imagenet",
        learning_rate=3e-3,
        warmup_epochs=1.0,
        global_clip_norm=10.0,
        drop_connect_rate=0.0,
    ),
    batch=8,
)

# EfficientDet (CVPR 2020), section 5.1: SGD with momentum 0.9 and weight decay 4e-5, 0.16 at a batch of 128 after an
# epoch of warm-up, cosine decay, 300 epochs of COCO (D7: 500); clipping of 10 and the moving average are the release's.
PAPER_DETECTOR = Recipe(
    "EfficientDet as published: SGD, cosine decay, moving average; 300 epochs of COCO",
    TrainConfig(
        model="det-d0",
        epochs=300,
        weights="imagenet",
        optimizer="sgd",
        learning_rate=0.16,
        warmup_epochs=1.0,
        weight_decay=4e-5,
        global_clip_norm=10.0,
        bn_momentum=0.99,
        ema=0.9998,
    ),
    batch=128,
)

DETECTOR_RECIPES: dict[str, Recipe] = {"finetune": FINETUNE_DETECTOR, "paper": PAPER_DETECTOR}


def _chosen(name: str, model: str) -> Recipe:
    """Recipe of a name for the kind of network."""
    recipe = RECIPES[one_of("recipe", name, RECIPES)]
    if not names_detector(model):
        return recipe
    if name not in DETECTOR_RECIPES:
        raise UserError(f"recipe {name} is for classifiers; those of detectors are {', '.join(DETECTOR_RECIPES)}.")
    return DETECTOR_RECIPES[name]


def recipe_config(name: str, **changes: Any) -> TrainConfig:
    """Build the config of a named recipe.

    Args:
        name: String, one of `RECIPES`.
        **changes: Options that replace the recipe's. Unless they set `learning_rate`, the recipe's rate is scaled in
            proportion to the images of an update, `batch_size` times `accumulate`. Unless they set `progressive`, its
            image sizes follow from the network's own. With the `model` of a detector the recipe is one of
            `DETECTOR_RECIPES`.

    Returns:
        A `TrainConfig`.

    Raises:
        UserError: The recipe or an option is unknown; the message names the closest one.

    Example:

    >>> recipe_config("paper", batch_size=512).learning_rate
    0.032

    Source: linear scaling of the learning rate, Goyal et al., Accurate, Large Minibatch SGD (2017).
    """
    recipe = _chosen(name, str(changes.get("model", TrainConfig.model)))
    values = {**recipe.values, **changes}
    if recipe.config.frozen_epochs and "frozen_epochs" not in changes:
        values["frozen_epochs"] = int(values["epochs"]) * recipe.config.frozen_epochs // recipe.config.epochs
    config = TrainConfig.from_dict(values)
    if recipe.stages > 1 and "progressive" not in changes:
        count = min(recipe.stages, config.epochs)
        values["progressive"] = growing(config.spec.image_size, count) if count > 1 else None
    if "learning_rate" not in changes:
        values["learning_rate"] = config.learning_rate * config.batch_size * config.accumulate / recipe.batch
    return TrainConfig.from_dict(values)

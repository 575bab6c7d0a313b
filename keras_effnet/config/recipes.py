"""Training recipes: named options, with the cost and the accuracy to expect. Pure Python."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from keras_effnet.config.train_config import TrainConfig
from keras_effnet.errors import one_of


@dataclass(frozen=True)
class Recipe:
    """Named training options.

    Args:
        summary: String, one line on its purpose.
        config: `TrainConfig`.
        batch: Int, the batch size that the learning rate is meant for; at others the rate is scaled in proportion.
    """

    summary: str
    config: TrainConfig
    batch: int = TrainConfig.batch_size

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

RECIPES: dict[str, Recipe] = {"short": SHORT, "finetune": FINETUNE, "modern": MODERN, "paper": PAPER, "study": STUDY}


def recipe_config(name: str, **changes: Any) -> TrainConfig:
    """Build the config of a named recipe.

    Args:
        name: String, one of `RECIPES`.
        **changes: Options that replace the recipe's. Unless they set `learning_rate`, the recipe's rate is scaled in
            proportion to the images of an update, `batch_size` times `accumulate`.

    Returns:
        A `TrainConfig`.

    Raises:
        UserError: The recipe or an option is unknown; the message names the closest one.

    Example:

    >>> recipe_config("paper", batch_size=512).learning_rate
    0.032

    Source: linear scaling of the learning rate, Goyal et al., Accurate, Large Minibatch SGD (2017).
    """
    recipe = RECIPES[one_of("recipe", name, RECIPES)]
    config = TrainConfig.from_dict({**recipe.values, **changes})
    if "learning_rate" in changes:
        return config
    rate = config.learning_rate * config.batch_size * config.accumulate / recipe.batch
    return TrainConfig.from_dict({**recipe.values, **changes, "learning_rate": rate})

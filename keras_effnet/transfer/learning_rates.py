"""Lower learning rates for earlier stages."""

from __future__ import annotations

import re
from collections.abc import Callable

import keras

from keras_effnet.errors import UserError
from keras_effnet.models.structure import CLASSIFIER, structure_of
from keras_effnet.transfer.freezing import stage_name


def learning_rate_factors(model: keras.Model, decay: float) -> dict[str, float]:
    """Learning rate factor of each stage: `decay` to the power of its distance from the classifier.

    Args:
        model: Keras model with any head, as in `freeze`.
        decay: Float in (0, 1], ratio between one stage and the next; 1 gives all stages the same rate.

    Returns:
        A dict from `"stem"`, `"block1"`, ..., `"top"`, `"classifier"` to factors, increasing to 1; the stages of
        networks without such layer names are `"P1"`, `"P2"`, ... All that follows the backbone is the classifier.

    Raises:
        UserError: `decay` is out of range.

    Example:

    >>> factors = learning_rate_factors(keras_effnet.EfficientNetB0(weights=None), 0.5)
    >>> factors["classifier"], factors["top"], factors["block7"]
    (1.0, 0.5, 0.25)

    Source: discriminative fine-tuning, Howard & Ruder, ULMFiT (ACL 2018), section 3.2.
    """
    if not 0 < decay <= 1:
        raise UserError(f"The decay of learning rates must lie in (0, 1], got {decay}.")
    stages = [*dict.fromkeys(map(stage_name, structure_of(model).parts)), CLASSIFIER]
    return {stage: decay ** (len(stages) - position) for position, stage in enumerate(stages, 1)}


def layerwise_optimizer(
    model: keras.Model, decay: float, optimizer: Callable[[float], keras.optimizers.Optimizer]
) -> keras.optimizers.MultiOptimizer:
    """Build a Keras `MultiOptimizer` with a lower learning rate for earlier stages.

    It consists of stock optimizers, so the model can be saved, resumed and reloaded in plain Keras. ULMFiT's gradual
    unfreezing is not included: lower rates also protect early layers from the large gradients of the first steps, and
    need no recompilation.

    Args:
        model: Keras model with any head, as in `freeze`, with layers frozen as wanted.
        decay: Float in (0, 1], see `learning_rate_factors`.
        optimizer: Function from a factor to a Keras optimizer whose learning rate is scaled by it. The weight decay of
            AdamW then scales alike.

    Returns:
        A `keras.optimizers.MultiOptimizer`; the last of its `.optimizers` is that of the classifier.

    Example:

    >>> optimizer = layerwise_optimizer(model, 0.7, lambda factor: keras.optimizers.AdamW(1e-3 * factor))
    >>> model.compile(optimizer, "sparse_categorical_crossentropy")
    """
    factors = learning_rate_factors(model, decay)
    names: dict[str, list[str]] = {}
    for part in structure_of(model).parts:
        trained = [re.escape(layer.name) for layer in part.layers if layer.trainable_weights]
        if trained:
            names.setdefault(stage_name(part), []).extend(trained)
    # Keras matches the patterns against paths of variables, such as "block5b_se_reduce/kernel", which begin with the
    # name of a nested model.
    optimizers = {f"(.*/)?({'|'.join(members)})/.*": optimizer(factors[stage]) for stage, members in names.items()}
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(optimizer(1.0), optimizers))

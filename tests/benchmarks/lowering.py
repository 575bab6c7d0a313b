"""What a training step becomes on an accelerator, read from the lowered program, without one.

    python tests/benchmarks/lowering.py [NAME ...] [--policy POLICY ...] [--target TARGET ...] [--findings FILE]

The step that `model.fit` compiles is lowered under `mixed_float16` and `mixed_bfloat16`, on Keras' JAX backend for the
platforms `cuda` and `tpu` (`jax.export` needs no device; extra `[peers]`) and on TensorFlow for XLA (`xla`). The text
shows the types of convolutions and products, float32 copies of feature maps, transposes, host callbacks, donated state,
and whether a second step would compile anew. `ALLOWED` lists the copies and transposes that have a reason; any other
one ends the script with exit code 1. Batches are those of `train_step.py --gpu`, `--stages 3` cuts the network short.

MACs of the forward pass are compared with `complexity.count`, and those and the bytes of its products with timm's
network, if torch and timm are installed (forward pass by `torch.export`; B0 and B4). **The bound is computed, not
measured**: every product of the step alone, limited by the peak or by reading its operands and writing its result once.
It leaves out normalization, activations and the optimizer, which also move memory: no program can be faster, real ones
are slower.
"""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "support"))

from program_text import Operation, Tensor, hlo, stablehlo
from torch_libraries import torchvision_models

POLICIES, TARGETS = ("mixed_float16", "mixed_bfloat16"), ("cuda", "tpu", "xla")
BATCHES = {"b0": 256, "b4": 64, "v2-s": 64, "det-lite0": 64}
TIMM = ("b0", "b4")
NOT_ON_XLA = ("det-lite0",)  # TensorFlow's XLA has no gradient of resizing to the nearest pixel
CLASSES = 1000
PRODUCTS = ("convolution", "dot_general")
BETWEEN, LOSS, REST = "between layers", "loss", "optimizer and metrics"


@dataclass(frozen=True)
class Chip:
    """Data sheet of an accelerator: dense half-precision and float32 TFLOP/s, and memory bandwidth in TB/s."""

    name: str
    half: float
    float32: float
    bandwidth: float

    def seconds(self, product: Operation) -> float:
        """Shortest time of a convolution or product by the roofline."""
        peak = self.float32 if product.operands[0].element == "f32" else self.half
        return max(2 * product.macs / peak, product.bytes / self.bandwidth) / 1e12


H100 = Chip("H100 SXM", half=989, float32=67, bandwidth=3.35)


@dataclass(frozen=True)
class Allowed:
    """A kind of operation that may occur, at most so many times for each layer of a class, and why."""

    kind: str
    layer: str
    most: int
    reason: str


ALLOWED = (
    Allowed("float32 product", "Dense", 3, "the classifier is float32 under any policy: softmax overflows in float16"),
    Allowed("float32 copy", "BatchNormalization", 4, "sums of squares overflow float16; to float32 and back, twice"),
    Allowed("float32 copy", "GlobalAveragePooling2D", 2, "sums over the image in float32, and their gradient"),
    Allowed("float32 copy", "Multiply", 1, "the gradient of a gate is a sum over the image, in float32"),
    Allowed(
        "float32 copy", BETWEEN, 1, "normalized pixels are converted once, the outputs of detector heads for the loss"
    ),
    Allowed("transpose", "Dense", 1, "gradient of the classifier's kernel, which the compiler merges into the product"),
)


@dataclass(frozen=True)
class Findings:
    """Counts of one lowered training step.

    Args:
        name: String, network.
        policy: String, dtype policy.
        target: String, one of `TARGETS`.
        image_size: Int, pixels.
        batch: Int, images.
        layers: Dict of classes of layers to their calls.
        half_products: Int, convolutions and products in half precision.
        found: Dict of kinds of `ALLOWED` to dicts of classes of layers to counts.
        converts: Dict of what is converted (feature map, vector, weight, scalar) to counts.
        still: Int, transposes that move no element, because they exchange an axis of size 1.
        callbacks: Tuple of strings, calls of the host or of foreign code.
        state: Int, variables that the step takes and returns.
        donated: Int, those whose memory the result reuses.
        stable: Bool, whether the state keeps shapes and types, so that all steps share one compilation.
        forward_macs: Int, for one image.
        counted_macs: Int, by `complexity.count`, which also counts biases.
        forward_bytes: Int, operands and results of the products of the forward pass, for one image.
        step_macs: Int, forward and backward pass, for one image.
        step_bytes: Int, as `forward_bytes`.
        bound: Float, images per second of the products alone by the roofline of `H100`.
    """

    name: str
    policy: str
    target: str
    image_size: int
    batch: int
    layers: dict[str, int]
    half_products: int
    found: dict[str, dict[str, int]]
    converts: dict[str, int]
    still: int
    callbacks: tuple[str, ...]
    state: int
    donated: int
    stable: bool
    forward_macs: int
    counted_macs: int
    forward_bytes: int
    step_macs: int
    step_bytes: int
    bound: float


def regressions(findings: Findings) -> list[str]:
    """What the program does and should not, one line each."""
    most = {(each.kind, each.layer): each.most * findings.layers.get(each.layer, 0) for each in ALLOWED}
    lines = [
        f"{kind}: {number} in {layer}, allowed are {most.get((kind, layer), 0)}"
        for kind, layers in findings.found.items()
        for layer, number in layers.items()
        if number > most.get((kind, layer), 0)
    ]
    lines += [f"call of {name}" for name in findings.callbacks]
    if findings.donated < findings.state:
        lines.append(f"{findings.state - findings.donated} of {findings.state} variables are not donated")
    if not findings.stable:
        lines.append("the state changes its types: the second step compiles anew")
    missing = findings.counted_macs / findings.forward_macs - 1
    if not -1e-6 <= missing <= 5e-3:  # biases, 0.3% in a detector
        lines.append(f"{findings.forward_macs} MACs forward, complexity.count says {findings.counted_macs}")
    return lines


# ------------------------------------------------------------------ reading


def is_map(tensor: Tensor, batch: int) -> bool:
    """Whether a tensor has several positions for each image."""
    return len(tensor.shape) > 2 and tensor.shape[0] == batch and any(size > 1 for size in tensor.shape[1:-1])


def moves(transpose: Operation) -> bool:
    """Whether a transpose changes the order in memory: axes of size 1 do not count."""
    order = re.search(r"dim(?:ension)?s ?= ?[\[{]([\d, ]*)", transpose.text)
    assert order is not None, transpose.text
    axes = [int(axis) for axis in re.findall(r"\d+", order[1]) if transpose.operands[0].shape[int(axis)] > 1]
    return axes != sorted(axes)


def layer_of(scope: str, classes: dict[str, str]) -> str:
    """Class of the layer that an operation belongs to."""
    for word in reversed(re.findall(r"[\w.-]+", scope)):
        for name in (word, re.sub(r"_\d+$", "", word)):
            if name in classes:
                return classes[name]
    if "loss" in scope:
        return LOSS
    return BETWEEN if "jvp()" in scope else REST


def read(operations: list[Operation], classes: dict[str, str], batch: int) -> dict[str, Any]:
    """The counts of `Findings` that come from the operations."""
    products = [each for each in operations if each.name in PRODUCTS]
    forward = [each for each in products if "transpose(" not in each.scope and "gradient_tape" not in each.scope]
    found: dict[str, Counter[str]] = {kind: Counter() for kind in dict.fromkeys(each.kind for each in ALLOWED)}
    converts: Counter[str] = Counter()
    still = 0

    def note(kind: str, operation: Operation) -> None:
        found[kind][layer_of(operation.scope, classes)] += 1

    for each in products:
        if each.operands[0].element == "f32":
            note("float32 product", each)
    for each in operations:
        if each.name == "transpose":
            if moves(each):
                note("transpose", each)
            else:
                still += 1
        elif each.name == "convert":
            tensor, types = each.operands[0], {each.operands[0].element, each.results[0].element}
            of_image = tensor.shape[:1] == (batch,)
            converts[
                "feature map"
                if is_map(tensor, batch)
                else "vector"
                if of_image
                else "weight"
                if tensor.shape
                else "scalar"
            ] += 1
            if is_map(tensor, batch) and "f32" in types and types & {"f16", "bf16"}:
                note("float32 copy", each)
    seconds = sum(map(H100.seconds, products))
    return {
        "half_products": sum(each.operands[0].element in ("f16", "bf16") for each in products),
        "found": {kind: dict(counts) for kind, counts in found.items()},
        "converts": dict(converts),
        "still": still,
        "callbacks": tuple(_called(each) for each in operations if each.name == "custom_call"),
        "forward_macs": sum(each.macs for each in forward) // batch,
        "forward_bytes": sum(each.bytes for each in forward) // batch,
        "step_macs": sum(each.macs for each in products) // batch,
        "step_bytes": sum(each.bytes for each in products) // batch,
        "bound": batch / seconds,
    }


def _called(call: Operation) -> str:
    target = re.search(r'@(\w+)|custom_call_target="([^"]*)"', call.text)
    return next(filter(None, target.groups())) if target else call.text


# ------------------------------------------------------------------ lowering


def compiled_network(name: str, policy: str, stages: int | None, size: int | None) -> tuple[Any, Any, tuple[Any, Any]]:
    """A compiled network with all its variables, its spec, and shapes and types of its images and targets."""
    import keras
    import numpy as np

    from keras_effnet import EfficientDet, EfficientNet, architecture_spec, detector_spec
    from keras_effnet.architecture.pyramid import expand_detector
    from keras_effnet.models.losses.boxes import AnchorBoxLoss, AnchorFocalLoss

    # The values are no part of the program, and each shape's draw would be compiled.
    keras.initializers.VarianceScaling.__call__ = lambda self, shape, dtype=None: np.zeros(shape, dtype or "float32")
    batch = BATCHES.get(name, 64)
    if name.startswith("det"):
        spec = detector_spec(name, **({"image_size": size} if size else {}))
        model = EfficientDet(spec, classifier_activation=None, dtype=policy)
        loss: Any = {"boxes": AnchorBoxLoss(), "logits": AnchorFocalLoss()}
        anchors = expand_detector(spec).anchors
        targets: Any = {"boxes": ((batch, anchors, 5), "float32"), "logits": ((batch, anchors), "int32")}
    else:
        spec = architecture_spec(name, **({"image_size": size} if size else {}))
        spec = replace(spec, stages=spec.stages[:stages])
        model = EfficientNet(spec, classes=CLASSES, dtype=policy)
        loss, targets = "sparse_categorical_crossentropy", ((batch,), "int32")
    rates = keras.optimizers.schedules.CosineDecay(1e-5, 1000, warmup_target=1e-3, warmup_steps=100)
    model.compile(keras.optimizers.AdamW(rates, weight_decay=1e-4), loss)  # wraps it in loss scaling under float16
    model.optimizer.build(model.trainable_variables)
    images = ((batch, spec.image_size, spec.image_size, 3), "float32")
    model._symbolic_build(data_batch=_each((images, targets), lambda shape, dtype: np.zeros(shape, dtype)))
    return model, spec, (images, targets)


def _each(data: Any, make: Any) -> Any:
    """Shapes and types of nested data, each replaced by what `make` returns."""
    if isinstance(data, dict):
        return {key: _each(value, make) for key, value in data.items()}
    return make(*data) if isinstance(data[1], str) else tuple(_each(value, make) for value in data)


def on_jax(model: Any, data: Any, platform: str) -> tuple[list[Operation], dict[str, Any]]:
    """Operations of the step for a platform, and what becomes of the state."""
    import jax
    import jax.export

    model.make_train_function()
    step = inspect.getclosurevars(model.train_function).nonlocals["step_function"]  # the one that `fit` compiles
    groups = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    state = tuple([jax.ShapeDtypeStruct(each.shape, each.dtype) for each in group] for group in groups)
    exported = jax.export.export(step, platforms=[platform])(state, _each(data, jax.ShapeDtypeStruct))
    text = exported.mlir_module()
    variables = sum(map(len, state))
    given, made = exported.in_avals[:variables], exported.out_avals[-variables:]
    signature = next(line for line in text.splitlines() if "func public @main" in line)
    facts = {
        "state": variables,
        "donated": signature.count("tf.aliasing_output") + signature.count("jax.buffer_donor"),
        "stable": [str(each) for each in given] == [str(each) for each in made],
    }
    return stablehlo(text), facts


def on_tensorflow(model: Any, data: Any) -> tuple[list[Operation], dict[str, Any]]:
    """Operations of the step for XLA, before its optimizations, and what becomes of the state."""
    import tensorflow as tf

    specs = _each(data, tf.TensorSpec)
    step = tf.function(lambda *flat: model.train_step(tf.nest.pack_sequence_as(specs, flat)), jit_compile=True)
    text = step.experimental_get_compiler_ir(*tf.nest.flatten(specs))(stage="hlo")
    header = text.split("\n", 1)[0]
    # Variables that the step writes; it reads them where they are, and their types cannot change.
    written = len(re.findall(r"\{\d+\}: \(\d+", header))
    return hlo(text), {"state": written, "donated": written, "stable": step.experimental_get_tracing_count() == 1}


def lower(name: str, policy: str, targets: Iterable[str], stages: int | None, size: int | None) -> list[Findings]:
    """Lower one network for targets of the backend of this process."""
    import keras

    from keras_effnet.architecture.network_parts import computing_layers
    from keras_effnet.complexity import count

    model, spec, data = compiled_network(name, policy, stages, size)
    layers = list(computing_layers(model))
    classes = {layer.name: type(layer).__name__ for layer in layers}
    outputs = sum(isinstance(each, keras.layers.Reshape) and each.compute_dtype == "float32" for each in layers)
    counts = Counter(classes.values()) + Counter({BETWEEN: 1 + 2 * outputs})
    classes[model.name] = BETWEEN
    (batch, *_), _ = data[0]
    counted = count(spec, **({} if name.startswith("det") else {"classes": CLASSES})).macs
    results = []
    for target in targets:
        operations, facts = on_tensorflow(model, data) if target == "xla" else on_jax(model, data, target)
        results.append(
            Findings(
                name=name,
                policy=policy,
                target=target,
                image_size=spec.image_size,
                batch=batch,
                layers=dict(counts),
                counted_macs=counted,
                **facts,
                **read(operations, classes, batch),
            )
        )
    return results


def timm_forward(name: str) -> dict[str, int]:
    """MACs and bytes of the products of timm's forward pass, for one image in half precision."""
    torchvision_models()
    import timm
    import torch

    from keras_effnet import architecture_spec

    batch, size = BATCHES[name], architecture_spec(name).image_size
    model = timm.create_model(f"efficientnet_{name}", num_classes=CLASSES).bfloat16()
    program = torch.export.export(model, (torch.empty(batch, 3, size, size, dtype=torch.bfloat16),))
    macs = elements = 0
    for node in program.graph.nodes:
        if str(node.target) not in ("aten.conv2d.default", "aten.linear.default"):
            continue
        source, kernel, result = (each.meta["val"] for each in (*node.args[:2], node))
        macs += result.numel() * kernel[0].numel()
        elements += source.numel() + kernel.numel() + result.numel()
    return {"macs": macs // batch, "bytes": 2 * elements // batch}


# ------------------------------------------------------------------ script


def apart(arguments: list[str], backend: str) -> Any:
    """JSON that this script prints in a process of its own."""
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else sys.exit(done.stderr)


def lowered(options: argparse.Namespace) -> list[Findings]:
    """Findings of all networks, policies and targets, each network and policy in a process for each backend."""
    backends = {
        "jax": [each for each in options.target if each != "xla"],
        "tensorflow": ["xla"] * ("xla" in options.target),
    }
    results = []
    for name in options.names:
        for policy in options.policy:
            for backend, targets in backends.items():
                if targets and not (backend == "tensorflow" and name in NOT_ON_XLA):
                    cut = [f"--{key}={value}" for key in ("stages", "size") if (value := getattr(options, key))]
                    arguments = [name, "--worker", "--policy", policy, "--target", *targets, *cut]
                    results += [Findings(**each) for each in apart(arguments, backend)]
    return results


def report(results: list[Findings]) -> None:
    """Print the tables."""
    print(
        "| network | policy | target | half products | " + " | ".join(dict.fromkeys(each.kind for each in ALLOWED)),
        end="",
    )
    print(" | converts | callbacks | donated | one compilation |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for each in results:
        found = (" + ".join(f"{count} {layer}" for layer, count in kind.items()) or "0" for kind in each.found.values())
        print(
            f"| {each.name} {each.image_size}:{each.batch} | {each.policy} | {each.target} | {each.half_products} | "
            f"{' | '.join(found)} | {sum(each.converts.values())} | {len(each.callbacks)} | "
            f"{each.donated} of {each.state} | {'yes' if each.stable else 'no'} |"
        )
    print(f"\n| network | forward MACs / counted | step MACs | step MB | bound of an {H100.name}, images/s, computed |")
    print("|---|---|---|---|---|")
    for each in {each.name: each for each in results}.values():
        print(
            f"| {each.name} {each.image_size}:{each.batch} | {each.forward_macs / each.counted_macs:.4f} | "
            f"{each.step_macs / 1e9:.2f}e9 | {each.step_bytes / 1e6:.0f} | {each.bound:,.0f} |"
        )
    print("\nWhy these are allowed:\n")
    for each in ALLOWED:
        print(f"- {each.kind}, {each.layer}, at most {each.most} for each layer: {each.reason}.")


def compare_with_timm(results: Iterable[Findings]) -> None:
    """Print MACs and bytes of the forward pass beside timm's."""
    print("\n| forward pass / timm's | MACs | bytes of products |\n|---|---|---|")
    for each in results:
        peer = apart(["--timm", each.name], "torch")
        print(f"| {each.name} | {each.forward_macs / peer['macs']:.4f} | {each.forward_bytes / peer['bytes']:.4f} |")


def main() -> None:
    """Lower, print the tables and name what should not be there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(BATCHES))
    parser.add_argument("--policy", nargs="+", choices=POLICIES, default=POLICIES)
    parser.add_argument("--target", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--stages", type=int)
    parser.add_argument("--size", type=int)
    parser.add_argument("--findings", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--timm", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.timm:
        print(json.dumps(timm_forward(options.timm)))
    elif options.worker:
        found = lower(options.names[0], options.policy[0], options.target, options.stages, options.size)
        print(json.dumps([asdict(each) for each in found]))
    else:
        results = lowered(options)
        report(results)
        if options.findings:
            options.findings.write_text(json.dumps({"findings": [asdict(each) for each in results]}, indent=1))
        wrong = [f"{each.name} {each.policy} {each.target}: {line}" for each in results for line in regressions(each)]
        if wrong:
            sys.exit("\n".join(wrong))
        peers = {each.name: each for each in results if each.name in TIMM}
        whole = not (options.stages or options.size)
        if peers and whole and all(map(importlib.util.find_spec, ("torch", "timm"))):
            compare_with_timm(peers.values())


if __name__ == "__main__":
    from recording import recorded

    with recorded():
        main()

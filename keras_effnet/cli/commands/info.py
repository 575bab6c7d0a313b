"""`keras-effnet info`: cost of the networks, or contents of a `.tflite` file. No TensorFlow."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from keras_effnet.architecture.baselines import SPECS, architecture_spec
from keras_effnet.architecture.explanations import explain
from keras_effnet.architecture.scaling import PUBLISHED
from keras_effnet.architecture.yaml_files import SUFFIXES
from keras_effnet.cli import console, detectors
from keras_effnet.cli.options import refuse_unused, was_given
from keras_effnet.cli.parameter_types import WHOLE, Whole
from keras_effnet.complexity.counting import count
from keras_effnet.errors import UserError
from keras_effnet.models.listing import ModelInfo, list_models, model_info

SHOWN = 5  # class names
HEADERS = ("network", "pixels", "blocks", "params", "MACs", "acts", "top-1", "weights")


def _row(info: ModelInfo) -> tuple[str, ...]:
    return (
        info.name,
        f"{info.image_size}",
        f"{info.blocks}",
        f"{info.params / 1e6:.2f} M",
        f"{info.macs / 1e6:,.0f} M",
        f"{info.activations / 1e6:.1f} M",
        f"{info.top1:.1f}" if info.top1 else "-",
        "yes" if info.weights else "-",
    )


@click.command("info")
@click.argument("model", required=False)
@click.option("--phi", type=float, help="Scale by the paper's formula: 1 about doubles the MACs, -1 halves them.")
@click.option("--depth", type=float, default=1.0, show_default=True, help="Multiplier of the layers.")
@click.option("--width", type=float, default=1.0, show_default=True, help="Multiplier of the channels.")
@click.option("--resolution", type=float, default=1.0, show_default=True, help="Multiplier of the input size.")
@click.option("--image-size", type=WHOLE, help="Side of the input in pixels.")
@click.option("--classes", type=Whole(1), default=1000, show_default=True)
@click.option("--pretrained", is_flag=True, help="List only networks with available ImageNet weights.")
@click.option("--blocks", is_flag=True, help="Show the cost of each block of one network.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(model, classes, pretrained, blocks, as_json, **scaling) -> None:
    """List the networks, those that match MODEL ('resnet*'), or show the scaling, cost and blocks of one.

    Detectors are named det-d0 to det-d7x and det-lite0 to det-lite4 ('det-*' lists them). For a .tflite file, show its
    metadata and signature, operators and types, float islands, and the runtimes expected to support it.
    """
    if model and Path(model).suffix == ".tflite":
        if any(was_given(name) for name in (*scaling, "classes", "pretrained", "blocks")):
            raise UserError(f"{model} is a file: it cannot be scaled, and --json is the only option for it.")
        return _show_file(model, as_json)
    if was_given("resolution") and was_given("image_size"):
        raise UserError("--image-size replaces --resolution: give one of them.")
    if model and detectors.is_detector(model):
        return detectors.show(model, scaling["image_size"], classes, blocks, as_json)
    if model is None or (set(model) & set("*?[") and not Path(model).exists()):
        refuse_unused(["blocks"], "the list has no room for them; name one network.")
        return _show_list(model or "*", scaling, classes, pretrained, as_json)
    refuse_unused(["pretrained"], f"it shortens the list of networks, but {model} is one; leave it out.")
    if not model.endswith(SUFFIXES) and Path(model).exists() and model.lower() not in SPECS:
        raise UserError(f"{model} is no .tflite file: info takes names of networks, .yaml and .tflite files.")
    _show_one(model, scaling, classes, blocks, as_json)


def _show_list(pattern: str, scaling: dict, classes: int, pretrained: bool, as_json: bool) -> None:
    names = list_models(pattern, pretrained=pretrained)
    if not names:
        raise UserError(f"No network matches {pattern!r}. Choose among: {', '.join(list_models())}.")
    infos = {name: model_info(architecture_spec(name, **scaling), classes=classes) for name in names}
    if as_json:
        return console.emit_json({name: asdict(info) for name, info in infos.items()})
    console.table(HEADERS, map(_row, infos.values()))
    console.finish(
        f"cost of one image at the given size, {classes} classes; top-1 on ImageNet as published",
        ("keras-effnet", "info", "b4" if "b4" in names else names[0], "--blocks"),
    )


def _show_one(name: str, scaling: dict, classes: int, blocks: bool, as_json: bool) -> None:
    spec = architecture_spec(name, **scaling)
    info, cost = model_info(spec, classes=classes), count(spec, classes=classes)
    if as_json:
        return console.emit_json(asdict(info) | asdict(cost))
    console.table(HEADERS, [_row(info)])
    unscaled = architecture_spec(name)
    if spec != unscaled:
        ratio = cost.macs / count(unscaled, classes=classes).macs
        click.echo(f"{ratio:.2f} times the MACs of {name}; channels and repeats are rounded, repeats always up.\n")
    else:
        click.echo(f"Source:  {info.source or name}\nWeights: {info.weights or 'none for ImageNet'}\n")
        if name.lower() in PUBLISHED:
            click.echo(f"{explain(name.lower())}\n")
    if blocks:
        rows = [(b.name, f"{b.params:,}", f"{b.macs:,}", f"{b.activations:,}") for b in cost.blocks]
        console.table(("block", "parameters", "MACs", "activations"), rows)
    console.finish(
        f"{spec.name}: {cost.params:,} trainable parameters, {cost.macs:,} MACs ({cost.flops:,} FLOPs)",
        ("keras-effnet", "train", "digits", "--model", name, *_given(scaling), "--image-size", 32),
    )


def _given(scaling: dict) -> list[object]:
    """Options that scale a network in `train` as they did here."""
    return [
        word for name in ("phi", "depth", "width") if was_given(name) for word in (f"--{name}", f"{scaling[name]:g}")
    ]


def _port(tensor) -> str:
    quantized = f", scale {tensor.scale:.6g}, zero point {tensor.zero_point}" if tensor.scale is not None else ""
    return f"{tensor.dtype} {list(tensor.signature)}{quantized}"


def _show_description(found) -> None:
    """Print what a file says of itself: name, normalization, class names, signature, oldest runtime."""
    about = found.metadata
    if about is None:
        click.echo("Metadata: none; MediaPipe needs it for float input")
    else:
        texts = (about.version, about.author and f"author {about.author}", about.license and f"licence {about.license}")
        click.echo(f"Name:   {', '.join(filter(None, (about.name or 'none', *texts)))}")
        click.echo(f"        {about.description or 'no description'}")
        mean, std = (", ".join(f"{value:g}" for value in values) or "not stated" for values in (about.mean, about.std))
        click.echo(f"Pixels: {about.color_space or 'not an image'}, mean {mean}, std {std}")
        names = ", ".join(about.labels[:SHOWN]) + (", ..." if len(about.labels) > SHOWN else "")
        click.echo(f"Labels: {f'{len(about.labels):,}: {names}' if about.labels else 'none'}")
    for signature in found.signatures:
        click.echo(f"Signature: {signature.key}({', '.join(signature.inputs)}) -> {', '.join(signature.outputs)}")
    click.echo(f"Oldest runtime: {found.min_runtime_version or 'not stated'}")


def _show_clients(verdicts) -> None:
    """Print a table of the expected verdicts, and below it their reasons and how to get a file that is accepted."""
    rows = [(one.client, one.expected, "trial" if one.tried else "documents") for one in verdicts]
    console.table(("runtime", "verdict", "known from"), rows)
    for one in verdicts:
        if one.reasons:
            cures = f" Instead: {', '.join(one.cures)}." if one.cures and one.expected != "accepts" else ""
            click.echo(f"{one.client} {one.expected}: {'; '.join(one.reasons)}.{cures}")
    click.echo("")


def _show_file(path: str, as_json: bool) -> None:
    from keras_effnet.export.tflite_file.inspection import inspect

    found = inspect(path)
    if as_json:
        return console.emit_json(asdict(found))
    click.echo("Input:  " + "; ".join(map(_port, found.inputs)))
    click.echo("Output: " + "; ".join(map(_port, found.outputs)))
    _show_description(found)
    ranked = sorted(found.operators.items(), key=lambda item: -item[1])
    console.table(("operator", "count"), [(name, f"{count}") for name, count in ranked])
    console.table(("tensors of type", "count"), [(name, f"{count}") for name, count in found.dtypes.items()])
    if found.precision.startswith("int"):
        click.echo("Float islands:" if found.islands else "Float islands: none")
    for island in found.islands:
        click.echo(f"  {island.place:7}{', '.join(island.operators) or 'no operator'} ({', '.join(island.tensors)})")
    if found.dynamic:
        click.echo(f"Tensors without a fixed shape: {len(found.dynamic)}, {found.dynamic[0]} the first")
    click.echo(
        f"Activations: {found.live_bytes / 1e6:.2f} MB live at a time, arena of {found.arena_bytes / 1e6:.2f} MB "
        "without a delegate, not counting weights and scratch space.\n"
    )
    _show_clients(found.clients)
    console.finish(
        f"{Path(path).name}: {found.precision}, {found.size_bytes / 1e6:.2f} MB, "
        f"{sum(found.operators.values())} operators",
        ("keras-effnet", "benchmark", path),
    )

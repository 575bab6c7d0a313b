"""`keras-effnet info`: the networks and what they cost. Pure Python: no TensorFlow."""

from __future__ import annotations

from dataclasses import asdict

import click

from keras_effnet import console
from keras_effnet.baselines import SPECS, architecture_spec
from keras_effnet.catalog import ModelInfo, list_models, model_info
from keras_effnet.complexity import count
from keras_effnet.errors import UserError
from keras_effnet.scaling import PUBLISHED, explain

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
@click.option("--image-size", type=int, help="Side of the input in pixels.")
@click.option("--classes", type=int, default=1000, show_default=True)
@click.option("--pretrained", is_flag=True, help="In the list, only networks whose ImageNet weights can be had.")
@click.option("--blocks", is_flag=True, help="Cost of each block of one network.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(model, classes, pretrained, blocks, as_json, **scaling) -> None:
    """List the networks, those that match MODEL ('resnet*'), or show one: its scaling, its cost, its blocks."""
    if model is None or set(model) & set("*?["):
        return _show_list(model or "*", scaling, classes, pretrained, as_json)
    _show_one(model.lower(), scaling, classes, blocks, as_json)


def _show_list(pattern: str, scaling: dict, classes: int, pretrained: bool, as_json: bool) -> None:
    names = list_models(pattern, pretrained=pretrained)
    if not names:
        raise UserError(f"No network matches {pattern!r}. Choose among: {', '.join(list_models())}.")
    infos = {name: model_info(architecture_spec(name, **scaling), classes=classes) for name in names}
    if as_json:
        return console.emit_json({name: asdict(info) for name, info in infos.items()})
    console.table(HEADERS, map(_row, infos.values()))
    console.finish(
        f"one picture at the size given, {classes} classes; top-1 on ImageNet as published",
        f"keras-effnet info {'b4' if 'b4' in names else names[0]} --blocks",
    )


def _show_one(name: str, scaling: dict, classes: int, blocks: bool, as_json: bool) -> None:
    spec = architecture_spec(name, **scaling)
    info, cost = model_info(spec, classes=classes), count(spec, classes=classes)
    if as_json:
        return console.emit_json(asdict(info) | asdict(cost))
    console.table(HEADERS, [_row(info)])
    if spec != SPECS[name]:
        ratio = cost.macs / count(SPECS[name], classes=classes).macs
        click.echo(f"{ratio:.2f} times the MACs of {name}; channels and repeats are rounded, repeats always up.\n")
    else:
        click.echo(f"Source:  {info.source}\nWeights: {info.weights or 'none for ImageNet'}\n")
        if name in PUBLISHED:
            click.echo(f"{explain(name)}\n")
    if blocks:
        rows = [(b.name, f"{b.params:,}", f"{b.macs:,}", f"{b.activations:,}") for b in cost.blocks]
        console.table(("block", "parameters", "MACs", "activations"), rows)
    console.finish(
        f"{spec.name}: {cost.params:,} trainable parameters, {cost.macs:,} MACs ({cost.flops:,} FLOPs)",
        f"keras-effnet train digits --model {name} --image-size 32",
    )

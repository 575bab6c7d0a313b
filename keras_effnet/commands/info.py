"""`keras-effnet info`: the networks and what they cost. Pure Python: no TensorFlow."""

from __future__ import annotations

from dataclasses import asdict

import click

from keras_effnet import console
from keras_effnet.architecture import expand
from keras_effnet.baselines import SPECS, architecture_spec
from keras_effnet.complexity import count
from keras_effnet.scaling import PUBLISHED, explain

HEADERS = ("network", "pixels", "blocks", "params", "MACs", "acts", "top-1")


def _row(name: str, spec, classes: int = 1000) -> tuple[str, ...]:
    cost = count(spec, classes=classes)
    published = name in PUBLISHED and spec == SPECS[name]
    return (
        name if spec == SPECS.get(name) else spec.name,
        f"{spec.image_size}",
        f"{len(expand(spec).blocks)}",
        f"{cost.params / 1e6:.2f} M",
        f"{cost.macs / 1e6:,.0f} M",
        f"{cost.activations / 1e6:.1f} M",
        f"{PUBLISHED[name].top1:.1f}" if published else "-",
    )


@click.command("info")
@click.argument("model", required=False)
@click.option("--phi", type=float, help="Scale by the paper's formula: 1 about doubles the MACs, -1 halves them.")
@click.option("--depth", type=float, default=1.0, show_default=True, help="Multiplier of the layers.")
@click.option("--width", type=float, default=1.0, show_default=True, help="Multiplier of the channels.")
@click.option("--resolution", type=float, default=1.0, show_default=True, help="Multiplier of the input size.")
@click.option("--image-size", type=int, help="Side of the input in pixels.")
@click.option("--classes", type=int, default=1000, show_default=True)
@click.option("--blocks", is_flag=True, help="Cost of each block.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(model, phi, depth, width, resolution, image_size, classes, blocks, as_json) -> None:
    """List the networks, or show MODEL: its scaling, its cost, its blocks."""
    if model is None:
        if as_json:
            return console.emit_json({name: asdict(count(spec)) | {"blocks": None} for name, spec in SPECS.items()})
        console.table(HEADERS, [_row(name, spec) for name, spec in SPECS.items()])
        return console.finish(
            "one picture at the size given, 1000 classes; top-1 on ImageNet as published",
            "keras-effnet info b4 --blocks",
        )
    name = model.lower()
    spec = architecture_spec(name, phi=phi, depth=depth, width=width, resolution=resolution, image_size=image_size)
    cost = count(spec, classes=classes)
    if as_json:
        return console.emit_json(asdict(cost) | {"name": spec.name, "image_size": spec.image_size})
    console.table(HEADERS, [_row(name, spec, classes)])
    if spec == SPECS[name] and name in PUBLISHED:
        click.echo(f"{explain(name)}\n")
    elif spec != SPECS[name]:
        ratio = cost.macs / count(SPECS[name], classes=classes).macs
        click.echo(f"{ratio:.2f} times the MACs of {name}; channels and repeats are rounded, repeats always up.\n")
    if blocks:
        rows = [(b.name, f"{b.params:,}", f"{b.macs:,}", f"{b.activations:,}") for b in cost.blocks]
        console.table(("block", "parameters", "MACs", "activations"), rows)
    console.finish(
        f"{spec.name}: {cost.params:,} trainable parameters, {cost.macs:,} MACs ({cost.flops:,} FLOPs)",
        f"keras-effnet train digits --model {name} --image-size 32",
    )

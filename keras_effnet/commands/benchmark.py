"""`keras-effnet benchmark`: latency of `.tflite` files, with the processor named. No TensorFlow."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from keras_effnet import console


@click.command("benchmark")
@click.argument("files", nargs=-1, required=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--runs", type=click.IntRange(1), default=50, show_default=True, help="Timed runs, after 5 to warm up.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(files, threads, runs, as_json) -> None:
    """Time FILES (.tflite) on this machine, one picture at a time."""
    from keras_effnet.export.latency import benchmark

    reports = {path: benchmark(path, threads, runs=runs) for path in console.track("Timing", len(files))(files)}
    if as_json:
        return console.emit_json({path: asdict(report) for path, report in reports.items()})
    first = next(iter(reports.values()))
    rows = [
        (Path(path).name, f"{r.median_ms:.2f} ms", f"{r.iqr_ms:.2f} ms", f"{r.median_ms / first.median_ms:.2f}")
        for path, r in reports.items()
    ]
    console.table(("file", "median", "IQR", "ratio to first"), rows)
    console.finish(f"{runs} runs, {threads} thread(s), {first.cpu}", "keras-effnet benchmark FILES --threads 2")

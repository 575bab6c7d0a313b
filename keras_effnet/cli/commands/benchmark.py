"""`keras-effnet benchmark`: latency and peak memory of `.tflite` files. No TensorFlow."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from keras_effnet.cli import console
from keras_effnet.cli.parameter_types import THREADS, Number, Whole
from keras_effnet.errors import UserError


@click.command("benchmark")
@click.argument("files", nargs=-1, required=True)
@click.option("--threads", type=THREADS, default=1, show_default=True)
@click.option("--runs", type=Whole(1), default=50, show_default=True, help="Timed runs, after 5 warm-up runs.")
@click.option(
    "--max-seconds",
    type=Number(0, min_open=True),
    default=10,
    show_default=True,
    help="Time limit per file; slow files get fewer runs, but at least 5.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(files, threads, runs, max_seconds, as_json) -> None:
    """Measure latency and peak memory of FILES (.tflite) on this machine, one image at a time."""
    from keras_effnet.export.measure.latency import benchmark_in_turn
    from keras_effnet.export.measure.memory import peak_memory

    if folder := next((path for path in files if Path(path).is_dir()), None):
        raise UserError(f"{folder} is a folder: name its files, {folder}/*.tflite.")
    with console.status(f"Timing {len(files)} files alternately"):
        latencies = benchmark_in_turn(files, threads, runs=runs, max_seconds=max_seconds)
        memories = [peak_memory(path, threads) for path in files]
    reports = dict(zip(files, zip(latencies, memories, strict=True), strict=True))
    if as_json:
        return console.emit_json(
            {path: asdict(timed) | {"peak_memory_mb": memory} for path, (timed, memory) in reports.items()}
        )
    first, _ = next(iter(reports.values()))
    rows = [
        (
            Path(path).name,
            f"{timed.median_ms:.2f} ms",
            f"{timed.iqr_ms:.2f} ms",
            f"{timed.median_ms / first.median_ms:.2f}",
            f"{memory:.1f} MB",
        )
        for path, (timed, memory) in reports.items()
    ]
    console.table(("file", "median", "IQR", "ratio to first", "peak memory"), rows)
    counts = sorted({timed.runs for timed, _ in reports.values()})
    spread = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    console.finish(
        f"{spread} runs, {threads} thread(s), {first.cpu}", ("keras-effnet", "benchmark", "FILES", "--threads", 2)
    )

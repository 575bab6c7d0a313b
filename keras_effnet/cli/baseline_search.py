"""`keras-effnet search --what baseline`: runs the search and shows what it found. Loads TensorFlow when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from keras_effnet.cli import console
from keras_effnet.cli.drawing import can_draw
from keras_effnet.cli.options import default_threads, read_settings, tolerated
from keras_effnet.errors import UserError

_TRIED = ("cost", "accuracy", "epochs", "reward")
SMALL = 48  # input size in pixels when candidates are trained


def search_baseline(data, as_json: bool, *, name, out: Path, resume: Path | None, **options: Any) -> None:
    """Search for a baseline with the options of the command, or resume a search, and print the finalists."""
    drawn = can_draw()
    console.prepare_tensorflow()
    from keras_effnet.search.arguments import BASELINE_ARGUMENTS, kept_arguments
    from keras_effnet.search.baselines import baseline_search
    from keras_effnet.search.report import write_search_report
    from keras_effnet.study.results import kept_results
    from keras_effnet.system.run_folders import kept_if_used, new_run

    shared = {key: options[key] for key in ("workers", "cluster")}
    if resume is None:
        arguments = shared | _arguments(data, **options)
        folder = new_run("search", name or f"{Path(data).resolve().name}-baseline", out)
    else:
        folder, arguments = resume, shared | kept_arguments(resume)
    resumable = console.resumable("search", folder, BASELINE_ARGUMENTS)
    with kept_if_used(folder), resumable, console.study_progress() as progress:
        result = baseline_search(folder=folder, progress=progress, **arguments)
    if drawn:
        with kept_results(folder):
            write_search_report(result)
    if as_json:
        finalists = [_figures(each) for each in (result.reference, *result.ranking)]
        tried = [{"name": each.spec.name} | {key: getattr(each, key) for key in _TRIED} for each in result.tried]
        found = {"finalists": finalists, "tried": tried, "answer": result.answer, "failures": result.failures}
        return console.emit_json({"search": folder} | found)
    _show(result)
    if result.ranking:
        models = f"{folder}/found/1.yaml,{arguments['baseline']}"
        words = ("study", arguments["data"]["source"], "--models", models, "--image-size", arguments["image_size"])
        page = "report.html, " if drawn else ""
        console.finish(f"{folder} ({page}results.jsonl, found/1.yaml ...)", ("keras-effnet", *words))
    if result.failures:
        first, why = next(iter(result.failures.items()))
        raise UserError(f"{len(result.failures)} trainings failed, the first of them {first}: {why}")
    return None


def _arguments(data, *, settings, image_size, threads, test_split, max_bad_files, skip_empty_classes, **options):
    """Arguments of `baseline_search` from the options of the command."""
    given = {kind: options[option] for option, kind in (("budget_macs", "macs"), ("budget_ms", "tflite_ms"))}
    given = {kind: amount for kind, amount in given.items() if amount is not None}
    if len(given) > 1:
        raise UserError("Give one budget: --budget-macs or --budget-ms.")
    cost, budget = next(iter(given.items()), (options["cost"], None))
    names = ("baseline", "sampler", "candidates", "generation", "epochs", "first", "reduction", "finalists", "seeds")
    source = {"source": data, "test_split": test_split} | tolerated(max_bad_files, skip_empty_classes)
    return {name: options[name] for name in names} | {
        "data": source,
        "options": read_settings(settings),
        "cost": cost,
        "budget": budget,
        "image_size": image_size or SMALL,
        "threads": threads or default_threads(options["workers"]),
    }


def _figures(finalist) -> dict[str, Any]:
    return {
        "name": finalist.spec.name,
        "cost": finalist.cost,
        "reward": finalist.reward,
        "accuracies": finalist.accuracies,
        "tested": finalist.tested,
    }


def _show(result) -> None:
    unit = {"macs": "MACs", "tflite_ms": "TFLite ms"}[result.budget.kind]
    rows = [
        (
            "baseline" if each is result.reference else each.spec.name,
            f"{each.cost:,.0f}" if result.budget.kind == "macs" else f"{each.cost:.2f}",
            f"{each.accuracy:.1%}" + (f" ±{100 * each.spread:.1f}" if each.spread is not None else ""),
            f"{sum(each.tested.values()) / len(each.tested):.1%}" if each.tested else "-",
            f"{each.reward:.3f}",
        )
        for each in (result.reference, *result.ranking)
    ]
    console.table(("network", unit, "validation", "test", "reward"), rows)
    click.echo(f"{len(result.tried)} candidates were tried. {result.answer}")

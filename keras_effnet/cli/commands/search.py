"""`keras-effnet search`: compound scaling constants, listed with their exact cost or ranked by short trainings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
from click.core import ParameterSource

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.cli import console
from keras_effnet.cli.baseline_search import SMALL, search_baseline
from keras_effnet.cli.command_words import training_words
from keras_effnet.cli.drawing import can_draw
from keras_effnet.cli.options import (
    default_threads,
    given_words,
    read_settings,
    refuse_unused,
    reporting_split,
    tolerant,
    tolerated,
)
from keras_effnet.cli.parameter_types import THREADS, WHOLE, WORKERS, Choice, Name, Number, Whole
from keras_effnet.errors import UserError
from keras_effnet.search.arguments import searches_baseline
from keras_effnet.search.baseline_halving import SAMPLERS
from keras_effnet.search.grid import CONSTRAINED, ScalingCandidate, candidates, format_constants, networks

_BASELINE = ("budget_macs", "budget_ms", "cost", "sampler", "candidates", "generation")
_CONSTANTS = ("dry_run", "target", "step", "tolerance", "by")
_ANEW = ("workers", "cluster", "as_json", "resume")  # options that may change when a search is resumed


@click.command("search")
@click.argument("data", required=False)
@click.option(
    "--what",
    type=Choice(["constants", "baseline"]),
    default="constants",
    show_default=True,
    help="Search the scaling constants, or a better baseline at the same cost.",
)
@click.option("--baseline", default="b0", show_default=True, help="Network to start from: a name or a .yaml file.")
@click.option("--dry-run", is_flag=True, help="List the candidates without training them.")
@click.option("--target", type=float, default=2.0, show_default=True, help="Cost ratio at phi = 1.")
@click.option("--step", type=float, help="Grid step. [default: 0.05 for --dry-run, else 0.1]")
@click.option("--tolerance", type=float, default=0.05, show_default=True, help="Relative tolerance of the cost ratio.")
@click.option(
    "--by",
    type=Choice(CONSTRAINED),
    help="Quantity to constrain: the formula or the counted MACs. [default: formula for --dry-run, else macs]",
)
@click.option("--image-size", type=WHOLE, help="Input size of the baseline. [default: its own, or 48 to train]")
@click.option("--budget-macs", type=Number(1), help="baseline: MACs per image. [default: the baseline's]")
@click.option("--budget-ms", type=Number(0, min_open=True), help="baseline: measured TFLite latency, instead of MACs.")
@click.option(
    "--cost", type=Choice(["macs", "tflite_ms"]), default="macs", show_default=True, help="baseline: its unit."
)
@click.option("--sampler", type=Choice(SAMPLERS), default="tpe", show_default=True, help="baseline: nsga2 for a front.")
@click.option("--candidates", type=Whole(2), default=24, show_default=True, help="baseline: candidates in all.")
@click.option("--generation", type=Whole(2), default=8, show_default=True, help="baseline: candidates drawn together.")
@click.option("--epochs", type=Whole(1), default=9, show_default=True, help="Epochs of the longest training.")
@click.option("--first", type=Whole(1), default=1, show_default=True, help="Epochs before the first comparison.")
@click.option("--reduction", type=Whole(2), default=3, show_default=True, help="Keep one candidate in this many.")
@click.option("--finalists", type=Whole(1), default=3, show_default=True, help="Candidates that get all seeds.")
@click.option("--seeds", type=Whole(1), default=3, show_default=True, help="Trainings per finalist.")
@click.option(
    "--set", "settings", multiple=True, metavar="OPTION=VALUE", help="Any option of `train`, for all trainings."
)
@click.option("--threads", type=THREADS, help="Threads per training. [default: the cores / workers]")
@click.option("--workers", type=WORKERS, default=1, show_default=True, help="Concurrent trainings.")
@click.option("--ray", "cluster", metavar="ADDRESS", help="Train on a Ray cluster: local, auto or host:port.")
@reporting_split
@tolerant
@click.option("--name", type=Name(), help="Name of the search folder; by default the name of the data.")
@click.option("--out", type=click.Path(path_type=Path), default="runs", show_default=True, help="Folder of all runs.")
@click.option("--resume", type=click.Path(path_type=Path), help="Resume this search with the same options.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(data, dry_run, as_json, **options) -> None:
    """Search alpha, beta, gamma >= 1 with alpha * beta^2 * gamma^2 close to 2 for a baseline, by training on DATA.

    With --dry-run, list the candidates: `search --baseline b0 --dry-run`. With --what baseline, search a stage table
    that is better than the baseline at its cost.
    """
    baseline, resume = options.pop("what") == "baseline", options["resume"]
    own = {name: options.pop(name) for name in _BASELINE}
    if resume is not None:
        _refuse_what_is_kept()
        baseline = searches_baseline(resume)
    elif data is None and not dry_run:
        raise UserError("Name the data to train candidates on: `keras-effnet search digits-cluttered`, or --dry-run.")
    if baseline:
        refuse_unused(_CONSTANTS, "they belong to the search of constants.")
        if resume is not None and resume.is_dir():
            console.hold(resume)
        return search_baseline(data, as_json, **own, **{k: v for k, v in options.items() if k not in _CONSTANTS})
    refuse_unused(_BASELINE, "they belong to --what baseline.")
    return _list(as_json, **options) if dry_run else _search(data, as_json, **options)


def _refuse_what_is_kept() -> None:
    context = click.get_current_context()
    given = {key for key in context.params if context.get_parameter_source(key) is ParameterSource.COMMANDLINE}
    if given - set(_ANEW):
        raise UserError("A resumed search keeps its data and options; only --workers and --ray may be given.")


def _list(as_json, baseline, target, step, tolerance, by, image_size, settings, **_) -> None:
    grid = {"target": target, "step": step or 0.05, "tolerance": tolerance, "by": by or "formula"}
    stem = {name: value for name, value in read_settings(settings).items() if name == "stem_stride"}
    found = candidates(architecture_spec(baseline, **stem), **grid, image_size=image_size)
    number = {each: place for place, group in enumerate(networks(found), start=1) for each in group}
    if as_json:
        return console.emit_json([_figures(each) | {"network": number[each]} for each in found])
    headers = ("alpha, beta, gamma", "formula", "MACs x", "MACs", "parameters", "px", "GB", "net")
    rows = [
        (
            format_constants(each.scaling),
            f"{each.formula:.3f}",
            f"{each.ratio:.3f}",
            f"{each.macs:,}",
            f"{each.params:,}",
            f"{each.spec.image_size}",
            f"{each.memory_bytes / 1e9:.1f}",
            f"{number[each]}",
        )
        for each in found
    ]
    console.table(headers, rows)
    click.echo(
        f"{len(found)} candidates, {max(number.values())} distinct networks (net): channels are multiples of 8, "
        "blocks are whole, pixels are multiples of 4. GB: predicted memory of a training step with 32 images."
    )
    constraint = f"{grid['by']} within {tolerance:.0%} of {target:g}"
    console.finish(
        f"the list above ({baseline}, {constraint}); nothing was trained",
        ("keras-effnet", "search", "DATA", "--baseline", baseline, *given_words("baseline", "dry_run")),
    )


def _figures(candidate: ScalingCandidate) -> dict:
    scaling = candidate.scaling
    return {
        "alpha": scaling.alpha,
        "beta": scaling.beta,
        "gamma": scaling.gamma,
        "formula": candidate.formula,
        "ratio": candidate.ratio,
        "macs": candidate.macs,
        "params": candidate.params,
        "image_size": candidate.spec.image_size,
        "memory_bytes": candidate.memory_bytes,
    }


def _search(
    data,
    as_json,
    name,
    out,
    resume,
    settings,
    step,
    by,
    image_size,
    threads,
    test_split,
    max_bad_files,
    skip_empty_classes,
    **options,
) -> None:
    if resume is not None and resume.is_dir():
        console.hold(resume)
    drawn = can_draw()
    console.prepare_tensorflow()
    from keras_effnet.evaluation import plots
    from keras_effnet.search.arguments import ARGUMENTS, kept_arguments
    from keras_effnet.search.halving import grid_search, member
    from keras_effnet.search.report import write_search_report
    from keras_effnet.study.plan import Plan
    from keras_effnet.study.results import kept_results
    from keras_effnet.system.run_folders import kept_if_used, new_run

    if resume is None:
        own = {"step": step or 0.1, "by": by or "macs", "image_size": image_size or SMALL}
        own["threads"] = threads or default_threads(options["workers"])
        given = {"source": data, "test_split": test_split} | tolerated(max_bad_files, skip_empty_classes)
        arguments = {"data": given, "options": read_settings(settings), **options, **own}
        folder = new_run("search", name or Path(data).resolve().name, out)
    else:
        folder = resume
        arguments = options | kept_arguments(resume)
    with kept_if_used(folder), console.resumable("search", folder, ARGUMENTS):
        with console.study_progress() as progress:
            result = grid_search(folder=folder, progress=progress, **arguments)
        points = [(*vars(each.candidate.scaling).values(), each.accuracy, each.epochs) for each in result.ranking]
        with kept_results(folder):
            plots.search_map(points, folder / "search.png")
            if drawn:
                write_search_report(result)
    if as_json:
        ranking = [
            _figures(each.candidate) | {"epochs": each.epochs, "accuracies": each.accuracies, "tested": each.tested}
            for each in result.ranking
        ]
        tied = [_figures(each.candidate) for each in result.tied]
        found = {"ranking": ranking, "tied": tied, "answer": result.answer, "failures": result.failures}
        console.emit_json({"search": folder} | found)
    else:
        _show(result)
        plan, best = Plan.read(folder), result.ranking[0]
        trained = member(best.candidate, arguments["baseline"], arguments["image_size"])
        config = plan.protocol.config(trained, epochs=arguments["epochs"])
        config = replace(config, model=f"{folder}/family/phi1.yaml", depth=1.0, width=1.0)  # the best, already scaled
        words, note = training_words(plan.protocol.data, config)
        page = "report.html, " if drawn else ""
        console.finish(f"{folder} ({page}results.jsonl, search.png, family/phi0.yaml ... phi7.yaml)", words, note)
    if result.failures:
        first, why = next(iter(result.failures.items()))
        raise UserError(
            f"{len(result.failures)} trainings failed, the first of them {first}: {why} The others are kept; "
            f"--resume {folder} retries the failed ones."
        )


def _show(result) -> None:
    headers = ("alpha, beta, gamma", "formula", "MACs x", "px", "epochs", "seeds", "accuracy")
    rows = [
        (
            ", ".join(format_constants(scaling) for scaling in each.same[:2]) + (", ..." if len(each.same) > 2 else ""),
            f"{each.candidate.formula:.3f}",
            f"{each.candidate.ratio:.3f}",
            f"{each.candidate.spec.image_size}",
            f"{each.epochs}",
            f"{len(each.accuracies)}",
            f"{each.accuracy:.1%}" + (f" ±{100 * each.spread:.1f}" if each.spread is not None else ""),
        )
        for each in result.ranking
    ]
    console.table(headers, rows)
    for sentence in result.answer:
        click.echo(sentence)

"""`keras-effnet export`: `.tflite` files at several precisions, each run and compared with the model."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import click

from keras_effnet.cli import console
from keras_effnet.cli.export_inputs import compressed_network, export_images
from keras_effnet.cli.options import refuse_unused, tolerant, tolerated
from keras_effnet.cli.parameter_types import SEED, WHOLE, Choice, ChoiceList, Name, Names, Number, Whole
from keras_effnet.errors import UserError
from keras_effnet.export.choices import DEFAULT_QUANTIZATIONS, FORMATS, INPUT_TYPES, INT8_METHODS, QUANTIZATIONS
from keras_effnet.tasks import TASK_NAMES

PAGE = "web"  # folder of the page within that of the files


def _next(task, files, folder) -> tuple:
    """The command to run after an export: one that knows the task of the files."""
    if not files:
        return "less", folder / "report.md"
    from keras_effnet.tasks import TASKS

    command, *data = ("eval", "DATA") if task in TASKS and TASKS[task].learning else ("benchmark",)
    return "keras-effnet", command, files[-1], *data


def _test_images(given, held_out, calibration):
    """The test image of a bundle, or images to choose it from: original ones, before they were cropped."""
    from keras_effnet.datasets.splits import Split

    if given is not None:
        return None if given == "none" else given
    return held_out if isinstance(held_out, Split) or calibration is None else calibration


def _license(artifact) -> str:
    """Licence of a network loaded by its published name; that of others is not known."""
    from keras_effnet.architecture.baselines import SPECS
    from keras_effnet.weights.pretrained import LICENSE

    return LICENSE if str(artifact.path) in SPECS else ""


def _check_page(folder, overwrite):
    """Refuse at once what would keep a page from being written at the end."""
    from keras_effnet.export.web.litert_js import runtime_files
    from keras_effnet.export.web.page import check_free

    check_free(folder / PAGE, overwrite)
    runtime_files(console.say)


def _write_page(folder, overwrite):
    from keras_effnet.export.web.page import page_of, write_page

    return write_page(page_of(folder), folder / PAGE, overwrite=overwrite)


def _with_post_processing(bundle, detector, overwrite) -> list[str]:
    """Write a copy with suppression of each file, run beside it; returns notes."""
    from keras_effnet.export.detection.post_processing import add_post_processing

    notes = []
    for path in [row.export.path for row in bundle.rows if row.export]:
        copy = path.with_name(f"{path.stem}_nms.tflite")
        if copy.exists() and not overwrite:
            raise UserError(f"{copy} exists; pass --overwrite to replace it.")
        add_post_processing(path, copy, detector)
        notes.append(f"{copy.name}: {path.name} with post-processing, which found the same boxes in LiteRT.")
    return notes


def _save(network, path):
    from keras_effnet.system.files import atomic, cannot_write, make_folder

    make_folder(path.parent)
    try:
        with atomic(path) as temporary:
            network.save(temporary)
    except OSError as error:  # h5py's errors have no number
        raise cannot_write(str(path), error) from None


@click.command("export")
@click.argument("model")
@click.option(
    "--quantize",
    type=ChoiceList("quantization", QUANTIZATIONS, required=True),
    default=",".join(DEFAULT_QUANTIZATIONS),
    show_default=True,
    help=f"Precisions, comma-separated: {', '.join(QUANTIZATIONS)}.",
)
@click.option("--calibration", help="Images for int8: a folder or dataset; by default the training data of the run.")
@click.option("--samples", type=Whole(20), default=100, show_default=True, help="Calibration images.")
@click.option(
    "--input-type",
    type=Choice(INPUT_TYPES),
    default="float32",
    show_default=True,
    help="Input of the files; uint8 for int8 and mixed files only.",
)
@click.option("--method", type=Choice(INT8_METHODS), help="int8 method; by default all but qat are tried in turn.")
@click.option("--qat", is_flag=True, help="Quantization-aware training on the calibration images: --method qat.")
@click.option(
    "--float-blocks",
    type=Names(),
    default=(),
    help="Float blocks of a mixed file, comma-separated; by default convolutions or blocks, as measured.",
)
@click.option("--min-agreement", type=Number(0, 1), help="Minimum agreement; by default the precision's own.")
@click.option(
    "--budget",
    type=Number(0.01, 10),
    help="Most time of int8 and mixed files over float32's, e.g. 0.65: the most accurate within it is kept.",
)
@click.option("--task", type=Choice(TASK_NAMES), help="What the output means; by default told by the network.")
@click.option("--sparsity", type=float, help="Prune first: share of zeros in each kernel, e.g. 0.75.")
@click.option("--clusters", type=WHOLE, help="Cluster first: distinct values per kernel, e.g. 16.")
@click.option("--epochs", type=Whole(1), help="Epochs of --qat, --sparsity and --clusters.")
@click.option("--learning-rate", type=float, help="Learning rate of --qat, --sparsity and --clusters.")
@click.option("--training-samples", type=Whole(20), default=1000, show_default=True, help="Images for these.")
@click.option(
    "--also",
    type=ChoiceList("format", FORMATS),
    default=(),
    help=f"Further float32 formats, comma-separated: {', '.join(FORMATS)}.",
)
@click.option("--web", is_flag=True, help="Also write a page that runs the files in the browser, as `serve` shows it.")
@click.option(
    "--postprocess",
    is_flag=True,
    help="Of a detector, also write NAME_PRECISION_nms.tflite with suppression inside: TFLite_Detection_PostProcess.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the files; by default a new run folder.")
@click.option("--name", type=Name(), help="Prefix of the file names; by default the name of the run.")
@click.option(
    "--class-names",
    type=click.Path(path_type=Path),
    help="Class names for the files' metadata: one a line, or a CSV of label,name. ImageNet's are known.",
)
@click.option("--author", help="Author of the network, for the files' metadata.")
@click.option("--license", "license_", help="Licence of the network, for the files' metadata.")
@click.option(
    "--bundle",
    "app_bundle",
    is_flag=True,
    help="Also write a folder to build apps from: model.json, model card, Android project, example code, test image.",
)
@click.option(
    "--test-image",
    help="Test image of the bundle, which contains it; none for a bundle without. By default one of the images "
    "to compare on, of which the network is sure.",
)
@click.option("--seed", type=SEED, default=0, show_default=True)
@tolerant
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
@click.option("--allow-degraded", is_flag=True, help="Keep files that disagree with the model.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    model,
    quantize,
    calibration,
    method,
    qat,
    float_blocks,
    sparsity,
    clusters,
    epochs,
    learning_rate,
    also,
    web,
    out,
    name,
    class_names,
    author,
    license_,
    app_bundle,
    test_image,
    postprocess,
    max_bad_files,
    skip_empty_classes,
    as_json,
    **options,
) -> None:
    """Export MODEL (.keras, run folder, or a name like lite0) to .tflite files, each run and compared with the model.

    Precisions: none (float32), float16, dynamic, weight_only (int8 weights, arithmetic in float), int8, int16x8, and
    mixed: int8 where it pays, float elsewhere.
    """
    console.prepare_tensorflow()
    from keras_effnet.export.app_bundle.answers import SHOWN
    from keras_effnet.export.app_bundle.writing import BUNDLE
    from keras_effnet.export.bundle import write_bundle
    from keras_effnet.export.description import About, read_class_names
    from keras_effnet.export.finetune.qat import TUNING
    from keras_effnet.export.report import cells, columns
    from keras_effnet.export.savedmodel_onnx import WRITERS
    from keras_effnet.inference import artifacts, naming
    from keras_effnet.system.run_folders import kept_if_used, new_run

    if not (qat or method == "qat" or sparsity is not None or clusters is not None):
        reason = "only --qat, --sparsity and --clusters train."
        refuse_unused(["epochs", "learning_rate", "training_samples"], reason)
    if qat and method not in (None, "qat"):
        raise UserError(f"--qat means --method qat and cannot be combined with --method {method}.")
    if sparsity is not None and clusters is not None:
        raise UserError("--sparsity and --clusters exclude each other: prune or cluster.")
    if postprocess and also:
        raise UserError("--postprocess is for .tflite files, and --also formats have no detectors: leave one out.")
    if not app_bundle:
        refuse_unused(["test_image"], "only --bundle contains one.")
    defects = tolerated(max_bad_files, skip_empty_classes)
    artifact = artifacts.load(model, several_outputs=True)
    detects = artifact.task == "detection"
    several = artifact.model is not None and len(artifact.model.outputs) > 1 and not detects
    meaning = "several outputs" if several else artifact.task
    if app_bundle or web:
        option = "--bundle" if app_bundle else "--web"
        if (options["task"] or meaning) not in SHOWN:
            raise UserError(
                f"{option} has nothing to show for the task of {model}, {meaning}: export it without {option}."
            )
    if postprocess and not detects:
        raise UserError(f"--postprocess is for detectors, and the task of {model} is {meaning}.")
    if not several:
        options["task"] = options["task"] or artifact.task
    if artifact.model is None:
        raise UserError(f"{model} is already exported; pass the .keras file or the run folder.")
    if calibration is None and not artifact.data_origin:
        unused = ["samples", "seed", "max_bad_files", "skip_empty_classes"]
        refuse_unused(unused, "there are no images; name some with --calibration FOLDER.")
    known = read_class_names(class_names, artifact.class_names, artifact.classes) if class_names else ()
    about = About(author=author or "", license=license_ or _license(artifact), class_names=known)
    name = name or (Path(model).resolve().name if Path(model).is_dir() else artifact.path.stem)
    given = {key: value for key, value in (("epochs", epochs), ("learning_rate", learning_rate)) if value is not None}
    with console.status("Reading images") as spinner, ExitStack() as ending:
        training = qat or method == "qat" or sparsity is not None or clusters is not None
        most = max(options["samples"], options["training_samples"]) if training else options["samples"]
        calibrate_on, held_out, notes = export_images(artifact, calibration, most, options["seed"], defects)
        folder = out or new_run("export", name)
        if out is None:
            ending.enter_context(kept_if_used(folder))
        console.hold(folder)
        if web:
            _check_page(folder, options["overwrite"])
        network, changes = compressed_network(
            artifact, calibrate_on, held_out, sparsity, clusters, given, options["training_samples"], spinner.update
        )
        notes += changes
        if network is not artifact.model:
            _save(network, folder / f"{name}.keras")  # costly to make; can be exported to other precisions later
        for suffix, export in (WRITERS[kind] for kind in also):
            spinner.update(f"Exporting {name}{suffix}")
            written = export(
                network,
                folder / f"{name}{suffix}",
                verification=held_out,
                image_spec=artifact.image_spec,
                overwrite=options["overwrite"],
            )
            notes.append(
                f"{written.path.name}: {written.size_bytes / 1e6:.2f} MB, float32, largest difference of an output "
                f"{written.report.max_abs_diff:.1g} on {written.report.samples} images."
            )
        bundle = write_bundle(
            network,
            folder,
            quantize,
            held_out=held_out,
            calibration=calibrate_on,
            name=name,
            method="qat" if qat else method,
            float_blocks=float_blocks,
            tuning=replace(TUNING, **given),
            labels=artifact.class_names,
            about=about,
            image_spec=artifact.image_spec,
            image_size=artifact.image_spec.size,
            detector=artifact.detector,
            notes=notes,
            app_bundle=app_bundle,
            thresholds=naming.thresholds(artifact),
            test_images=_test_images(test_image, held_out, calibration),
            announce=spinner.update,
            **options,
        )
        if postprocess:
            spinner.update("Adding post-processing")
            notes += _with_post_processing(bundle, artifact.detector, options["overwrite"])
        if web and len(bundle.refused) < len(bundle.rows):
            spinner.update("Writing the page")
            notes.append(f"{_write_page(folder, options['overwrite'])}: page for a static host.")
    if as_json:
        click.echo(bundle.to_json())
    else:
        headers = columns(bundle.rows, short=True)
        rows = [cells(row, headers) for row in bundle.rows]
        console.table(headers, rows, title=f"{name}, verified by running each file")
        for line in (bundle.recommendation, *notes):
            click.echo(line)
        kept = [row.export.path for row in bundle.rows if row.export]
        contents = "report.html, report.md" + (f", {BUNDLE}/" if app_bundle and kept else "")
        console.finish(f"{folder} ({contents})", _next(meaning, kept, folder))
    bundle.raise_if_refused()

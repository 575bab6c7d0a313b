"""Inputs of an export: calibration and comparison images, and the network, pruned or clustered if asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from keras_effnet.errors import UserError
from keras_effnet.imagenet import readable

MAX_HELD_OUT = 500  # images to compare on; they are held in memory


def export_images(artifact, calibration, samples, seed, defects):
    """Return calibration images, other images to compare on, and notes for the report.

    They are the splits of a labelled dataset, or the halves of a plain folder or of an evaluation list.
    """
    import numpy as np

    from keras_effnet import datasets
    from keras_effnet.datasets.findings.data_identity import DATA, warn_if_changed
    from keras_effnet.export.calibration import load_images
    from keras_effnet.inference.companions import companion

    size = artifact.image_spec.size
    if calibration is None:
        if not artifact.data_origin:
            return None, None, []
        dataset = datasets.load(**{"image_size": size} | artifact.data_origin | defects)
        if record := companion(artifact.path, DATA):
            warn_if_changed(dataset, record.parent)
    else:
        try:
            dataset = datasets.load(calibration, image_size=size, **defects)
        except UserError:
            if not Path(calibration).is_dir():
                raise
            images = load_images(calibration, artifact.image_spec, 2 * samples, seed)
            half = (len(images) + 1) // 2
            pixels = images[:half], images[half : half + MAX_HELD_OUT]
            return *pixels, _halves(calibration, *pixels)
    notes = []
    if not len(dataset.train):  # an evaluation list: one half for calibration, the other for comparison
        test = dataset.held_out
        first, second = (test.select(np.arange(start, len(test), 2)) for start in (0, 1))
        dataset = replace(dataset, train=first, test=second)
        notes = _halves(dataset.name if calibration is None else calibration, first, second)
    # Labels are used only if the classes are the model's; calibration does not need them.
    same = readable(artifact.class_names or ()) == readable(dataset.class_names) and _labels_fit(dataset, artifact)
    held_out = dataset.held_out.sample(MAX_HELD_OUT, seed)
    return dataset.train, held_out if same else load_images(held_out, artifact.image_spec, samples, seed), notes


def _labels_fit(dataset, artifact) -> bool:
    """Whether the labels of the data are of the kind that the network learns; those of two classes serve two tasks."""
    from keras_effnet.tasks import TASKS

    have, wanted = (TASKS[each.task].learning for each in (dataset, artifact))
    return have is not None and wanted is not None and have.labels == wanted.labels


def _halves(source, calibrate_on, held_out) -> list[str]:
    """Note that images were divided into two halves; refuse a single one."""
    from keras_effnet.export.report import FEWEST

    if not len(held_out):
        raise UserError(
            f"{source} holds a single image, but calibration and comparison need different ones: at least 2, and "
            f"{2 * FEWEST} for a recommendation."
        )
    return [f"{source} has no split: {len(calibrate_on)} images to calibrate on, {len(held_out)} others to compare on."]


def compressed_network(artifact, images, held_out, sparsity, clusters, given, samples, announce):
    """Return the pruned or clustered network and notes for the report; without either option, the network itself."""
    from keras_effnet.export.finetune.sparsity import CLUSTERING, PRUNING, cluster, prune
    from keras_effnet.export.verification import Reference, compare

    if sparsity is None and clusters is None:
        return artifact.model, []
    if images is None:
        raise UserError(
            "Pruning and clustering need training images: --calibration FOLDER, thousands rather than hundreds."
        )
    shared = {"samples": samples, "image_spec": artifact.image_spec, "announce": announce}
    if sparsity is not None:
        compressed = prune(artifact.model, images, sparsity, replace(PRUNING, **given), **shared)
        done = f"Pruned before export: {compressed.zeros:.0%} of the kernel weights are 0."
    else:
        compressed = cluster(artifact.model, images, clusters, replace(CLUSTERING, **given), **shared)
        done = f"Clustered before export: each kernel has at most {clusters} distinct values."
    held_out = images if held_out is None else held_out
    before, after = (Reference.of(model, held_out, artifact.image_spec) for model in (artifact.model, compressed.model))
    report = compare(before.answers, after.answers, before.labels)
    accuracy = "" if report.accuracy_keras is None else f"; top-1 of the original {report.accuracy_keras:.1%}"
    return compressed.model, [f"{done} Beside the original network: {report.agreement}{accuracy}."]

"""`keras-effnet check-data`: find problems in a dataset before training."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from keras_effnet.cli import console
from keras_effnet.cli.options import SKIP_EMPTY_HELP, task_option
from keras_effnet.cli.parameter_types import IMAGE_SIZE, SEED, Whole
from keras_effnet.config.detectors import names_detector
from keras_effnet.system.documents import json_text
from keras_effnet.system.html_pages import markdown_text

_LISTED, _SHEET_CLASSES, _SHEET_PAIRS, _EACH = 20, 24, 16, 4
_LARGE = 200  # pixels of an image on the sheet from which it needs more room
_DETECTOR = "det-lite0"


@click.command("check-data")
@click.argument("data")
@task_option
@click.option("--image-size", type=IMAGE_SIZE, help="Input size in pixels; by default 224, or that of the detector.")
@click.option("--model", help="Detector whose anchors are compared with the boxes of DATA [default: det-lite0].")
@click.option("--near-duplicates/--no-near-duplicates", default=True, show_default=True, help="Also find near copies.")
@click.option("--max", "most", type=Whole(1), help="Check a random sample of this many images.")
@click.option("--val-split", type=float, default=0.2, show_default=True, help="Share held out if DATA has no val/.")
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("--skip-empty-classes", is_flag=True, help=SKIP_EMPTY_HELP)
@click.option("--strict", is_flag=True, help="Exit with status 3 on a leak or an unreadable file.")
@click.option("--out", default="runs", show_default=True, help="Folder of all runs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    data, task, image_size, model, near_duplicates, most, val_split, seed, skip_empty_classes, strict, out, as_json
) -> None:
    """Check every image and label of DATA for problems that affect training or evaluation."""
    console.prepare_tensorflow()
    from keras_effnet.architecture.detectors import detector_spec
    from keras_effnet.datasets.checking import check_data
    from keras_effnet.detection.anchor_findings import anchor_check
    from keras_effnet.errors import UserError, VerificationError
    from keras_effnet.system.files import atomic_group, write_text
    from keras_effnet.system.run_folders import kept_if_used, new_run

    if model is not None and not names_detector(model):
        raise UserError(f"--model names a detector, such as det-lite0; {model} is none.")
    detector = detector_spec(model or _DETECTOR)
    with console.hushed():
        report = check_data(
            data,
            image_size=detector.image_size if model and image_size is None else image_size,
            near_duplicates=near_duplicates,
            max_images=most,
            examples=_EACH,
            val_split=val_split,
            seed=seed,
            skip_empty_classes=skip_empty_classes,
            task=task,
            also={"detection": anchor_check(detector)},
            progress=console.track("Checking images"),
        )
    if model is not None and report.task != "detection":
        raise UserError(f"{report.name} has no boxes, which the anchors of {model} could fit: leave --model out.")
    folder = new_run("check-data", report.name, out)
    with kept_if_used(folder), atomic_group(folder) as staged:
        drawn = _draw(report, staged)
        write_text(staged / "report.json", json_text(report.to_dict()) + "\n")
        write_text(staged / "report.md", markdown(report, drawn))
    if as_json:
        console.emit_json(report.to_dict() | {"run": str(folder)})
    else:
        console.table(
            ("finding", _counted(report), ""), [(name, str(count), note) for name, count, note in findings(report)]
        )
        flawed = report.unreadable or report.groups
        fix = ("less", folder / "report.md") if flawed else ("keras-effnet", "train", data)
        console.finish(f"{folder} (report.md, report.json, {', '.join(drawn)})", fix)
    if strict and (report.unreadable or report.leaks):
        raise VerificationError(
            f"{data}: {len(report.unreadable)} unreadable files, {sum(report.leaked.values())} held-out images that "
            f"are also in training; see {folder / 'report.md'}."
        )


def _draw(report, folder: Path) -> list[str]:
    """Draw the figures of the report and return their file names."""
    import numpy as np

    from keras_effnet.cli.evaluations.label_figures import LABEL_FIGURES
    from keras_effnet.datasets.decoding import BadFile
    from keras_effnet.datasets.findings.fingerprints import sheet_tile
    from keras_effnet.datasets.many_files import decode_files
    from keras_effnet.evaluation import plots

    name, draw = LABEL_FIGURES[report.task]
    draw(report, folder / name)
    drawn, titles = [name], list(report.examples)
    chosen = np.unique(np.linspace(0, len(titles) - 1, _SHEET_CLASSES).round().astype(int)) if titles else ()
    tiles = [(titles[index], tile) for index in chosen for tile in report.examples[titles[index]]]
    if tiles:
        columns, inches = (4, 3.2) if tiles[0][1].shape[0] > _LARGE else (8, 1.3)
        shown = np.stack([tile for _, tile in tiles])
        plots.image_grid(shown, [_short(title) for title, _ in tiles], folder / "images.png", columns, inches)
        drawn.append("images.png")
    pairs = [group.members[:2] for group in _worst_first(report.groups)[:_SHEET_PAIRS]]
    if pairs and Path(pairs[0][0].name).is_file():
        members = [member for pair in pairs for member in pair]
        decoded = zip(members, decode_files([member.name for member in members]), strict=True)
        found = [(member, seen) for member, seen in decoded if not isinstance(seen, BadFile)]
        titles = [_short(f"{member.split} {member.class_name}") for member, _ in found]
        plots.image_grid(np.stack([sheet_tile(seen[1]) for _, seen in found]), titles, folder / "copies.png")
        drawn.append("copies.png")
    return drawn


def _short(text: str) -> str:
    return text if len(text) <= 16 else text[:15] + "…"


def _worst_first(groups):
    return sorted(groups, key=lambda group: (not group.leaks, not group.contradicts, not group.exact))


def findings(report) -> list[tuple[str, int, str]]:
    """Return the rows of the table: finding, number of images, explanation."""
    from keras_effnet.datasets.labels.kinds import KINDS

    copies = sum(len(group.members) - 1 for group in report.groups if group.exact)
    near = sum(len(group.members) - 1 for group in report.groups if not group.exact)
    labels = sum(len(group.members) for group in report.contradictions)
    unreadable, contradicting = _WORDS.get(report.task, _WORDS["classification"])
    kind = KINDS[report.task]
    names = len(report.class_names)
    told = f"task {report.task}, {names} {kind.noun if names == 1 else kind.plural}"
    sampled = "" if report.checked == report.total else f"a sample of {report.total}; "
    leaked = ", ".join(f"{count} of {split}" for split, count in report.leaked.items())
    rows = [
        ("checked", report.checked, f"{sampled}{told}"),
        (unreadable, len(report.unreadable), "skipped in training"),
        *_defects(report),
        *_left_out(report),
        ("leaks", sum(report.leaked.values()), f"held out and also in training: {leaked}"),
        ("exact copies", copies, "not counting the first of each"),
        ("near copies", near, "recompressed, resized, edited, or burst shots"),
        ("contradictions", labels, contradicting),
    ]
    if report.sizes:
        small = f"shorter side below {report.sizes.image_size}: upscaled in training"
        rows += [("small", report.sizes.below, small), ("tiny", report.sizes.tiny, "shorter side below 32")]
    return [*rows, *report.labels.rows]


# Unusable images, and copies that contradict each other.
_WORDS = {
    "classification": ("unreadable", "the same image in several classes"),
    "multilabel": ("unreadable", "the same image with other labels"),
    "regression": ("unreadable", "the same image with other values"),
    "segmentation": ("unusable", "the same image with other masks"),
    "detection": ("unreadable", "the same image with other numbers of boxes"),
}


def _counted(report) -> str:
    """Header of the numbers of the findings."""
    return "images or boxes" if report.task == "detection" else "images"


def _defects(report) -> list[tuple[str, int, str]]:
    """Rows of what is wrong with pairs of images and masks."""
    from keras_effnet.datasets.segmentation.pairs import DEFECTS

    kinds = Counter(
        next((name for start, name in DEFECTS.items() if bad.reason.startswith(start)), None)
        for bad in report.unreadable
    )
    return [(f"- {name}", count, "of the unusable") for name, count in kinds.items() if name]


def _left_out(report) -> list[tuple[str, int, str]]:
    """Rows of findings that few datasets have."""
    rows = [(f"{kind}", count, "not read") for kind, count in Counter(item.kind for item in report.left_out).items()]
    if report.empty_classes:
        names = ", ".join(report.empty_classes[:5]) + (", ..." if len(report.empty_classes) > 5 else "")
        rows.append(("empty classes", 0, f"cannot be trained on: {names}"))
    return rows


def markdown(report, drawn: list[str]) -> str:
    """Render the report as Markdown."""
    from keras_effnet.datasets.checking import IMBALANCED

    lines = [f"# {markdown_text(report.name)}: data check", "", f"| finding | {_counted(report)} | |", "|---|---|---|"]
    lines += [f"| {name} | {count} | {note} |" for name, count, note in findings(report)]
    if report.sizes:
        lines += ["", "| | smallest | median | largest |", "|---|---|---|---|"]
        for name in ("width", "height", "aspect"):
            lines.append(f"| {name} | " + " | ".join(f"{value:g}" for value in getattr(report.sizes, name)) + " |")
        lines += ["", "Files: " + ", ".join(f"{mode} {count}" for mode, count in report.modes.items()) + "."]
    if report.unreadable:
        lines += [
            "",
            "## Unreadable",
            *_listing([f"{_code(bad.path)}: {markdown_text(bad.reason)}" for bad in report.unreadable]),
        ]
    if report.left_out:
        lines += ["", "## Not read", *_listing([f"{_code(item.path)}: {item.kind}" for item in report.left_out])]
    for title, kept in (
        ("Leaks", report.leaks),
        ("Contradictions", report.contradictions),
        ("Other copies", [group for group in report.groups if not group.leaks and not group.contradicts]),
    ):
        if kept:
            lines += ["", f"## {title}", *_listing([_in_words(group) for group in _worst_first(kept)])]
    for title, (header, rows) in report.labels.tables.items():
        lines += ["", f"## {title}", "", f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
        lines += [f"| {markdown_text(str(row[0]))} | {' | '.join(map(str, row[1:]))} |" for row in rows]
    if report.weighed and report.imbalance > IMBALANCED:
        lines += ["", "The classes are imbalanced. Weights that balance them, for `fit(class_weight=...)`:"]
        lines += ["", f"```python\n{report.class_weights}\n```"]
    return "\n".join([*lines, "", *(f"![{name}]({name})" for name in drawn), ""])


def _code(name: str) -> str:
    """A file name as code on one line, whatever characters it contains."""
    fence = "``" if "`" in name else "`"
    return f"{fence}{' '.join(name.split())}{fence}"


def _listing(items: list[str]) -> list[str]:
    more = [f"- and {len(items) - _LISTED} more: `report.json`"] if len(items) > _LISTED else []
    return ["", *(f"- {item}" for item in items[:_LISTED]), *more]


def _in_words(group) -> str:
    shown = ", ".join(
        f"{_code(member.name)} ({member.split}, {markdown_text(member.class_name)})" for member in group.members[:4]
    )
    more = f" and {len(group.members) - 4} more" if len(group.members) > 4 else ""
    return f"{'exact' if group.exact else 'near'}: {shown}{more}"

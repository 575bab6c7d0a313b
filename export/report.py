"""Report of an export in Markdown and HTML: a table of the files, a recommendation which one to ship, and charts."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from pathlib import Path

from keras_effnet.export.int8.layer_errors import first_lost
from keras_effnet.export.measure.verify_report import VerifyReport
from keras_effnet.export.report_rows import KeptFile, ReportRow, draw_charts
from keras_effnet.export.tflite_file.clients import Verdict
from keras_effnet.export.tflite_file.clients.verdict_table import client_headers, client_reasons, client_rows
from keras_effnet.system import html_pages
from keras_effnet.system.files import write_text
from keras_effnet.system.machine import cpu_name
from keras_effnet.tasks import TASKS

_TEMPLATE = Path(__file__).parent / "templates/export.html.j2"
FEWEST = 20  # images under which no file is recommended: if all agree, the interval starts at 84%


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _agreement(report: VerifyReport) -> str:
    values = (report.score, *report.agreement_interval)
    if TASKS[report.task].percent:
        score, low, high = (f"{100 * value:.3g}" for value in values)
        return f"{score}% of {report.samples} [{low}, {high}]"
    score, low, high = (f"{value:.4f}" for value in values)
    return f"{score} of {report.samples} [{low}, {high}]"


def _verdicts(rows: Sequence[ReportRow]) -> dict[str, tuple[Verdict, ...]]:
    return {file.quantization: file.inspection.clients for row in rows if (file := row.kept)}


def _comparison(report: VerifyReport) -> dict[str, str]:
    """Column header -> text of a cell, for the columns of a comparison; those that the task lacks are left out."""
    if report.outputs:
        parts = {f"{name}: {TASKS[each.task].header}": _agreement(each) for name, each in report.outputs.items()}
        return parts | {"SQNR": f"{report.sqnr_db:.1f} dB"}
    task = TASKS[report.task]
    accuracies = {"top-1": _share(report.accuracy_tflite), "top-5": _share(report.top5_tflite)}
    figures = {name: task.shown(value) for name, value in report.figures.items()}
    shared = {task.header: _agreement(report), **figures, "SQNR": f"{report.sqnr_db:.1f} dB"}
    return (accuracies if task.accuracy else {}) | shared


# Column header -> text of a cell, for the columns of a file.
_MEASURED: dict[str, Callable[[KeptFile], str]] = {
    "size": lambda file: f"{file.export.size_bytes / 1e6:.2f} MB",
    "gzip": lambda file: f"{file.export.compressed_bytes / 1e6:.2f} MB",
    "latency": lambda file: f"{file.latency.median_ms:.2f} ms",
    "memory": lambda file: "-" if file.memory_mb is None else f"{file.memory_mb:.0f} MB",
    "ops": lambda file: str(sum(file.inspection.operators.values())),
}


def columns(rows: Sequence[ReportRow], *, short: bool = False) -> tuple[str, ...]:
    """Column headers of a table of these rows; the short table leaves out top-5, figures of Keras and operators."""
    compared = next((tuple(_comparison(row.report)) for row in rows if row.report), ())
    rest = tuple(each for each in compared if each == "top-5" or each.endswith(" of Keras"))
    headers = ("precision", "size", "gzip", *(each for each in compared if each not in rest), "latency", "memory")
    return headers if short else (*headers, *rest, "ops")


def cells(row: ReportRow, headers: Sequence[str]) -> tuple[str, ...]:
    """Return the cells of a table row as text."""
    found = {"precision": row.quantization} | ({} if row.export else {"size": "refused"})
    if row.report:
        found |= _comparison(row.report)
    if file := row.kept:
        found |= {header: text(file) for header, text in _MEASURED.items()}
    return tuple(found.get(header, "") for header in headers)


def _sound(report: VerifyReport) -> bool:
    return all(each.score >= TASKS[each.task].sound for each in report.each)


def _compared(rows: Sequence[ReportRow]) -> list[KeptFile]:
    """Files without a defect, compared on enough images that calibration did not use."""
    kept = [file for row in rows if (file := row.kept) and not row.warning]
    return [file for file in kept if file.report.unseen and file.report.samples >= FEWEST]


def recommended_file(rows: Sequence[ReportRow]) -> KeptFile | None:
    """Choose the file to ship, or None.

    A file is eligible if it was compared on at least `FEWEST` images that calibration did not use, its agreement is
    sound for its task, and neither a defect nor a doubt is recorded. Of the eligible files within 10% of the fastest,
    the smallest is recommended.
    """
    doubtful = {row.quantization for row in rows if row.doubt}
    sound = [file for file in _compared(rows) if _sound(file.report) and file.quantization not in doubtful]
    fastest = min((file.latency.median_ms for file in sound), default=0.0)
    near = [file for file in sound if file.latency.median_ms <= 1.1 * fastest]
    return min(near, key=lambda file: file.export.size_bytes, default=None)


def recommend_precision(rows: Sequence[ReportRow]) -> str:
    """Recommend a file as `recommended_file`, or say why none is recommended."""
    best = recommended_file(rows)
    if best is None:
        return _no_recommendation([file for row in rows if (file := row.kept) and not row.warning], _compared(rows))
    return (
        f"Ship {best.export.path.name}: {best.export.size_bytes / 1e6:.2f} MB, {best.latency.median_ms:.2f} ms on this "
        f"machine, and {best.report.agreement}."
    )


def _no_recommendation(kept: Sequence[KeptFile], compared: Sequence[KeptFile]) -> str:
    """Reason why no file is recommended; `kept` have no defect, `compared` of them met enough images."""
    if not kept:
        return "No file passed its checks; the reasons are below. Do not ship any before the cause is found."
    if not compared:
        most = max((file.report for file in kept), key=lambda report: (report.unseen, report.samples))
        return (
            f"No recommendation: it takes at least {FEWEST} images that were not used in calibration; these files were "
            f"compared on {most.samples} {most.kind}."
        )
    best = max((file.report for file in compared), key=lambda report: report.agreement_interval[1])
    task = TASKS[best.task]
    least = f"{task.sound:.0%} {task.header}" if task.percent else f"a {task.header} of {task.sound:g}"
    if best.agreement_interval[1] >= task.sound:
        return (
            f"No recommendation: whether a file reaches {least} with the model is undecided, the best has "
            f"{best.agreement}. Compare on more images."
        )
    return f"No file reaches {least} with the model; do not ship any before the cause is found."


def _remarks(rows: Sequence[ReportRow], notes: Sequence[str]) -> list[str]:
    """Remarks below the table, one sentence each."""
    remarks = list(notes)
    report = next((row.report for row in rows if row.report), None)
    if report and report.accuracy_keras is not None:
        five = "" if report.top5_keras is None else f" (top-5 {report.top5_keras:.1%})"
        remarks.append(f"The Keras model on the same {report.samples} images: {report.accuracy_keras:.1%}{five}.")
    if report:
        tasks = [TASKS[name] for name in dict.fromkeys(each.task for each in report.each)]
        measured = " and ".join(dict.fromkeys(task.measured for task in tasks))
        remarks += [
            f"Latency: median of one image, one thread, on {cpu_name()}.",
            "Memory: peak of loading and running the file.",
            *(
                f"{task.header[0].upper()}{task.header[1:]}: {task.explanation}; number of images, 95% interval."
                for task in tasks
            ),
            *(
                ["AP: average precision of COCO against the true boxes of the same images."]
                if report.lost is not None
                else []
            ),
            f"SQNR: of the {measured}{', of the worst output' if report.outputs else ''}.",
            "Runtimes: expected from operators and types, by rules from trials with files of each precision or from "
            "documents; on this machine the files were run with LiteRT.",
        ]
    if seen := [row.quantization for row in rows if row.report and row.report.evidence == "calibration"]:
        remarks.append(f"Compared on their own calibration images, which is optimistic: {', '.join(seen)}.")
    if any(row.report and row.report.evidence == "synthetic" for row in rows):
        remarks.append("Compared on synthetic images, which suffice to check float arithmetic only.")
    for row in rows:
        if row.attempts:
            remarks.append(f"{row.quantization} was tried by {'; '.join(map(str, row.attempts))}.")
        if row.doubt:
            remarks.append(row.doubt)
        if lost := first_lost(row.layers):
            remarks.append(f"{row.quantization} first loses the signal in {lost.layer}: {lost.sqnr_db:.1f} dB.")
        if row.refused or row.warning:
            verdict = "refused" if row.refused else "kept nevertheless"
            remarks.append(f"{row.quantization} {verdict}: {row.refused or row.warning}")
    return remarks


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(headers)} |", "|---" * len(headers) + "|"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def _markdown(
    name: str, rows: Sequence[ReportRow], recommendation: str, remarks: Sequence[str], images: Sequence[Path]
) -> str:
    headers = columns(rows)
    lines = [f"# Export of {html_pages.markdown_text(name)}", "", html_pages.markdown_text(recommendation), ""]
    lines += _table(headers, [cells(row, headers) for row in rows])
    lines += [""] + [f"![]({image.name})\n" for image in images]
    lines += [f"{html_pages.markdown_text(remark)}\n" for remark in remarks]
    if verdicts := _verdicts(rows):
        lines += ["## Runtimes", "", *_table(client_headers(verdicts), client_rows(verdicts)), ""]
        lines += [*(f"- {html_pages.markdown_text(reason)}" for reason in client_reasons(verdicts)), "", "## Files", ""]
    for file in (row.export for row in rows if row.export):
        fence = "``" if "`" in file.path.name else "`"
        lines.append(f"- {fence}{file.path.name}{fence}: {file.input_type} in, by {file.method}, sha256 {file.sha256}")
    return "\n".join(lines) + "\n"


def _client_section(rows: Sequence[ReportRow]) -> dict[str, Sequence[object]] | None:
    if not (verdicts := _verdicts(rows)):
        return None
    return {"headers": client_headers(verdicts), "rows": client_rows(verdicts), "reasons": client_reasons(verdicts)}


def _html(
    name: str, rows: Sequence[ReportRow], recommendation: str, remarks: Sequence[str], images: Sequence[Path]
) -> str:
    headers = columns(rows)
    encoded = [base64.b64encode(image.read_bytes()).decode() for image in images]
    return html_pages.render(
        _TEMPLATE,
        title=f"Export of {name}",
        recommendation=recommendation,
        headers=headers,
        table=[{"cells": cells(row, headers), "refused": row.refused} for row in rows],
        images=[{"name": image.stem, "base64": text} for image, text in zip(images, encoded, strict=True)],
        remarks=remarks,
        clients=_client_section(rows),
        files=[row for row in rows if row.export],
    )


def write_export_report(
    folder: Path, name: str, rows: Sequence[ReportRow], recommendation: str, notes: Sequence[str] = ()
) -> None:
    """Writes `report.md`, `report.html`, which holds its images, and the images."""
    images, remarks = draw_charts(rows, folder), _remarks(rows, notes)
    write_text(folder / "report.md", _markdown(name, rows, recommendation, remarks, images))
    write_text(folder / "report.html", _html(name, rows, recommendation, remarks, images))

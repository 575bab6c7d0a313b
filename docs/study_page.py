"""Generate the tables and figures of docs/study.md from the stored results, so that the two cannot diverge.

    python docs/study_page.py

Each block of the page between `<!-- NAME RESULTS -->` and `<!-- end -->` is replaced. A test compares the output of
`rendered` with the page.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from keras_effnet.study.networks import AXES, BASELINE
from keras_effnet.study.power_law import error_law
from keras_effnet.study.report.write import write_report
from keras_effnet.study.results import RESULTS_JSONL
from keras_effnet.study.statistics.answers import answer
from keras_effnet.study.summary import Summary, ratios, summarize
from keras_effnet.system import jsonl

DOCS = Path(__file__).resolve().parent
PAGE, RESULTS, IMAGES = DOCS / "study.md", DOCS / "results", DOCS / "images"
# Charts of the reports of the results.
FIGURES = {"tiny-imagenet-10": ("pareto", "times", "law"), "axes": ("scaling",)}
_COLOURS = 64  # of a stored chart, which takes a tenth of the bytes


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _points(summary: Summary) -> str:
    seeds = ", ".join(f"{accuracy:.1%}" for accuracy in summary.accuracies)
    return f"{summary.accuracy:.1%} ({seeds})"


def networks(rows: Sequence[dict[str, Any]]) -> str:
    """Cost and accuracy of each network, one row per network."""
    headers = ("network", "px", "MMACs", "M params", "step ms", "inference ms", "TFLite ms", "training s", "accuracy")
    table = [
        (
            summary.member,
            f"{summary.image_size}",
            f"{summary.macs / 1e6:.1f}",
            f"{summary.params / 1e6:.2f}",
            f"{summary.step_ms:.0f} ± {summary.step_iqr_ms:.0f}",
            f"{summary.predict_ms:.0f} ± {summary.predict_iqr_ms:.0f}",
            f"{summary.tflite_ms:.2f}",
            f"{summary.train_seconds:.0f}",
            _points(summary),
        )
        for summary in summarize(rows)
    ]
    return _table(headers, table)


def sentences(rows: Sequence[dict[str, Any]]) -> str:
    """The conclusions of the study, as a list of sentences."""
    return "\n".join(f"- {sentence}" for sentence in answer(summarize(rows)))


def rates(rows: Sequence[dict[str, Any]]) -> str:
    """Measured speed of each kind of convolution, per network."""
    headers = ("network", "kind", "share of MACs", "FLOPs per byte", "GFLOP/s", "roofline bound", "share of time")
    table = []
    for row in rows:
        if row["kind"] != "roofline":
            continue
        macs = sum(kind["macs"] for kind in row["kinds"])
        table += [
            (
                row["member"],
                kind["kind"],
                f"{kind['macs'] / macs:.1%}",
                f"{kind['intensity']:.1f}",
                f"{kind['gflops']:.0f}",
                f"{kind['bound_gflops']:.0f}",
                f"{kind['seconds_share']:.1%}",
            )
            for kind in row["kinds"]
        ]
    return _table(headers, table)


def _compound(summaries: Sequence[Summary]) -> list[Summary]:
    """Compound-scaled networks and their baseline, by increasing cost."""
    return [summary for summary in summaries if summary.axis in ("compound", BASELINE)]


def law(rows: Sequence[dict[str, Any]]) -> str:
    """Power law fitted to the compound-scaled networks, as a sentence."""
    scaled = _compound(summarize(rows))
    fitted = error_law(scaled)
    more = 4 * scaled[-1].macs
    low, high = fitted.band(more)
    return (
        f"The error rate falls as MACs to the power {fitted.slope:.2f}, fitted to {fitted.points} trainings of "
        f"{len(scaled)} networks. At four times the MACs of {scaled[-1].member} this predicts an accuracy of "
        f"{1 - fitted.at(more):.1%}, {max(0.0, 1 - high):.1%} to {1 - low:.1%} over as many seeds with 95% confidence "
        "if the law holds: an extrapolation, not a measurement."
    )


def clocks(rows: Sequence[dict[str, Any]]) -> str:
    """Cost ratios from the smallest to the largest compound-scaled network, and from there to each other network."""
    summaries = summarize(rows)
    scaled = _compound(summaries)
    pairs = [(scaled[0], scaled[-1])] + [(scaled[-1], each) for each in summaries if each.axis == "family"]
    names = ("macs", "params", "activations", "step_ms", "predict_ms", "tflite_ms", "train_seconds")
    headers = ("from, to", "MACs", "params", "activations", "step", "inference", "TFLite", "training")
    table = [
        (f"{first.member}, {last.member}", *(f"x{ratios(first, last)[name]:.2f}" for name in names))
        for first, last in pairs
    ]
    return _table(headers, table)


def axes(rows: Sequence[dict[str, Any]]) -> str:
    """Cost and accuracy gain of each scaling axis, relative to the shared baseline."""
    summaries = summarize(rows)
    (base,) = (summary for summary in summaries if summary.axis == BASELINE)
    scaled = [summary for summary in summaries if summary.axis in AXES]
    headers = ("phi", "scaled", "MACs", "params", "activations", "step", "TFLite", "accuracy, points")
    table = []
    for summary in sorted(scaled, key=lambda each: (each.phi, each.accuracy)):
        grown = ratios(base, summary)
        costs = (f"x{grown[name]:.2f}" for name in ("macs", "params", "activations", "step_ms", "tflite_ms"))
        gain = 100 * (summary.accuracy - base.accuracy)
        table.append((f"{summary.phi:g}", summary.axis, *costs, f"{gain:+.1f}"))
    return _table(headers, table)


BLOCKS = {"networks": networks, "answer": sentences, "rates": rates, "law": law, "clocks": clocks, "axes": axes}


def rendered(text: str) -> str:
    """Regenerate each block of the page; `<!-- networks tiny-imagenet-10 -->` names the table and its results."""

    def block(match: re.Match) -> str:
        name, source = match["name"], match["source"]
        made = BLOCKS[name](jsonl.read(RESULTS / f"{source}.jsonl"))
        return f"<!-- {name} {source} -->\n{made}\n<!-- end -->"

    return re.sub(r"<!-- (?P<name>\w+) (?P<source>[\w-]+) -->\n.*?<!-- end -->", block, text, flags=re.DOTALL)


def draw(source: str, charts: Sequence[str]) -> None:
    """Draw charts of the report of some results."""
    with TemporaryDirectory() as folder:
        shutil.copy(RESULTS / f"{source}.jsonl", Path(folder) / RESULTS_JSONL)
        write_report(folder)
        for chart in charts:
            with Image.open(Path(folder) / f"{chart}.png") as image:
                few = image.convert("RGB").reduce(2).quantize(_COLOURS)
            few.save(IMAGES / f"study_{chart}.png", optimize=True)


if __name__ == "__main__":
    for source, charts in FIGURES.items():
        draw(source, charts)
    PAGE.write_text(rendered(PAGE.read_text()))

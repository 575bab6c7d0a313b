"""The export report as HTML, from rows made by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from keras_effnet.export.acceptance import Attempt
from keras_effnet.export.candidate_trial import ExportResult
from keras_effnet.export.int8.layer_errors import LayerError
from keras_effnet.export.measure.latency import LatencyReport
from keras_effnet.export.measure.verify_report import VerifyReport
from keras_effnet.export.report import cells, columns, recommend_precision, write_export_report
from keras_effnet.export.report_rows import ReportRow
from keras_effnet.export.tflite_file.clients import Verdict
from keras_effnet.export.tflite_file.inspection import Inspection

HOSTILE = "</td><script>document.title='taken'</script>\"'&"


def written_row(name: str = "int8", text: str = "") -> ReportRow:
    """The row of a file that was written, with `text` wherever the page shows a string."""
    report = VerifyReport(0.99, 30.0, 0.01, 500, 0.98, 0.97)
    export = ExportResult(
        Path(f"{name}{text}.tflite"), 4_600_000, 4_100_000, name, "minmax", "float32", "ab" * 32, 3.0, report
    )
    inspection = Inspection(
        size_bytes=4_600_000,
        precision="int8",
        operators={f"ADD{text}": 9, "CONV_2D": 33},
        dtypes={},
        float_tensors=(),
        islands=(),
        dynamic=(),
        inputs=(),
        outputs=(),
        clients=(
            Verdict(f"LiteRT{text}", "accepts", sources=("tried: today",)),
            Verdict("Edge TPU", "refuses", (f"Because{text}", "Really"), ("--quantize int8",), ("a document",)),
        ),
        live_bytes=2_300_000,
        arena_bytes=2_400_000,
    )
    layers = tuple(LayerError(f"layer{index:02d}{text}", 60.0 - index) for index in range(12))
    return ReportRow(f"{name}{text}", report, layers, export, LatencyReport(1.5, 0.1, 50, 1, "test"), 20.0, inspection)


class Page(HTMLParser):
    """Start tags with attributes, text by the tag it stands in, and the cells of each table row."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.rows: list[list[str]] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if not data.strip():
            return
        tag = self.tags[-1][0]
        self.texts.append((tag, data.strip()))
        if tag in ("td", "th"):
            self.rows[-1][-1] += data.strip()


@pytest.fixture
def page(tmp_path):
    """Function that writes a report and returns its parsed HTML."""

    def write(name: str, rows: list[ReportRow], notes: tuple[str, ...] = ()) -> Page:
        write_export_report(tmp_path, name, rows, f"Ship {name}.", notes)
        return Page((tmp_path / "report.html").read_text())

    return write


def test_the_page_has_a_row_for_each_precision_and_one_section_for_each_file(page):
    kept, refused = written_row(), ReportRow("int16x8", refused="Disagrees.")
    found = page("net", [kept, refused], ("Pruned.",))
    headers = columns([kept, refused])
    assert found.rows[0] == list(headers)
    assert found.rows[1:3] == [list(cells(kept, headers)), list(cells(refused, headers))]
    assert [attrs for tag, attrs in found.tags if tag == "tr"][1:3] == [{}, {"class": "refused"}]
    assert [text for tag, text in found.texts if tag == "summary"] == ["Reasons and cures", "int8.tflite"]
    assert next(text for tag, text in found.texts if tag == "li") == "Pruned."
    assert ("li", "int16x8 refused: Disagrees.") in found.texts
    assert [attrs["alt"] for tag, attrs in found.tags if tag == "img"] == ["precisions", "layers"]


def test_a_files_section_lists_clients_operators_and_its_ten_worst_layers(page):
    found = page("net", [written_row()])
    assert ["LiteRT", "accepts", "tried: today"] in found.rows and ["Edge TPU", "refuses", "a document"] in found.rows
    assert ("p", "Operators: CONV_2D 33, ADD 9.") in found.texts
    assert ("p", "Activations alive at once: 2.30 MB.") in found.texts
    assert ("code", f"sha256 {'ab' * 32}") in found.texts
    assert [row for row in found.rows if row[0].startswith("layer") and row[-1].endswith("dB")] == [
        [f"layer{index:02d}", f"{60 - index}.0 dB"] for index in range(11, 1, -1)
    ]


def test_the_report_has_a_table_of_runtimes_by_file_with_reasons_and_cures(page, tmp_path):
    found = page("net", [written_row("none"), written_row("int8"), ReportRow("mixed", refused="Disagrees.")])
    assert ["runtime", "none", "int8", "known from"] in found.rows
    assert ["LiteRT", "yes", "yes", "trial"] in found.rows and ["Edge TPU", "no", "no", "documents"] in found.rows
    assert ("li", "Edge TPU, none, int8: no. Because. Instead: --quantize int8.") in found.texts
    text = (tmp_path / "report.md").read_text()
    assert "| Edge TPU | no | no | documents |" in text and "- Edge TPU, none, int8: no. Really." in text
    assert "Runtimes" not in [
        text for tag, text in page("net", [ReportRow("none", refused="No.")]).texts if tag == "h2"
    ]


def test_the_report_lists_all_methods_that_were_tried(page):
    tried = (Attempt("corrected", "20 of 100", -0.9, 0.521), Attempt("fitted", "71 of 100", 15.04, 0.52))
    found = page("net", [replace(written_row("int8"), attempts=tried)])
    line = "corrected: 20 of 100, -0.9 dB, 0.52 of float32's time; fitted: 71 of 100, 15.0 dB, 0.52 of float32's time."
    assert ("li", f"int8 was tried by {line}") in found.texts


def with_report(agreeing: int, samples: int, evidence: str = "held-out", **fields) -> ReportRow:
    row = written_row()
    return replace(row, report=VerifyReport(agreeing / samples, 30.0, 0.01, samples, evidence=evidence), **fields)


@pytest.mark.parametrize(
    ("row", "start"),
    [
        (with_report(20, 20), "Ship int8.tflite: 4.60 MB, 1.50 ms on this machine, and the same class on 20 of 20"),
        (with_report(490, 500), "Ship int8.tflite"),
        (with_report(1, 1), "No recommendation: it takes at least 20 images that were not used in calibration; these"),
        (with_report(19, 19), "No recommendation: it takes at least 20 images"),
        (with_report(100, 100, "calibration"), "No recommendation: it takes at least 20 images"),
        (with_report(16, 16, "synthetic"), "No recommendation: it takes at least 20 images"),
        (with_report(27, 28), "No recommendation: whether a file reaches 97% agreement with the model is undecided"),
        (with_report(98, 100, doubt="Whether 99% are reached is undecided."), "No recommendation: whether"),
        (with_report(470, 500), "No file reaches 97% agreement with the model; do not ship any"),
        (with_report(100, 100, warning="Lost."), "No file passed its checks; the reasons are below. Do not ship any"),
        (ReportRow("int8", VerifyReport(1.0, 30.0, 0.01, 100), refused="Too slow."), "No file passed its checks"),
    ],
)
def test_a_file_is_recommended_only_on_enough_images_that_calibration_did_not_see(row, start):
    assert recommend_precision([row]).startswith(start)


def test_a_missing_recommendation_says_how_many_images_there_were():
    rows = [with_report(7, 7, "calibration"), with_report(5, 5)]
    assert recommend_precision(rows).endswith("these files were compared on 5 images.")
    assert recommend_precision(rows[:1]).endswith("these files were compared on 7 calibration images.")


def test_the_report_says_where_its_images_come_from_and_what_is_undecided(page):
    found = page("net", [with_report(27, 28, "calibration", doubt="Undecided.")])
    assert "96.4% of 28 [82.3, 99.4]" in found.rows[1]
    assert ("li", "Compared on their own calibration images, which is optimistic: int8.") in found.texts
    assert ("li", "Undecided.") in found.texts


def test_names_and_reasons_are_escaped(page):
    hostile = HOSTILE.replace("/", "\N{DIVISION SLASH}")  # a path has no slash in its name
    found = page(HOSTILE, [written_row("int8", hostile), ReportRow("none", refused=HOSTILE)], (HOSTILE,))
    assert not [tag for tag, _ in found.tags if tag == "script"]
    assert ("title", f"Export of {HOSTILE}") in found.texts and ("h1", f"Export of {HOSTILE}") in found.texts
    assert found.rows[1][0] == f"int8{hostile}"
    assert [f"LiteRT{hostile}", "accepts", "tried: today"] in found.rows
    assert ("summary", f"int8{hostile}.tflite") in found.texts
    assert ("li", HOSTILE) in found.texts and ("li", f"none refused: {HOSTILE}") in found.texts


def test_names_and_reasons_are_text_in_markdown_too(page, tmp_path):
    page("<img src=x>\n# *b* [l](u)", [ReportRow("none", refused="`a` & <b>")], ("<script>",))
    text = (tmp_path / "report.md").read_text()
    assert text.startswith(r"# Export of \<img src=x\> # \*b\* \[l\](u)" + "\n")
    assert r"none refused: \`a\` \& \<b\>" in text and r"\<script\>" in text
    assert not re.search(r"(?<!\\)<", text)

"""Report of a study: it shows what was measured, and works in a browser without network access."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import yaml
from PIL import Image

from keras_effnet.errors import UserError
from keras_effnet.study.report import charts as report_charts
from keras_effnet.study.report.page import Section
from keras_effnet.study.report.records import figure, report_data
from keras_effnet.study.report.tables import csv_tables
from keras_effnet.study.report.write import log_to_wandb, write_report
from keras_effnet.system.jsonl import read

pytest.importorskip("altair")
pytest.importorskip("vl_convert")

HOSTILE = "</script ><script>document.title='taken'</script>\"'&{{$x}}<!--"
# Name -> axis, network, MACs in millions, accuracy at seed 0 and 1.
NETWORKS = {
    "b0-phi-2": ("compound", "b0", 15, (0.70, 0.74)),
    "b0-phi-1": ("compound", "b0", 26, (0.80, 0.82)),
    "b0-width-phi-1": ("width", "b0", 20, (0.71, 0.69)),
    "b0": ("baseline", "b0", 32, (0.83, 0.85)),
    "resnet18": ("family", "resnet18", 148, (0.81, 0.79)),
}


def cost_row(member: str, axis: str, model: str, millions: float, **changes) -> dict:
    step = 8 * millions**0.7
    times = {"step_ms": step, "predict_ms": 3 * millions**0.5, "tflite_ms": millions / 20}
    spreads = {f"{name.removesuffix('_ms')}_iqr_ms": value / 20 for name, value in times.items()}
    rates = {"train_images_per_second": 32e3 / step, "predict_images_per_second": 96e3 / step}
    counts = {"params": int(millions * 1e5), "macs": int(millions * 1e6), "activations": int(9e5 - millions * 1e3)}
    what = {"kind": "cost", "member": member, "axis": axis, "phi": 0.0, "model": model, "image_size": 64}
    return {**what, **counts, **times, **spreads, **rates, "tflite_bytes": int(millions * 4e5), **changes}


def training_row(member: str, seed: int, accuracy: float, millions: float, **changes) -> dict:
    curve = [
        {"epoch": epoch, "val_accuracy": accuracy * share, "seconds": millions / 10}
        for epoch, share in enumerate((0.5, 0.8, 1.0), start=1)
    ]
    figures = {"accuracy": accuracy, "epochs": 3, "train_seconds": 0.3 * millions, "curve": curve}
    resources = {"input_bound": 0.02, "energy_joules": 5 * millions, "peak_memory_mb": 900 + millions}
    return {"kind": "training", "member": member, "seed": seed, **figures, **resources, **changes}


def study_rows(networks=NETWORKS) -> list[dict]:
    costs = [cost_row(name, axis, model, millions) for name, (axis, model, millions, _) in networks.items()]
    trainings = [
        training_row(name, seed, accuracy, millions)
        for name, (_, _, millions, accuracies) in networks.items()
        for seed, accuracy in enumerate(accuracies)
    ]
    return costs + trainings


ROOFLINE = {
    "kind": "roofline",
    "member": "b0",
    "peaks": {"gflops": 100.0, "gbytes_per_s": 20.0},
    "kinds": [
        {"kind": "depthwise", "macs": 3e6, "intensity": 2.0, "gflops": 9.0, "seconds_share": 0.4, "bound_gflops": 40.0},
        {
            "kind": "pointwise",
            "macs": 2e7,
            "intensity": 14,
            "gflops": 60.0,
            "seconds_share": 0.6,
            "bound_gflops": 100.0,
        },
    ],
}


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    """Function `(rows, name="study")` that makes a study's folder and its report, and returns the page's path."""

    def make(rows: list[dict], name: str = "study", **options) -> Path:
        folder = tmp_path_factory.mktemp("reports") / name
        folder.mkdir()
        (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        budget = {"kind": "epochs", "amount": 3.0}
        protocol = {"data": {"source": "digits"}, "budget": budget, "options": {}, "threads": 2, "seeds": 2}
        (folder / "protocol.yaml").write_text(yaml.safe_dump(protocol))
        (folder / "env.json").write_text(json.dumps({"cpu": "Abacus <3000>", "cores": 2}))
        return write_report(folder, **options)

    return make


@pytest.fixture(scope="module")
def written(write) -> Path:
    return write([*study_rows(), ROOFLINE])


class Page(HTMLParser):
    """What an HTML parser finds: scripts with their ids, the rows of the table, all other text."""

    def __init__(self, html: str):
        super().__init__()
        self.scripts, self.rows, self.words, self._open = [], [], [], None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self._open = tag
        if tag == "script":
            self.scripts.append([attrs.get("id"), ""])
        elif tag == "tr":
            self.rows.append([])
        elif tag == "td":
            self.rows[-1].append([attrs["data-value"], ""])

    def handle_endtag(self, tag):
        self._open = None

    def handle_data(self, data):
        if self._open == "script":
            self.scripts[-1][1] += data
        elif self._open == "td":
            self.rows[-1][-1][1] += data
        else:
            self.words.append(data)

    @property
    def data(self) -> dict:
        return json.loads(dict(self.scripts)["study-data"])

    @property
    def text(self) -> str:
        return " ".join(self.words)


def page(path: Path) -> Page:
    return Page(path.read_text())


# --- figures


def test_the_page_holds_the_figures_of_the_results(written):
    rows, data = read(written.parent / "results.jsonl"), page(written).data
    costs = {row["member"]: row for row in rows if row["kind"] == "cost"}
    assert [network["member"] for network in data["networks"]] == sorted(costs, key=lambda name: costs[name]["macs"])
    for network in data["networks"]:
        runs = [row for row in rows if row["kind"] == "training" and row["member"] == network["member"]]
        assert network["accuracy"] == pytest.approx(fmean(run["accuracy"] for run in runs))
        assert network["seeds"] == len(runs) == 2
        assert network["spread"] == pytest.approx(np.std([run["accuracy"] for run in runs], ddof=1))
        for name in ("macs", "params", "step_ms", "predict_ms", "tflite_ms", "tflite_bytes"):
            assert network[name] == costs[network["member"]][name]
        points = {point["metric"]: point for point in data["pareto"] if point["member"] == network["member"]}
        assert points["macs"]["cost"] == pytest.approx(network["macs"] / 1e6)
        assert points["step_ms"]["cost"] == network["step_ms"]
        assert [points["macs"][end] for end in ("low", "high")] == sorted(run["accuracy"] for run in runs)
    curves = [(row["member"], row["seed"], e["epoch"], e["val_accuracy"]) for row in rows for e in row.get("curve", ())]
    shown = [(each["member"], each["seed"], each["epoch"], each["val_accuracy"]) for each in data["curves"]]
    assert sorted(shown) == sorted(curves)
    last = [each["elapsed"] for each in data["curves"] if each["member"] == "b0" and each["epoch"] == 3]
    assert last == pytest.approx([0.3 * 32] * 2)


def test_the_table_says_the_same(written):
    header, *rows = page(written).rows
    assert header == []
    named = {cells[0][0]: cells for cells in rows}
    assert named.keys() == NETWORKS.keys()
    value, text = named["b0"][3]
    assert float(value) == pytest.approx(0.84)
    assert text == "84.0% ± 1.4"
    assert named["resnet18"][6] == ["148000000", "148"]
    assert named["b0"][-1] == ["0.02", "2.0%"]


def test_the_front_is_what_no_other_network_beats(written):
    front = {(each["metric"], each["member"]) for each in page(written).data["pareto"] if each["front"]}
    assert {member for metric, member in front if metric == "macs"} == {"b0-phi-2", "b0-phi-1", "b0"}
    # resnet18 has the fewest activations here, and so nothing beats it on them.
    assert {member for metric, member in front if metric == "activations"} == {"resnet18", "b0"}


def test_the_baseline_lies_on_every_axis(written):
    scaling = [(each["axis"], each["member"]) for each in page(written).data["scaling"]]
    compound = [("compound", name) for name in ("b0-phi-2", "b0-phi-1", "b0")]
    assert scaling == [*compound, ("width", "b0-width-phi-1"), ("width", "b0")]


def test_times_are_multiples_of_the_cheapest(written):
    found = {(each["member"], each["clock"]): each for each in page(written).data["times"]}
    assert found["b0", "TFLite latency"]["time_ratio"] == pytest.approx(32 / 15)
    assert found["b0", "TFLite latency"]["macs_ratio"] == pytest.approx(32 / 15)
    assert found["b0", "training step"]["time_ratio"] == pytest.approx((32 / 15) ** 0.7)
    assert found["b0-phi-2", "training step"]["time_ratio"] == 1


def test_the_law_has_no_gap_and_shows_the_trainings_it_was_fitted_to(written):
    data = page(written).data
    measured, beyond = ([each for each in data["law"] if each["extrapolated"] is value] for value in (False, True))
    assert measured[-1]["macs"] == beyond[0]["macs"] == 32e6 and measured[-1]["accuracy"] == beyond[0]["accuracy"]
    assert measured[0]["macs"] == 15e6 and beyond[-1]["macs"] == pytest.approx(4 * 32e6)
    names = ("b0-phi-2", "b0-phi-1", "b0")
    expected = [(name, accuracy) for name in names for accuracy in NETWORKS[name][3]]
    assert [(each["member"], each["accuracy"]) for each in data["fitted"]] == expected


def test_two_networks_have_a_line_without_a_band():
    two = {name: NETWORKS[name] for name in ("b0-phi-1", "b0")}
    assert {(each["low"], each["high"]) for each in report_data(study_rows(two))["law"]} == {(None, None)}


def test_times_have_their_interquartile_range_in_page_and_table(written):
    found = page(written)
    step = next(cells[9][1] for cells in found.rows[1:] if cells[0][0] == "b0")
    assert step == next(each["shown"]["step_ms"] for each in found.data["networks"] if each["member"] == "b0")[:-3]
    assert re.fullmatch(r"90\.5 ± 4\.53", step) and "interquartile ranges are up to 5% of them" in found.text


def test_the_roof_bends_where_memory_is_as_slow_as_arithmetic(written):
    assert [(each["intensity"], each["gflops"]) for each in page(written).data["roofs"]] == [
        (1.0, 20.0),
        (5.0, 100.0),
        (28.0, 100.0),
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(1234.4, "1,234"), (99.96, "100"), (12, "12.0"), (0.0456, "0.0456"), (0, "0.00")]
)
def test_figures_have_three_digits(value, text):
    assert figure(value) == text


# --- the files


def test_the_page_is_small_and_names_no_host(written):
    html = written.read_text()
    assert len(html) < 5e6
    own = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)  # the library's comments name its makers
    schemas = re.findall(r"https?://[^\s\"']+", own)
    assert all("vega.github.io/schema" in name for name in schemas)  # the name of a format, which nothing fetches
    assert not re.search(r"<(link|img|iframe)|<script[^>]*src", own)


def test_images_lie_beside_the_page(written):
    for name in ("pareto", "scaling", "times", "curves", "law", "roofline"):
        pixels = np.asarray(Image.open(written.parent / f"{name}.png").convert("L"))
        assert pixels.shape[1] > 1000 and pixels.std() > 5, name
    svg = ET.parse(written.parent / "pareto.svg").getroot()
    means = svg.findall(".//{*}g[@class='mark-symbol role-mark means_marks']/{*}path")
    assert len(means) == len(NETWORKS)


def test_the_page_says_what_was_done(written):
    text = page(written).text
    assert "Data digits; 3 epochs for each training; 2 seeds; Abacus <3000>" in text
    assert "From b0-phi-2 to b0 MACs grew x2.13" in text  # of the compound scaling: 32 to 15 million
    assert "budget:" in text and '"cores": 2' in text


def test_hostile_names_stay_names(write):
    rows = [
        {**row, **{key: HOSTILE for key in ("member", "model") if row.get(key) == "resnet18"}} for row in study_rows()
    ]
    found = page(write([*rows, {"kind": "failure", "member": HOSTILE, "seed": 9, "error": "<b>x"}], "a & <b>"))
    assert [name for name, _ in found.scripts] == ["study-data", "study-charts", None, None]
    assert found.data["networks"][-1]["member"] == HOSTILE
    assert f"{HOSTILE}, seed 9: <b>x" in found.text
    assert "Study a & <b>" in found.text


def test_figures_that_were_not_measured_are_left_out(write):
    without = ("input_bound", "energy_joules")
    rows = [
        {key: value for key, value in row.items() if key not in without or row["member"] == "b0"}
        for row in study_rows()
    ]
    rows = [{**row, "energy_joules": None} if row["kind"] == "training" else row for row in rows]
    path = write(rows)
    found = page(path)
    metrics = {point["metric"] for point in found.data["pareto"]}
    assert "energy_joules" not in metrics and "peak_memory_mb" in metrics
    assert [cells[-1][1] for cells in found.rows[1:]] == ["-", "-", "-", "2.0%", "-"]
    assert not (path.parent / "roofline.png").exists()


def test_a_time_to_the_target_is_a_cost_of_those_that_reached_it(write):
    found = page(write(study_rows(), target=0.8)).data
    reached = {point["member"] for point in found["pareto"] if point["metric"] == "seconds_to_target"}
    assert reached == {"b0", "b0-phi-1"}


def test_a_failure_made_good_is_no_failure():
    rows = [*study_rows(), *({"kind": "failure", "member": "b0", "seed": seed, "error": "killed"} for seed in (1, 2))]
    assert [row["seed"] for row in report_data(rows)["failures"]] == [2]


def test_a_study_without_results_is_told_so(tmp_path):
    with pytest.raises(UserError, match="no results of a trained network yet"):
        write_report(tmp_path)
    assert not list(tmp_path.iterdir())


def test_missing_packages_are_named(written, monkeypatch):
    monkeypatch.setattr(report_charts, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"altair and vl-convert-python: pip install 'keras-effnet\[study\]'"):
        write_report(written.parent)


def test_a_further_section_stands_after_the_charts(write):
    import altair as alt

    def chart(data):
        return alt.Chart(alt.NamedData("networks")).mark_point().encode(x="macs:Q", y="accuracy:Q")

    more = Section("law", "What larger ones would do", lambda data: "A guess.", chart, "networks")
    html = write(study_rows(), more=[more]).read_text()
    places = [html.index(f'<section id="{name}"') for name in ("pareto", "curves", "law", "networks")]
    assert places == sorted(places)


def test_weights_and_biases_gets_table_images_and_page(write, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder = write(study_rows()).parent
    identity = log_to_wandb(folder, "tests")
    (run,) = (folder / "wandb").glob(f"offline-run-*-{identity}")
    media = {path.name.split("_")[0] for path in (run / "files/media").rglob("*") if path.is_file()}
    assert media == {"pareto", "scaling", "times", "curves", "law", "networks"}
    (table,) = (run / "files/media/table").glob("networks*.json")
    content = json.loads(table.read_text())
    accuracy = content["columns"].index("accuracy")
    assert [row[accuracy] for row in content["data"]] == pytest.approx([0.72, 0.70, 0.81, 0.84, 0.80])
    assert b"report.html" in next(run.glob("*.wandb")).read_bytes()


# --- in a browser

MEANS = "#chart-pareto .means_marks path"


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    api = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium on the path")
    with api.sync_playwright() as play:
        found = play.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture
def opened(browser):
    """Function that opens a report and returns the browser's page; no request leaves, and no error is thrown."""
    contexts, requests, errors = [], [], []

    def show(path: Path, **options):
        context = browser.new_context(**{"viewport": {"width": 1000, "height": 900}, **options})
        contexts.append(context)
        context.route(re.compile("^(?!file:)"), lambda route: route.abort())
        tab = context.new_page()
        tab.on("request", lambda request: requests.append(request.url))
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
        tab.goto(path.as_uri())
        charts = tab.locator(".chart").count()
        tab.wait_for_function("count => document.querySelectorAll('.chart svg').length === count", arg=charts)
        return tab

    yield show
    for context in contexts:
        context.close()
    assert errors == []
    assert requests and all(url.startswith("file:") and url.endswith("report.html") for url in requests)


def positions(tab, selector: str) -> list[tuple[float, float]]:
    """Where marks are, in pixels."""
    boxes = [mark.bounding_box() for mark in tab.locator(selector).all()]
    return [(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2) for box in boxes]


def test_every_network_and_epoch_is_a_point(opened, written):
    tab = opened(written)
    seeds = sum(len(accuracies) for *_, accuracies in NETWORKS.values())
    assert tab.locator(MEANS).count() == len(NETWORKS)
    assert tab.locator("#chart-pareto .seeds_marks path").count() == seeds
    assert tab.locator("#chart-pareto .labels_marks text").all_text_contents() == ["b0-phi-2", "b0-phi-1", "b0"]
    assert tab.locator("#chart-scaling .scaled_marks path").count() == 5
    assert tab.locator("#chart-times .ratios_marks path").count() == 3 * len(NETWORKS)
    assert tab.locator("#chart-curves .epochs_marks path").count() == 3 * seeds
    assert tab.locator("#chart-curves .mark-line.role-mark path").count() == seeds
    assert tab.locator("#chart-roofline .kinds_marks path").count() == 2


def test_points_stand_where_their_figures_are(opened, written):
    places = positions(opened(written), MEANS)
    ordered = sorted(NETWORKS.values(), key=lambda network: network[2])
    millions, accuracies = [network[2] for network in ordered], [fmean(network[3]) for network in ordered]
    across, down = zip(*places, strict=True)
    for pixels, figures in ((across, np.log(millions)), (down, accuracies)):
        slope, start = np.polyfit(figures, pixels, 1)
        np.testing.assert_allclose(pixels, slope * np.asarray(figures) + start, atol=1)
    assert across[0] < across[-1] and down[1] > down[3]


def test_another_cost_moves_the_points_and_names_the_axis(opened, written):
    tab = opened(written)
    before = positions(tab, MEANS)
    tab.locator("#controls-pareto select").select_option(label="activations")
    tab.get_by_text("activations (million)", exact=True).first.wait_for()
    assert tab.locator("#chart-pareto .role-title-text").text_content() == "activations (million)"
    after = positions(tab, MEANS)
    assert len(after) == len(before)
    assert after[-1][0] == min(x for x, _ in after)  # resnet18, which was rightmost by MACs
    assert [y for _, y in after] == pytest.approx([y for _, y in before], abs=1)
    assert tab.locator("#chart-pareto .labels_marks text").all_text_contents() == ["b0", "resnet18"]


def test_curves_go_by_wall_time_too(opened, written):
    tab = opened(written)
    points = "#chart-curves .epochs_marks path"
    columns = {round(x) for x, _ in positions(tab, points)}
    assert len(columns) == 3
    tab.get_by_label("wall time").check()
    tab.get_by_text("wall time of training (s)").wait_for()
    assert len({round(x) for x, _ in positions(tab, points)}) > 3


@pytest.mark.parametrize(
    ("chart", "marks", "name", "kept"),
    [
        ("pareto", "means", "width", 1),
        ("scaling", "scaled", "compound", 3),
        ("times", "ratios", "TFLite latency", 5),
        ("curves", "epochs", "resnet18", 6),
        ("roofline", "kinds", "depthwise", 1),
    ],
)
def test_a_click_on_the_legend_singles_a_name_out(opened, written, chart, marks, name, kept):
    tab = opened(written)
    # A forced click goes to the point, whatever takes it there.
    tab.locator(f"#chart-{chart} .role-legend-label text", has_text=name).click(force=True)
    points = f"[...document.querySelectorAll('#chart-{chart} .{marks}_marks path')]"
    tab.wait_for_function(f"() => {points}.filter(point => point.getAttribute('opacity') > 0.9).length === {kept}")


ALIKE = {f"lite0-resolution-phi+{step}": ("resolution", "lite0", 20 + step, (0.7, 0.71)) for step in range(6)}


@pytest.mark.parametrize("width", [400, 1280])
def test_legends_show_whole_names_inside_their_chart(opened, write, width):
    """Names that differ only at their ends were cut alike."""
    networks = NETWORKS | ALIKE
    tab = opened(write(study_rows(networks)), viewport={"width": width, "height": 900})
    assert set(tab.locator("#chart-curves .role-legend-label text").all_text_contents()) == set(networks)
    tab.wait_for_function(
        """() => { const chart = document.querySelector("#chart-curves svg"), outer = chart.getBoundingClientRect();
        const boxes = [...chart.querySelectorAll(".role-legend-label text")].map(each => each.getBoundingClientRect());
        return boxes.every(box => box.top >= outer.top && box.right <= outer.right); }"""
    )


def test_all_columns_of_the_table_are_seen_at_once(opened, write):
    """8 of 19 were, at 1280 pixels."""
    tab = opened(write(study_rows()), viewport={"width": 1280, "height": 900})
    columns = tab.locator("thead th").count()
    assert columns == 20
    seen, whole = tab.evaluate("['clientWidth', 'scrollWidth'].map(name => document.querySelector('.scroll')[name])")
    assert whole <= seen + 2


def test_hovering_tells_all_figures(opened, written):
    tab = opened(written)
    tab.locator(MEANS).last.hover()
    tip = tab.locator("#vg-tooltip-element.visible").inner_text()
    for text in ("resnet18", "80.0% ± 1.4", "148 million", "TFLite latency", "7.40 ± 0.370 ms", "59.2 MB"):
        assert text in tip


def test_a_click_on_a_header_sorts_numbers_as_numbers(opened, written):
    tab = opened(written)

    def click(title: str) -> tuple[str | None, list[str]]:
        header = tab.get_by_role("columnheader", name=title, exact=True)
        header.get_by_role("button").click()
        order = header.get_attribute("aria-sort")
        return order, tab.locator("tbody td:first-child").all_inner_texts()

    by_macs = sorted(NETWORKS, key=lambda name: NETWORKS[name][2])
    by_accuracy = sorted(NETWORKS, key=lambda name: fmean(NETWORKS[name][3]))
    assert tab.locator("tbody td:first-child").all_inner_texts() == by_macs
    assert click("accuracy") == ("ascending", by_accuracy)
    assert click("accuracy") == ("descending", by_accuracy[::-1])
    # As text 59.2 MB would come after 6.00 MB and 148 before 15.
    assert click("TFLite file (MB)") == ("ascending", by_macs)
    assert click("network") == ("ascending", sorted(NETWORKS, key=lambda name: name.replace("-", "")))
    assert tab.locator("th[aria-sort]").count() == 1


def test_a_filter_shows_some_networks_in_charts_and_table_and_stays_in_the_link(opened, written):
    tab = opened(written)
    tab.locator("#filter").fill("resnet, width")
    tab.wait_for_function(f"document.querySelectorAll({MEANS!r}).length === 2")
    assert tab.locator("#networks tbody tr:visible td:first-child").all_inner_texts() == ["b0-width-phi-1", "resnet18"]
    link = tab.url.removeprefix(written.as_uri())
    assert link == "#show=resnet%2C%20width"
    tab.reload()
    tab.wait_for_function(f"document.querySelectorAll({MEANS!r}).length === 2")
    tab.locator("#filter").fill("")
    tab.wait_for_function(f"document.querySelectorAll({MEANS!r}).length === {len(NETWORKS)}")


def test_groups_colour_the_networks_and_get_a_panel_each(opened, written):
    """A panel has the axes of the whole chart, and the link keeps the choice."""
    tab = opened(written)
    tab.locator("#controls-pareto select").select_option(label="activations")
    tab.locator("#group-by").select_option("model")
    tab.get_by_text("activations (million)", exact=True).first.wait_for()
    assert tab.locator("#controls-pareto select").input_value() == "activations"  # it is drawn anew with its choice
    tab.locator("#multiples").check()
    panels = "#panels-pareto figure"
    for _ in range(2):
        tab.wait_for_function(f"document.querySelectorAll('{panels} svg').length === 2")
        assert tab.locator(f"{panels} figcaption").all_text_contents() == ["b0", "resnet18"]
        assert [tab.locator(panels).nth(place).locator(".means_marks path").count() for place in (0, 1)] == [4, 1]
        assert tab.locator("#chart-pareto .role-legend-label text").all_text_contents() == ["b0", "resnet18"]
        labels = [tab.locator(panels).nth(at).locator(".role-axis-label text").all_text_contents() for at in (0, 1)]
        assert labels[0] == labels[1]
        assert tab.url.endswith("#group=model&panels")
        tab.reload()


def test_all_data_can_be_downloaded_from_the_page(opened, written):
    tab = opened(written)
    with tab.expect_download() as started:
        tab.get_by_role("link", name="trainings.csv").click()
    assert Path(started.value.path()).read_text() == csv_tables(read(written.parent / "results.jsonl"))["trainings.csv"]


def test_what_was_not_measured_sorts_last_both_ways(opened, write):
    rows = [{**row, "input_bound": None} if row["member"] == "b0" else row for row in study_rows()]
    tab = opened(write(rows))
    for _ in range(2):
        tab.get_by_role("button", name="waiting for data").click()
        assert tab.locator("tbody td:first-child").all_inner_texts()[-1] == "b0"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1000])
def test_the_page_is_drawn_and_no_wider_than_the_window(opened, written, tmp_path, scheme, width):
    tab = opened(written, viewport={"width": width, "height": 900}, color_scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    for chart in tab.locator(".chart svg").all():
        box = chart.bounding_box()
        assert 0.7 * width < box["width"] <= width and box["height"] > 300
    tab.screenshot(path=tmp_path / "page.png", full_page=True)
    pixels = np.asarray(Image.open(tmp_path / "page.png").convert("L"))
    middle = np.median(pixels)
    assert middle > 200 if scheme == "light" else middle < 60
    assert pixels.std() > 5
    # Axis labels take the page's colour: as far from the ground in the dark as in the light.
    tab.locator("#chart-pareto").screenshot(path=tmp_path / "chart.png")
    chart = np.asarray(Image.open(tmp_path / "chart.png").convert("L")).astype(int)
    assert abs(chart - np.median(chart)).max() > 130


def test_hostile_names_are_shown_and_not_run(opened, write):
    rows = [
        {**row, **{key: HOSTILE for key in ("member", "model") if row.get(key) == "resnet18"}} for row in study_rows()
    ]
    tab = opened(write(rows))
    assert tab.title() == "Study study"
    assert tab.locator(MEANS).count() == len(NETWORKS)
    tab.locator(MEANS).last.hover()
    assert HOSTILE in tab.locator("#vg-tooltip-element.visible").inner_text()
    assert HOSTILE in tab.locator("tbody td:first-child").all_inner_texts()
    assert tab.title() == "Study study"


def test_one_network_with_one_seed_has_a_report(opened, write):
    path = write([cost_row("b0", "family", "b0", 32), training_row("b0", 0, 0.8, 32)])
    tab = opened(path)
    assert tab.locator(MEANS).count() == 1
    assert [section.get_attribute("id") for section in tab.locator("section").all()] == [
        "pareto",
        "curves",
        "networks",
        "protocol",
    ]
    for x, y in positions(tab, MEANS):
        box = tab.locator("#chart-pareto svg").bounding_box()
        assert box["x"] < x < box["x"] + box["width"] and box["y"] < y < box["y"] + box["height"]
    assert "A study of one network has nothing to compare" in page(path).text

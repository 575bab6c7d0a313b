"""Sections of a study's report: the title, text and chart of each. Pure functions of `report_data`."""

from __future__ import annotations

from keras_effnet.study.report import charts as report_charts
from keras_effnet.study.report.charts import Data
from keras_effnet.study.report.page import Section


def _describe_pareto(data: Data) -> str:
    text = (
        f"Each large dot is a network: its accuracy after the last epoch on the {data['networks'][0]['split']} images, "
        "averaged over seeds. The bar spans its seeds; "
        "the small dots are the single seeds. The dashed line is the Pareto front: no other network is both cheaper "
        "and more accurate. Hover over a dot for all figures; click a name to highlight it."
    )
    if any(point["metric"] == "seconds_to_target" for point in data["pareto"]):
        text += f" The target accuracy is {data['target']:.1%}; networks with a seed that missed it have no time."
    return text


SECTIONS = (
    Section("pareto", "What accuracy costs", _describe_pareto, report_charts.pareto, "pareto", panels=True),
    Section(
        "scaling",
        "Diminishing returns",
        lambda data: (
            "Accuracy of a baseline scaled along one dimension or all of them (compound), at equal MACs before "
            "rounding. Where a line flattens, scaling that dimension further gains less; compare figure 3 of the "
            "EfficientNet paper."
        ),
        report_charts.scaling,
        "scaling",
    ),
    Section(
        "times",
        "Did MACs become time?",
        lambda data: (
            f"Time against MACs, both relative to {data['networks'][0]['member']}, the network with the fewest MACs. "
            "On the dashed line time is proportional to MACs; below it time grew more slowly than MACs, above it "
            "faster. Lines join the networks of the compound scaling, or of the family."
        ),
        report_charts.times,
        "times",
        panels=True,
    ),
    Section(
        "curves",
        "Training curves",
        lambda data: (
            "Validation accuracy of every training, one line for each network and seed, coloured from few MACs to "
            "many. Choose wall time to see what an expensive epoch gains; click a name to highlight it."
        ),
        report_charts.curves,
        "curves",
        panels=True,
    ),
    Section(
        "law",
        "What larger networks would gain",
        lambda data: (
            "Error rate as a power law of MACs, fitted to all trainings of the compound scaling (dots; circles are the "
            "means of their networks): solid over the measured range, dashed where it is extrapolated. The band is the "
            "95% prediction interval of one more network, averaged over as many seeds; two networks have none. It "
            "assumes that the law continues to hold, which no fit can prove. `keras-effnet recommend` uses this fit."
        ),
        report_charts.law,
        "law",
    ),
    Section(
        "roofline",
        "How far from the machine's limit",
        lambda data: (
            "Throughput of each kind of layer against its arithmetic intensity, the FLOPs for each byte moved. The "
            "line is this machine's limit: memory bandwidth where it rises, arithmetic where it is flat. The larger "
            f"a dot, the larger that kind's share of the time. {data['roofline_doubts'] or ''}"
        ).rstrip(),
        report_charts.roofline,
        "roofline",
    ),
    Section(
        "wins",
        "Who is right where others are wrong",
        lambda data: (
            "Share of the held-out images on which the network of a row is right and that of a column is wrong, "
            "averaged over the seeds that both have. Two networks of equal accuracy may still err on different images: "
            "then the figures on both sides of the diagonal are large."
        ),
        report_charts.wins,
        "wins",
    ),
)

"""Tables for the charts of a study's report, from the rows of its `results.jsonl`.

Pure Python and numpy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Any

from keras_effnet.architecture.scaling import PUBLISHED
from keras_effnet.errors import UserError
from keras_effnet.study.networks import AXES, BASELINE, FAMILY
from keras_effnet.study.power_law import error_law
from keras_effnet.study.report.disagreements import ByNetwork, wins
from keras_effnet.study.statistics.clock_noise import CLOCKS, roofline_doubts
from keras_effnet.study.summary import METRICS, Summary, default_target, pareto_front, summarize

Record = dict[str, Any]
# The power law is drawn up to this multiple of the largest network's MACs, both parts in so many steps.
_BEYOND, _STEPS = 4, 20


def figure(value: float) -> str:
    """Format a number with three significant digits, or all integer digits: `1,234`, `12.0`, `0.0456`."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")


def labelled(metric: str) -> str:
    """Label of a metric with its unit."""
    return f"{METRICS[metric].label} ({METRICS[metric].unit})"


def group(summary: Summary) -> str:
    """Colour group of a network: the axis it was scaled along, or its family."""
    if summary.axis != FAMILY:
        return summary.axis
    if summary.model not in PUBLISHED:
        return PurePosixPath(summary.model).name
    prefix = summary.model.rstrip("0123456789")
    return {"lite": "EfficientNet-Lite", "v2-b": "EfficientNetV2"}.get(prefix, "EfficientNet")


def measured(summaries: Sequence[Summary]) -> list[str]:
    """Names in `METRICS` with a value above 0 for at least one network: a logarithmic axis can show those."""
    return [metric for metric in METRICS if any(summary.cost(metric) for summary in summaries)]


def _shown(summary: Summary) -> dict[str, str]:
    """Formatted figures of a network by metric, with units; ± is a standard deviation or an interquartile range."""
    costs = {metric: summary.cost(metric) for metric in METRICS}
    spread = "" if summary.spread is None else f" ± {100 * summary.spread:.1f}"
    return {"accuracy": f"{100 * summary.accuracy:.1f}%{spread}"} | {
        metric: "-" if cost is None else f"{with_noise(cost, summary.noise(metric))} {METRICS[metric].unit}"
        for metric, cost in costs.items()
    }


def with_noise(value: float, noise: float | None) -> str:
    """Format a figure, with its interquartile range if it has one: `12.0 ± 0.40`."""
    return figure(value) + ("" if noise is None else f" ± {figure(noise)}")


def _network(summary: Summary) -> Record:
    means = {"accuracy": summary.accuracy, "spread": summary.spread, "seeds": len(summary.accuracies)}
    return {
        **asdict(summary),
        "model": PurePosixPath(summary.model).name,
        **means,
        "group": group(summary),
        "shown": _shown(summary),
    }


def _point(summary: Summary) -> Record:
    """Fields that every accuracy chart needs of a network."""
    low, high = min(summary.accuracies), max(summary.accuracies)
    return {"member": summary.member, "accuracy": summary.accuracy, "low": low, "high": high}


def _pareto(summaries: Sequence[Summary]) -> list[Record]:
    """One record for each network and metric it has; `front` marks the Pareto-optimal ones."""
    fronts = {metric: pareto_front(summaries, metric) for metric in measured(summaries)}
    return [
        {**_point(each), "group": group(each), "metric": metric, "cost": each.cost(metric), "front": each in front}
        for metric, front in fronts.items()
        for each in summaries
        if each.cost(metric)
    ]


def _seeds(summaries: Sequence[Summary]) -> list[Record]:
    """One record for each metric, network and seed; none where every network has only one seed."""
    if all(len(summary.accuracies) == 1 for summary in summaries):
        return []
    return [
        {"member": each.member, "group": group(each), "metric": metric, "cost": each.cost(metric), "accuracy": accuracy}
        for metric in measured(summaries)
        for each in summaries
        if each.cost(metric)
        for accuracy in each.accuracies
    ]


def _scaling(summaries: Sequence[Summary]) -> list[Record]:
    """One record for each network and axis; the baseline lies on every axis along which it was scaled."""
    return [
        {**_point(each), "axis": axis, "model": PurePosixPath(each.model).name, "macs": each.macs}
        for axis in AXES
        for each in summaries
        if each.axis == axis
        or (each.axis == BASELINE and any(o.axis == axis and o.model == each.model for o in summaries))
    ]


def _times(summaries: Sequence[Summary]) -> list[Record]:
    """Times and MACs relative to the network with the fewest MACs; a line joins the `lined` records."""
    if len(summaries) < 2:
        return []
    first = summaries[0]
    lines = ({"compound", BASELINE}, {"EfficientNet"})
    most = max(lines, key=lambda names: sum(group(each) in names for each in summaries))
    return [
        {
            "member": each.member,
            "group": group(each),
            "clock": METRICS[clock].label,
            "macs_ratio": each.macs / first.macs,
            "time_ratio": time / first_time,
            "lined": group(each) in most,
        }
        for clock in CLOCKS
        if (first_time := first.cost(clock))
        for each in summaries
        if (time := each.cost(clock))
    ]


def _diagonal(times: Sequence[Record]) -> list[Record]:
    """The line on which time is proportional to MACs."""
    return [{"ratio": 1.0}, {"ratio": max(record["macs_ratio"] for record in times)}] if times else []


def _curve(run: Mapping[str, Any]) -> list[Record]:
    elapsed, records = 0.0, []
    for row in run["curve"]:
        elapsed += row["seconds"]
        records.append(
            {
                "member": run["member"],
                "seed": run["seed"],
                "epoch": row["epoch"],
                "elapsed": elapsed,
                "val_accuracy": row["val_accuracy"],
            }
        )
    return records


def curve_records(rows: Iterable[Mapping[str, Any]], members: Sequence[str]) -> list[Record]:
    """One record for each epoch of each training, with networks in the order of their names in `members`."""
    order = {member: place for place, member in enumerate(members)}
    runs = [row for row in rows if row["kind"] == "training" and row["member"] in order]
    runs.sort(key=lambda run: (order[run["member"]], run["seed"]))
    return [record for run in runs for record in _curve(run)]


def _roof(row: Mapping[str, Any]) -> list[Record]:
    """Three points of the roofline: left end, ridge point and right end."""
    peak, slope = row["peaks"]["gflops"], row["peaks"]["gbytes_per_s"]
    at = [kind["intensity"] for kind in row["kinds"]] + [peak / slope]
    return [
        {"member": row["member"], "intensity": x, "gflops": min(peak, slope * x)}
        for x in (min(at) / 2, peak / slope, 2 * max(at))
    ]


def _scaled(summaries: Sequence[Summary]) -> list[Summary]:
    """Networks of the compound scaling, to which the power law is fitted."""
    return [summary for summary in summaries if summary.axis in ("compound", BASELINE)]


def _law(summaries: Sequence[Summary]) -> list[Record]:
    """Points along the power law of the compound scaling, with its prediction interval where it has one.

    The largest network has two, one at the end of the measured range and one at the beginning of the extrapolation.
    """
    scaled = _scaled(summaries)
    try:
        law = error_law(scaled)
    except UserError:  # too few results for a fit
        return []
    first, last = scaled[0].macs, scaled[-1].macs
    records = []
    for start, end, extrapolated in ((first, last, False), (last, _BEYOND * last, True)):
        for step in range(_STEPS + 1):
            macs = start * (end / start) ** (step / _STEPS)
            low, high = law.band(macs)
            known = math.isfinite(high)
            records.append(
                {
                    "macs": macs,
                    "accuracy": 1 - law.at(macs),
                    "low": max(0.0, 1 - high) if known else None,
                    "high": 1 - low if known else None,
                    "extrapolated": extrapolated,
                }
            )
    return records


def _fitted(summaries: Sequence[Summary]) -> list[Record]:
    """The trainings to which the power law is fitted."""
    return [
        {"member": each.member, "macs": each.macs, "accuracy": accuracy}
        for each in _scaled(summaries)
        for accuracy in each.accuracies
    ]


def _failures(rows: Sequence[Mapping[str, Any]]) -> list[Record]:
    """Failed trainings that no later attempt has completed."""
    done = {(row["member"], row.get("seed")) for row in rows if row["kind"] == "training"}
    failed = {(row["member"], row.get("seed")): dict(row) for row in rows if row["kind"] == "failure"}
    return [row for key, row in failed.items() if key not in done]


def report_data(
    rows: Sequence[Mapping[str, Any]], target: float | None = None, answers: ByNetwork | None = None
) -> dict[str, Any]:
    """Tables of a report, which its page embeds as JSON.

    Args:
        rows: Rows of `results.jsonl`.
        target: Float in (0, 1), validation accuracy for the time-to-target metric; default:
            `summary.default_target`.
        answers: Mapping, network to seed to `Answers`, where trainings stored them.

    Returns:
        Dict with `networks`, one record for each network with the fields of `Summary`, by increasing MACs; the tables
        of the charts: `pareto`, `seeds`, `scaling`, `times`, `diagonal`, `curves`, `law`, `fitted`, `roofs`, `roofline`
        and `wins`; `failures`, rows of failed trainings; `roofline_doubts`, a sentence or None; and `target`.
        Accuracies are in [0, 1].
    """
    target = default_target(rows) if target is None else target
    summaries = summarize(rows, target)
    roofs = [row for row in rows if row["kind"] == "roofline"]
    times = _times(summaries)
    return {
        "networks": [_network(summary) for summary in summaries],
        "pareto": _pareto(summaries),
        "seeds": _seeds(summaries),
        "scaling": _scaling(summaries),
        "times": times,
        "diagonal": _diagonal(times),
        "curves": curve_records(rows, [summary.member for summary in summaries]),
        "law": _law(summaries),
        "fitted": _fitted(summaries),
        "roofs": [record for row in roofs for record in _roof(row)],
        "roofline": [{**kind, "member": row["member"]} for row in roofs for kind in row["kinds"]],
        "wins": wins({each.member: answers[each.member] for each in summaries if each.member in answers})
        if answers
        else [],
        "failures": _failures(rows),
        "roofline_doubts": roofline_doubts(roofs),
        "target": target,
    }

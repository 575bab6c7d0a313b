"""Content of a study's report: headline figures, the columns of its table, and the answer. Pure Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from keras_effnet.study.protocol import Budget
from keras_effnet.study.report.encodings import by_group
from keras_effnet.study.report.page import Column, Grouping
from keras_effnet.study.report.records import figure, labelled, measured
from keras_effnet.study.summary import METRICS, Summary

TABLE_TEXT = (
    "Figures are means over seeds; accuracy has its standard deviation, a time its interquartile range. Click a header "
    "to sort. Bars show each value as a share of the column's largest."
)
# Field of a record of `networks` -> its label.
_GROUPED_BY = {
    "group": "axis or family",
    "model": "baseline",
    "image_size": "image size",
    "learning_rate": "learning rate",
    "member": "network",
}


def protocol_line(protocol: Mapping[str, Any], env: Mapping[str, Any]) -> str:
    """Data, budget, seeds and processor in one line; unknown parts are left out."""
    parts = []
    if data := dict(protocol.get("data", {})):
        source = data.pop("source", "")
        parts.append(" ".join(["Data", str(source), *(f"{name}={value}" for name, value in data.items())]))
    if "budget" in protocol:
        parts.append(f"{Budget(**protocol['budget'])} for each training")
    if seeds := protocol.get("seeds"):
        parts.append(f"{seeds} seed{'s' * (seeds > 1)}")
    if "cpu" in env:
        parts.append(str(env["cpu"]))
    return "; ".join(parts)


def duration(seconds: float) -> str:
    """Format a time in hours, minutes or seconds."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{figure(seconds / size)} {unit}"
    return f"{figure(seconds)} s"


def study_cards(networks: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The headline figures, each with its label."""
    first, last = networks[0], networks[-1]
    best = max(networks, key=lambda network: network["accuracy"])
    trainings = sum(network["seeds"] for network in networks)
    spent = sum(network["seeds"] * network["train_seconds"] for network in networks)
    cards = [(best["shown"]["accuracy"], f"the most accurate: {best['member']}")]
    if len(networks) > 1:
        span = f"{first['member']} to {last['member']}"
        cards.append((f"x{figure(last['macs'] / first['macs'])}", f"MACs, {span}"))
        cards.append((f"x{figure(last['step_ms'] / first['step_ms'])}", "time of a training step, the same two"))
    cards.append((duration(spent), f"of training: {len(networks)} networks, {trainings} trainings"))
    return cards


def share(value: float | None) -> str:
    """Format a share in percent; a dash where it is not known."""
    return "-" if value is None else f"{value:.1%}"


def study_columns(summaries: Sequence[Summary]) -> list[Column]:
    """The columns that have a value for at least one network."""

    def plain(field: str, title: str, words: bool = False) -> Column:
        return Column(title, lambda network: network[field], lambda network: str(network[field]), words)

    def rate(field: str, title: str) -> Column:
        return Column(title, lambda network: network[field], lambda network: figure(network[field]))

    def cost(metric: str) -> Column:
        def text(row: Mapping[str, Any]) -> str:
            return row["shown"][metric].removesuffix(f" {METRICS[metric].unit}")

        return Column(labelled(metric), lambda row: row[metric], text, bar=True)

    found = [plain("member", "network", True), plain("group", "axis or family", True), plain("image_size", "pixels")]
    split = summaries[0].split
    metric = summaries[0].metric
    name = metric if split == "validation" else f"{split} {metric}"
    found.append(Column(name, lambda row: row["accuracy"], lambda row: row["shown"]["accuracy"], bar=True))
    if split != "validation":
        found.append(
            Column("validation", lambda row: row["val_accuracy"], lambda row: share(row["val_accuracy"]), bar=True)
        )
    if any(summary.learning_rate for summary in summaries):
        found.append(rate("learning_rate", "learning rate"))
    found += [plain("seeds", "seeds"), plain("epochs", "epochs"), *map(cost, measured(summaries))]
    found += [rate(f"{use}_images_per_second", f"images/s, {use}") for use in ("train", "predict")]
    if any(summary.input_bound is not None for summary in summaries):
        found.append(Column("waiting for data", lambda row: row["input_bound"], lambda row: share(row["input_bound"])))
    return found


def groupings(
    networks: Sequence[Mapping[str, Any]], fields: Mapping[str, str] = MappingProxyType(_GROUPED_BY)
) -> dict[str, Grouping]:
    """Fields by which the page can group networks: the first, and all others that tell networks apart.

    Args:
        networks: Records, each with its name, `member`.
        fields: Mapping, name of each field to its label.
    """
    found: dict[str, Grouping] = {}
    for field, label in fields.items():
        ordered = sorted(networks, key=lambda network: (network[field] is None, network[field] or 0))
        groups = {each["member"]: "-" if each[field] is None else f"{each[field]}" for each in ordered}
        if not found or len(set(groups.values())) > 1:
            colour = by_group([{"group": name} for name in groups.values()]).to_dict()
            found[field] = Grouping(label, groups, colour)
    return found

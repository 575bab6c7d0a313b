"""Verdicts on the files of an export as a table, client by file, and the reasons below it. Pure Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from keras_effnet.export.tflite_file.clients.judgement import Verdict
from keras_effnet.export.tflite_file.clients.rule import ACCEPTS, IN_PART, REFUSES

Verdicts = Mapping[str, Sequence[Verdict]]  # of each file, by its precision

_WORDS = {ACCEPTS: "yes", IN_PART: "in part", REFUSES: "no"}


def client_headers(verdicts: Verdicts) -> tuple[str, ...]:
    """Headers of the table."""
    return ("runtime", *verdicts, "known from")


def client_rows(verdicts: Verdicts) -> list[tuple[str, ...]]:
    """Rows of the table: a runtime, its verdict on each file, and whether files were tried on it."""
    rows = []
    for of_client in zip(*verdicts.values(), strict=True):
        words = (_WORDS[one.expected] for one in of_client)
        rows.append((of_client[0].client, *words, "trial" if any(one.tried for one in of_client) else "documents"))
    return rows


def client_reasons(verdicts: Verdicts) -> list[str]:
    """One sentence for each reason of each runtime, with the files that it concerns and the options that cure it."""
    found: dict[tuple[str, str, str, tuple[str, ...]], list[str]] = {}
    for name, of_file in verdicts.items():
        for one in of_file:
            for reason in one.reasons:
                found.setdefault((one.client, one.expected, reason, one.cures), []).append(name)
    order = [one.client for one in next(iter(verdicts.values()), ())]
    sentences = []
    for (client, expected, reason, cures), names in sorted(found.items(), key=lambda item: order.index(item[0][0])):
        cure = f" Instead: {', '.join(cures)}." if cures else ""
        sentences.append(f"{client}, {', '.join(names)}: {_WORDS[expected]}. {reason}.{cure}")
    return sentences

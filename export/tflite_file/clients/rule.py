"""A rule of a client, and what rules decide. Pure Python."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from keras_effnet.export.tflite_file.clients.conditions import Culprits

ACCEPTS, IN_PART, REFUSES = "accepts", "in part", "refuses"


class Client(NamedTuple):
    """A runtime, or one of its accelerators.

    Args:
        name: String.
        tried: String, versions and date with which exported files were run on it; empty if none were.
        documents: String, where its rules are published; empty if they are from trials alone.
    """

    name: str
    tried: str = ""
    documents: str = ""

    @property
    def source(self) -> str:
        """Source of its verdicts in one line."""
        return "; ".join(filter(None, (self.tried and f"tried: {self.tried}", self.documents)))


class Rule(NamedTuple):
    """A condition that limits the verdict of a client to `verdict` if `culprits` finds any in a file.

    A rule that `ACCEPTS` is a remark on files that run. `reason` has a `{}` for the culprits, `cure` says how to get a
    file that the client takes, and `source` how this is known if not by the source of the client.
    """

    client: str
    verdict: str
    culprits: Culprits
    reason: str
    cure: str = ""
    source: str = ""


def rules_of(client: Client, *rows: tuple[str, ...] | tuple) -> Iterable[Rule]:
    """Rules of one client from rows of the other fields; the source is the client's unless a row has its own."""
    for row in rows:
        rule = Rule(client.name, *row)
        yield rule if rule.source else rule._replace(source=client.source)

"""Verdicts of all clients on a file. Pure Python."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from keras_effnet.export.tflite_file.clients import delegates, litert, web
from keras_effnet.export.tflite_file.clients.rule import ACCEPTS, IN_PART, REFUSES
from keras_effnet.export.tflite_file.graph import Graph

_NAMED = 4  # at most so many culprits are listed in a reason
_SEVERITY = (ACCEPTS, IN_PART, REFUSES)

CLIENTS = {client.name: client for client in (*litert.CLIENTS, *web.CLIENTS, *delegates.CLIENTS)}
RULES = (*litert.RULES, *web.RULES, *delegates.RULES)


@dataclass(frozen=True)
class Verdict:
    """Expected support of a file by one client.

    Args:
        client: String.
        expected: `"accepts"`; `"in part"`: the remaining operators fall back to other kernels or to the CPU; or
            `"refuses"`.
        reasons: Tuple of strings, the reasons for that verdict, or remarks on a file that is accepted.
        cures: Tuple of strings, options of `keras-effnet export` that give a file that the client takes.
        sources: Tuple of strings, how this is known: what was tried, or a document.
    """

    client: str
    expected: str
    reasons: tuple[str, ...] = ()
    cures: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def tried(self) -> bool:
        """Whether exported files were run on the client."""
        return any(source.startswith("tried") for source in self.sources)


def _listed(culprits: list[str]) -> str:
    more = f" and {len(culprits) - _NAMED} more" if len(culprits) > _NAMED else ""
    return ", ".join(culprits[:_NAMED]) + more


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, texts)))


def judge(graph: Graph) -> tuple[Verdict, ...]:
    """Return the expected verdict of each client on a file."""
    verdicts = []
    for client in CLIENTS.values():
        found = [
            (rule, culprits) for rule in RULES if rule.client == client.name and (culprits := rule.culprits(graph))
        ]
        worst = max((rule.verdict for rule, _ in found), key=_SEVERITY.index, default=ACCEPTS)
        decisive = [(rule, culprits) for rule, culprits in found if rule.verdict == worst]
        verdicts.append(
            Verdict(
                client.name,
                worst,
                tuple(rule.reason.format(_listed(culprits)) for rule, culprits in decisive),
                _distinct(rule.cure for rule, _ in decisive),
                _distinct(rule.source for rule, _ in decisive) or (client.source,),
            )
        )
    return tuple(verdicts)

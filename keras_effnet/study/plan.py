"""A study as its folder keeps it: what is trained, by which protocol, with how many seeds.

Imports `protocol`, `members`, `trials`, `ledger`, `runs`, `errors`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from keras_effnet.errors import UserError
from keras_effnet.study.networks import Member
from keras_effnet.study.protocol import Budget, Protocol
from keras_effnet.study.trial import load_data
from keras_effnet.system import jsonl
from keras_effnet.system.files import write_text
from keras_effnet.system.run_folders import write_environment

RESULTS_JSONL, PROTOCOL = "results.jsonl", "protocol.yaml"


@dataclass(frozen=True)
class Plan:
    """A study as its folder keeps it.

    Args:
        protocol: `Protocol`.
        members: Tuple of `Member`s, with different names.
        seeds: Int, trainings of each, seeded 0, 1, 2 ...
    """

    protocol: Protocol
    members: tuple[Member, ...]
    seeds: int

    def __post_init__(self):
        names = [member.name for member in self.members]
        if not names:
            raise UserError("A study needs at least one network.")
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"Two networks of the study are called {name!r}.")
        if self.seeds < 1:
            raise UserError(f"A study needs at least one seed, got {self.seeds}.")

    def save(self, folder: Path) -> None:
        """Writes the plan to a study's folder."""
        values = self.protocol.to_dict() | {"members": [asdict(member) for member in self.members], "seeds": self.seeds}
        write_text(folder / PROTOCOL, yaml.safe_dump(values, sort_keys=False))

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """The plan of an earlier study.

        Raises:
            UserError: There is none, or it is damaged.
        """
        path = folder / PROTOCOL
        if not path.is_file():
            raise UserError(f"{folder} is no study: it has no {PROTOCOL}.")
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
            members, seeds = values.pop("members"), values.pop("seeds")
            return cls(Protocol.from_dict(values), tuple(Member(**member) for member in members), seeds)
        except (yaml.YAMLError, KeyError, TypeError, AttributeError):
            raise UserError(f"{path} is damaged. Start the study anew.") from None

    def joined(self, earlier: Plan) -> Plan:
        """This and what an earlier run of the study already had; the protocol must be the same.

        Raises:
            UserError: Another protocol, or another network of the same name.
        """
        for name, value in self.protocol.arguments.items():
            before = earlier.protocol.arguments[name]
            if value != before:
                raise UserError(
                    f"The study was begun with {name} {_apart(before, value)}, now it is {_apart(value, before)}: its "
                    "results would not compare. Give the new one another --name."
                )
        known = {member.name: member for member in earlier.members}
        for member in self.members:
            if known.setdefault(member.name, member) != member:
                raise UserError(f"{member.name} was another network when the study began; give it another --name.")
        return Plan(self.protocol, tuple(known.values()), max(self.seeds, earlier.seeds))


def _apart(value: Any, other: Any) -> str:
    """A part of a protocol in words; of a mapping, what the other has not."""
    if not isinstance(value, Mapping):
        return str(value)
    own = {name: each for name, each in value.items() if name not in other or other[name] != each}
    return ", ".join(f"{name}={each}" for name, each in own.items()) or "nothing of it"


def prepare(
    data: str | Mapping[str, Any],
    members: Sequence[Member],
    seeds: int,
    *,
    budget: Budget | None = None,
    options: Mapping[str, Any] | None = None,
    threads: int = 0,
) -> tuple[Plan, Any]:
    """A plan and its `ImageDataset`, looked at before a folder is made or a process started.

    Args:
        data, budget, options, threads: As in `study.run`.
        members, seeds: Of the `Plan`.

    Returns:
        The `Plan`, whose data can be loaded from any working directory, without checking each image again if all
        could be decoded; and the dataset, as the first network sees it.

    Raises:
        UserError: What the plan or the data have against it.
    """
    given = dict(data) if isinstance(data, Mapping) else {"source": str(data)}
    plan = Plan(Protocol(given, budget or Budget(), options or {}, threads), tuple(members), seeds)
    dataset = load_data(plan.protocol, plan.members[0])
    # Scenes are drawn at the size of each network's input.
    origin = {name: value for name, value in dataset.origin.items() if name != "image_size"}
    found = {**given, **origin, "check": bool(dataset.skipped)}
    return replace(plan, protocol=replace(plan.protocol, data=found)), dataset


@contextmanager
def begin(folder: Path, plan: Plan) -> Iterator[Plan]:
    """Holds a study's folder for this process, and yields the plan joined with what the folder already had.

    Raises:
        UserError: The folder cannot be written, belongs to another process, or to a study by another protocol.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot write study folder {folder}: {error.strerror}.") from None
    with jsonl.alone_in(folder):
        if (folder / PROTOCOL).exists():
            plan = plan.joined(Plan.read(folder))
        plan.save(folder)
        write_environment(folder)
        yield plan

"""A study as its folder keeps it: what is trained, by which protocol, with how many seeds.

Imports `protocol`, `members`, `ledger`, `runs`, `errors`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from keras_effnet import ledger
from keras_effnet.errors import UserError
from keras_effnet.members import Member
from keras_effnet.protocol import Protocol
from keras_effnet.runs import write_environment, write_text

RESULTS, PROTOCOL = "results.jsonl", "protocol.yaml"


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
            values = yaml.safe_load(path.read_text())
            members, seeds = values.pop("members"), values.pop("seeds")
            return cls(Protocol.from_dict(values), tuple(Member(**member) for member in members), seeds)
        except (yaml.YAMLError, KeyError, TypeError, AttributeError):
            raise UserError(f"{path} is damaged. Start the study anew.") from None

    def joined(self, earlier: Plan) -> Plan:
        """This and what an earlier run of the study already had; the protocol must be the same.

        Raises:
            UserError: Another protocol, or another network of the same name.
        """
        for name, value in self.protocol.to_dict().items():
            before = earlier.protocol.to_dict()[name]
            if value != before:
                raise UserError(
                    f"The study was begun with {name} {before!r}, now it is {value!r}: its results would not compare. "
                    "Give the new one another --name."
                )
        known = {member.name: member for member in earlier.members}
        for member in self.members:
            if known.setdefault(member.name, member) != member:
                raise UserError(f"{member.name} was another network when the study began; give it another --name.")
        return Plan(self.protocol, tuple(known.values()), max(self.seeds, earlier.seeds))


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
    with ledger.alone_in(folder):
        if (folder / PROTOCOL).exists():
            plan = plan.joined(Plan.read(folder))
        plan.save(folder)
        write_environment(folder)
        yield plan

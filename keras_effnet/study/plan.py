"""Plan of a study and its `protocol.yaml`: the networks, their protocol, and the number of seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from keras_effnet.config.run_record import TEST_SPLIT, data_arguments, is_path
from keras_effnet.errors import UserError
from keras_effnet.study.networks import Member
from keras_effnet.study.protocol import Budget, Protocol
from keras_effnet.study.results import kept_results
from keras_effnet.study.trial import check_data, check_task, load_data
from keras_effnet.system.documents import read_json, read_yaml
from keras_effnet.system.files import write_text
from keras_effnet.system.portable_paths import located, located_values, portable_values
from keras_effnet.system.run_folders import locked, write_environment
from keras_effnet.system.typed_values import build, conform

PROTOCOL = "protocol.yaml"
MOST_SEEDS = 1000


@dataclass(frozen=True)
class _Document:
    """Fields of `protocol.yaml`."""

    data: dict[str, Any]
    budget: dict[str, Any]
    members: tuple[Member, ...]
    seeds: int
    options: dict[str, Any] = field(default_factory=dict)
    threads: int = 0
    rates: tuple[float, ...] = ()
    max_seeds: int | None = None
    last_seen: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """Plan of a study, as saved in its folder.

    Args:
        protocol: `Protocol`.
        members: Tuple of `Member`s with unique names.
        seeds: Int, number of trainings of each network, with the seeds 0, 1, 2 ...
        max_seeds: Int or None, number up to which seeds are added where a comparison is unclear; None for no more.
    """

    protocol: Protocol
    members: tuple[Member, ...]
    seeds: int
    max_seeds: int | None = None

    def __post_init__(self):
        names = [member.name for member in self.members]
        if not names:
            raise UserError("A study needs at least one network.")
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"Two networks of the study have the name {name!r}.")
        if not 1 <= self.seeds <= MOST_SEEDS:
            raise UserError(f"A study needs at least one seed, at most {MOST_SEEDS}, got {self.seeds}.")
        if self.max_seeds is not None and not self.seeds <= self.max_seeds <= MOST_SEEDS:
            raise UserError(
                f"max_seeds must be at least the {self.seeds} seeds of every network, at most {MOST_SEEDS}, got "
                f"{self.max_seeds}."
            )

    def save(self, folder: Path) -> None:
        """Writes the plan to a study's folder, with paths relative to it."""
        values, members = self.protocol.to_dict(), [asdict(member) for member in self.members]
        parts = (values["data"], values["options"], *members)
        (data, options, *members), last_seen = portable_values(parts, folder, is_path)
        values |= {"data": data, "options": options, "members": members, "seeds": self.seeds}
        values |= {"max_seeds": self.max_seeds} if self.max_seeds else {}
        values |= {"last_seen": last_seen} if last_seen else {}
        write_text(folder / PROTOCOL, yaml.safe_dump(values, sort_keys=False))

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """Read the plan from a study's folder.

        Raises:
            UserError: There is no plan, or it is damaged.
        """
        path = folder / PROTOCOL
        if not path.is_file():
            raise UserError(f"{folder} is not the folder of a study: it has no {PROTOCOL}.")
        values = read_yaml(path)
        try:
            document = build(_Document, values)
            data, options = (
                located_values(each, folder, document.last_seen) for each in (document.data, document.options)
            )
            budget = build(Budget, document.budget, "budget")
            protocol = Protocol(data_arguments(data), budget, options, document.threads, document.rates)
            members = tuple(
                replace(each, model=located(each.model, folder, document.last_seen)) for each in document.members
            )
            plan = cls(protocol, members, document.seeds, document.max_seeds)
            for member in plan.members:
                protocol.config(member)  # checks the options that it sets
            return plan
        except UserError as error:
            raise UserError(
                f"{path} is damaged: {str(error).removesuffix('.')}. Restore it, or start a new study."
            ) from None

    def joined(self, earlier: Plan) -> Plan:
        """Join this plan with that of an earlier run of the study.

        Raises:
            UserError: The protocols differ, or two different networks have the same name.
        """
        for name, value in self.protocol.arguments.items():
            before = earlier.protocol.arguments[name]
            if value != before:
                raise UserError(
                    f"The study was started with {name} {_apart(before, value)}, now it is {_apart(value, before)}: "
                    "the results would not be comparable. Choose another --name for the new study."
                )
        known = {member.name: member for member in earlier.members}
        for member in self.members:
            if known.setdefault(member.name, member) != member:
                raise UserError(f"{member.name} names a different network in this study; choose another --name.")
        seeds, limits = max(self.seeds, earlier.seeds), [each.max_seeds for each in (self, earlier) if each.max_seeds]
        return Plan(self.protocol, tuple(known.values()), seeds, max(seeds, *limits) if limits else None)


def _apart(value: Any, other: Any) -> str:
    """Format a field of a protocol; of a mapping, only the items that differ from `other`."""
    if not isinstance(value, Mapping):
        return str(value)
    own = {name: each for name, each in value.items() if name not in other or other[name] != each}
    return ", ".join(f"{name}={each}" for name, each in own.items()) or "not set"


def prepare(
    data: str | Mapping[str, Any],
    members: Sequence[Member],
    seeds: int,
    *,
    budget: Budget | None = None,
    options: Mapping[str, Any] | None = None,
    threads: int = 0,
    rates: Sequence[float] = (),
    max_seeds: int | None = None,
) -> tuple[Plan, Any]:
    """Make a plan and load its data, before a folder is created or a process started.

    Args:
        data: As in `study.run`. Arguments are taken as they are; a source alone gets a `test_split` of 0.1.
        budget, options, threads, rates: As in `study.run`.
        members, seeds, max_seeds: Fields of the `Plan`.

    Returns:
        Tuple of the `Plan`, whose data can be loaded from any working directory and is not checked again if every
        image could be decoded, and the `ImageDataset` at the image size of the first network.

    Raises:
        UserError: The plan or the data are invalid.
    """
    given = dict(data) if isinstance(data, Mapping) else {"source": str(data), "test_split": TEST_SPLIT}
    shared = {
        name: str(Path(value).resolve()) if is_path(name, value) else value for name, value in (options or {}).items()
    }
    plan = Plan(Protocol(given, budget or Budget(), shared, threads, tuple(rates)), tuple(members), seeds, max_seeds)
    epochs = int(plan.protocol.budget.amount) if plan.protocol.budget.kind == "epochs" else 1
    for member in plan.members:
        plan.protocol.config(member, epochs=max(1, epochs))  # refuses options that do not fit the network
    dataset = load_data(plan.protocol, plan.members[0])
    for member in plan.members:
        check_task(dataset, member)
    if plan.protocol.budget.kind == "seconds" and plan.members[0].detects:
        raise UserError("The pace of detectors is not measured: give them a budget of --epochs or --macs.")
    # Cluttered scenes are drawn at the input size of each network.
    origin = {name: value for name, value in dataset.origin.items() if name != "image_size"}
    found = {**given, **origin, "check": bool(dataset.skipped)}
    return replace(plan, protocol=replace(plan.protocol, data=found)), dataset


@contextmanager
def begin(folder: Path, plan: Plan, dataset: Any) -> Iterator[Plan]:
    """Lock a study's folder for this process and save the plan, joined with the plan already there.

    Args:
        folder: Path.
        plan, dataset: What `prepare` returns.

    Yields:
        The joined `Plan`.

    Raises:
        UserError: The folder cannot be written, is in use by another process, or has a different protocol or other
            data.
    """
    from keras_effnet.datasets.findings.data_identity import DATA, save_identity

    with locked(folder):
        if (folder / PROTOCOL).exists():
            plan = plan.joined(Plan.read(folder))
            check_data(dataset, folder)
        plan.save(folder)
        if not (folder / DATA).exists():
            save_identity(dataset, folder)
        write_environment(folder)
        with kept_results(folder):
            yield plan


def image_counts(folder: Path) -> tuple[int, int] | None:
    """Numbers of training and validation images of a study, from its `data.json`; None if it has none.

    Raises:
        UserError: The file is damaged.
    """
    path = folder / "data.json"  # as `datasets.findings.data_identity` writes it, which loads TensorFlow
    if not path.is_file():
        return None
    values = conform(read_json(path), dict[str, Any], str(path))
    classes = conform(values.get("classes"), dict[str, dict[str, int]], f"{path}, classes")
    train, val = (sum(each.get(split, 0) for each in classes.values()) for split in ("train", "val"))
    return train, val

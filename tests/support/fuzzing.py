"""Fuzzing: seeded damage to files, and a runner that outlives crashes and hangs of the code under test.

    def target(path):                       # a function of an importable module, such as tests/fuzz/tflite_targets.py
        inspect(path)

    tally = fuzz(target, mutants({"toy": content}, 200), tmp_path, suffix=".tflite")
    assert not tally.failures, tally

A mutant follows from its number and the seed alone, so a slice of a long run can be repeated: `start=1234, count=1`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import multiprocessing
import os
import re
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

Mutator = Callable[[bytes, Random, Sequence[bytes]], bytes]  # content, random numbers, contents of all files

_WORDS = (0, 1, 2, 4, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_SCALARS = (
    *("", "null", "-1", "0", "10000000", "1e400", "nan", ".inf", "true", "[]", "{}", "[[1, 2], 3]", '"text"', "'"),
    *(
        "!!python/object/apply:os.system [exit]",
        "../../../etc/passwd",
        "2024-13-45",
        "0x10",
        "\u202e\U0001f40d",
        "\x00",
    ),
    "9" * 400,
)


def flip_bits(content: bytes, rng: Random, files: Sequence[bytes]) -> bytes:
    """Flip 1 to 16 bits."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def change_words(content: bytes, rng: Random, files: Sequence[bytes]) -> bytes:
    """Replace 1 to 8 aligned words of 32 bits by extreme, random or slightly different values."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at = 4 * rng.randrange(max(1, len(changed) // 4))
        old = int.from_bytes(changed[at : at + 4], "little")
        new = rng.choice((rng.choice(_WORDS), rng.getrandbits(32), old + rng.choice((-4, -1, 1, 4, 256))))
        changed[at : at + 4] = (new % 2**32).to_bytes(4, "little")
    return bytes(changed)


def truncate(content: bytes, rng: Random, files: Sequence[bytes]) -> bytes:
    """Cut off the end, or in one of four cases the beginning."""
    at = rng.randrange(len(content) + 1)
    return content[at:] if rng.random() < 0.25 else content[:at]


def splice(content: bytes, rng: Random, files: Sequence[bytes]) -> bytes:
    """Overwrite, insert or delete a part; new content is from any of the files."""
    other, size = rng.choice(list(files)), rng.choice((1, 4, 16, 64, 256, 4096))
    source, at = rng.randrange(len(other) + 1), rng.randrange(len(content) + 1)
    part = other[source : source + size]
    new, removed = rng.choice(((part, len(part)), (part, 0), (b"", size)))
    return content[:at] + new + content[at + removed :]


def replace_scalar(content: bytes, rng: Random, files: Sequence[bytes]) -> bytes:
    """Replace a word, number or quoted string of a text by a hostile value."""
    words = list(re.finditer(rb'"[^"\n]*"|[^\s,:{}\[\]"]+', content))
    if not words:
        return content
    word = rng.choice(words)
    return content[: word.start()] + rng.choice(_SCALARS).encode() + content[word.end() :]


def change_lines(content: bytes, rng: Random, files: Sequence[bytes]) -> bytes:
    """Drop, repeat, swap or indent lines of a text, or take one from another file."""
    lines = content.splitlines(keepends=True) or [b""]
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(5):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, lines[other])
        case 2:
            lines[at], lines[other] = lines[other], lines[at]
        case 3:
            lines[at] = rng.choice((b"  ", b"\t", b"- ", b"#", b'"', b"\xff", b",")) + lines[at]
        case 4:
            lines[at] = rng.choice(rng.choice(list(files)).splitlines(keepends=True) or [b""])
    return b"".join(lines)


BINARY: dict[str, Mutator] = {each.__name__: each for each in (flip_bits, change_words, truncate, splice)}
TEXT: dict[str, Mutator] = BINARY | {each.__name__: each for each in (replace_scalar, change_lines)}


@dataclass(frozen=True)
class Mutant:
    """A damaged file: its number in the sequence, the file that it was made from, the kind of damage."""

    number: int
    origin: str
    kind: str
    content: bytes = field(repr=False)


def mutants(
    files: Mapping[str, bytes], count: int, mutators: Mapping[str, Mutator] = BINARY, *, seed: int = 0, start: int = 0
) -> Iterator[Mutant]:
    """Damage files, one after the other, with one mutator each, in turn.

    Args:
        files: Name -> content of intact files.
        count: Int, mutants to make.
        mutators: Kind -> function, such as `BINARY` or `TEXT`.
        seed: Int.
        start: Int, number of the first mutant.
    """
    names, kinds, contents = list(files), list(mutators), list(files.values())
    for number in range(start, start + count):
        rng = Random(f"{seed}/{number}")
        name, kind = names[number % len(names)], kinds[number // len(names) % len(kinds)]
        yield Mutant(number, name, kind, mutators[kind](files[name], rng, contents))


@dataclass(frozen=True)
class Result:
    """What became of a mutant: `"accepted"`, `"refused"`, or one of `FAILURES`, and the message."""

    mutant: Mutant
    status: str
    message: str = ""


FAILURES = ("crashed", "hung", "unexpected", "unclear")


@dataclass(frozen=True)
class Tally:
    """Results of a run.

    Args:
        results: Tuple of `Result`s.
    """

    results: tuple[Result, ...]

    @property
    def failures(self) -> tuple[Result, ...]:
        """Results that must not occur: crashes, hangs, unexpected errors, messages of no or several lines."""
        return tuple(result for result in self.results if result.status in FAILURES)

    def row(self, kind: str, test: str) -> str:
        """A row of the table in docs/reliability.md, with the file of the test."""
        refused = sum(result.status == "refused" for result in self.results)
        command = f"`python -m pytest -m soak {test}`"
        return f"| {kind} | {len(self.results):,} | {refused:,} | {len(self.failures):,} | {command} |"

    def __str__(self) -> str:
        kinds = Counter(result.status for result in self.results)
        shown = "".join(f"\n  {each.status}: {each.mutant}: {each.message}" for each in self.failures[:20])
        return f"{dict(kinds)}{shown}"


def through_cli(*args: object) -> None:
    """Run a command in this process, for use in a target.

    Raises:
        UserError: The command refused its input, status 2 or 3; the message is what it printed.
        AssertionError: The command ended with another status or printed something unexpected.
    """
    from keras_effnet.cli.app import main
    from keras_effnet.errors import UserError

    log = logging.getLogger("keras_effnet")
    handlers, status = list(log.handlers), 0
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main([str(arg) for arg in args])
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else bool(stop.code)
    finally:
        log.handlers[:] = handlers
    errors = [line for line in err.getvalue().splitlines() if line.startswith("error: ")]
    assert status in (0, 2, 3), f"status {status}: {err.getvalue()[-2000:]}"
    assert "Traceback" not in err.getvalue() and "unexpected" not in " ".join(errors), err.getvalue()[-2000:]
    if status:
        raise UserError("\n".join(errors).removeprefix("error: "))


def fuzz(
    target: Callable[[Path], object],
    mutants: Iterable[Mutant],
    folder: Path,
    *,
    suffix: str,
    limit: float = 30.0,
    announce: Callable[[str], None] = lambda line: None,
) -> Tally:
    """Run a function on damaged files in another process, which is replaced when it crashes or hangs.

    Mutants that fail are kept in `folder`, named by their number.

    Args:
        target: Function of an importable module, which imports all that it needs at its top: the limit does not count
            that. It takes the path of a file, returns or raises `UserError` or `VerificationError` with one line. All
            else is a failure.
        mutants: `Mutant`s.
        folder: Folder for the files.
        suffix: String, suffix of the files.
        limit: Float, seconds after which a run hangs.
        announce: Called with a line of text after each 100 mutants.
    """
    results = []
    with contextlib.closing(_Worker(target, limit)) as worker:
        for mutant in mutants:
            path = folder / f"mutant-{mutant.number}{suffix}"
            path.write_bytes(mutant.content)
            results.append(Result(mutant, *worker.run(path)))
            if results[-1].status not in FAILURES:
                path.unlink(missing_ok=True)
            if len(results) % 100 == 0:
                announce(f"{len(results)} tried: {Tally(tuple(results))}")
    return Tally(tuple(results))


_START = 120.0  # seconds in which the process must have imported the target


class _Worker:
    def __init__(self, target: Callable[[Path], object], limit: float):
        self._target, self._limit = target, limit
        self._log = Path(tempfile.mkstemp(prefix="fuzz-", suffix=".log")[1])
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._target, self._log), daemon=False)
        self._process.start()
        theirs.close()
        if not self._pipe.poll(_START):
            raise TimeoutError(f"The process did not start: {self._log.read_text(errors='replace')[-2000:]}")
        self._pipe.recv()

    def run(self, path: Path) -> tuple[str, str]:
        self._pipe.send(path)
        if not self._pipe.poll(self._limit):
            self._process.kill()
            status = "hung", f"no result in {self._limit:g} seconds"
        else:
            try:
                return self._pipe.recv()
            except EOFError:
                self._process.join()
                code = self._process.exitcode
                name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
                status = "crashed", f"{name} {self._log.read_text(errors='replace')[-300:]}"
        self.close()
        self._log.touch()
        self._start()
        return status

    def close(self) -> None:
        self._pipe.close()
        self._process.join(5)
        self._process.kill()
        self._process.join()
        self._log.unlink(missing_ok=True)


def _serve(pipe: Connection, target: Callable[[Path], object], log: Path) -> None:
    """Main function of the process: run the target on each path received."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):  # C++ libraries print, too
        os.dup2(descriptor, stream)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        pipe.send("ready")
        while True:
            pipe.send(_outcome(target, pipe.recv()))


def _outcome(target: Callable[[Path], object], path: Path) -> tuple[str, str]:
    from keras_effnet.errors import UserError, VerificationError

    try:
        target(path)
    except (UserError, VerificationError) as error:
        message = str(error)
        clear = message.strip() and "\n" not in message.strip() and "unexpected" not in message
        return "refused" if clear else "unclear", message
    except Exception as error:
        return "unexpected", f"{type(error).__name__}: {error}"[:2000]
    return "accepted", ""

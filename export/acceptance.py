"""A file that was made and compared: whether it is accepted, and what is said of one that is not. TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass

from keras_effnet.export.int8.layer_errors import LayerError, first_lost
from keras_effnet.export.int8.swish_profile import SwishProfile
from keras_effnet.export.measure.verify_report import VerifyReport
from keras_effnet.export.recipes import Candidate, Precision, Settings
from keras_effnet.tasks import TASKS


@dataclass(frozen=True)
class Attempt:
    """A file that was made by one method, compared and timed.

    Args:
        method: String.
        agreement: String, agreement with its count and interval.
        sqnr_db: Float.
        time_ratio: Float, CPU time for one image relative to the float32 file, run in turn on one thread.
    """

    method: str
    agreement: str
    sqnr_db: float
    time_ratio: float

    def __str__(self) -> str:
        return f"{self.method}: {self.agreement}, {self.sqnr_db:.1f} dB, {self.time_ratio:.2f} of float32's time"


@dataclass(frozen=True, eq=False)
class ExportCandidate:
    """A file that was made and run but not yet written.

    Args:
        quantization: String.
        recipe: `Precision`, with the bounds that the file must meet.
        settings: `Settings`.
        candidate: `Candidate`, the first that passed, or the one with the highest agreement if none did. With a budget,
            the one within it that is closest to the float file on the calibration images.
        report: `VerifyReport`.
        layers: Tuple of `LayerError`s.
        calibration: As in `ExportResult`.
        log: Tuple of lines that the converter printed.
        seconds: Float.
        attempts, swishes: Tuples of `Attempt`s and `SwishProfile`s, as in `ExportResult`.
    """

    quantization: str
    recipe: Precision
    settings: Settings
    candidate: Candidate
    report: VerifyReport
    layers: tuple[LayerError, ...]
    calibration: dict[str, object] | None
    log: tuple[str, ...]
    seconds: float
    attempts: tuple[Attempt, ...] = ()
    swishes: tuple[SwishProfile, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the report is consistent with the bounds of the precision, and the time with the budget."""
        return self.recipe.accepts(self.report) and not self._too_slow

    @property
    def _too_slow(self) -> bool:
        """Whether no file that was tried is within the budget."""
        budget = self.settings.budget
        return budget is not None and all(attempt.time_ratio > budget for attempt in self.attempts)

    @property
    def doubt(self) -> str:
        """Remark on a file that passed although its measured agreement is below the bound; empty for all others."""
        if not self.passed or self.recipe.meets(self.report):
            return ""
        return (
            f"Whether the {self.quantization} file reaches the agreement of {self._required} is undecided: "
            f"{self.report.agreement}{self._loss}. Compare on more images."
        )

    @property
    def _required(self) -> str:
        names = dict.fromkeys(each.task for each in self.report.each)
        return " and ".join(TASKS[name].shown(self.recipe.min_agreement(name)) for name in names)

    @property
    def _loss(self) -> str:
        """Loss of average precision beside its bound, as the end of a clause; empty if it was not measured."""
        if self.report.lost is None:
            return ""
        return f"; {100 * self.report.lost:.1f} points of AP lost, at most {100 * self.recipe.bounds.ap:g} allowed"

    @property
    def complaint(self) -> str:
        """Error message of a file that did not pass: cause and remedies."""
        if (budget := self.settings.budget) is not None:
            if self._too_slow:
                cause = f"was found, the fastest takes {min(each.time_ratio for each in self.attempts):.2f}"
            else:
                bounds = f"{self._required} and {self.recipe.bounds.sqnr_db:g} dB"
                cause = f"agrees with the model, at least {bounds} required{self._loss}"
            return (
                f"No {self.quantization} file within {budget:g} of float32's time {cause}; reached: "
                f"{'; '.join(map(str, self.attempts))}. Raise the budget (--budget), or use another precision."
            )
        lost = first_lost(self.layers)
        where = f" The signal is first lost in {lost.layer} ({lost.sqnr_db:.1f} dB)." if lost else ""
        report, recipe = self.report, self.recipe
        return (
            f"The {self.quantization} file disagrees with the model: {report.agreement}, at least {self._required} "
            f"required; SQNR {report.sqnr_db:.1f} dB, at least {recipe.bounds.sqnr_db:g} required{self._loss}.{where} "
            f"{self._cure}"
        )

    @property
    def _cure(self) -> str:
        """Remedies of a file that disagrees."""
        longer = "train longer if its top classes are nearly tied"
        if self.recipe.needs_calibration:
            return (
                f"Calibrate on images like those it will see, {longer}, or use another precision (mixed keeps in float "
                "what int8 hurts most). ReLU6 networks like lite0 quantize best."
            )
        if self.quantization == "none":
            return f"{longer.capitalize()}; otherwise the conversion is at fault: please report it."
        return f"{longer.capitalize()}, or use a precision of more bits, up to none."

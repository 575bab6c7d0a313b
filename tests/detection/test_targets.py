"""Assignment beside a plain one in numpy, and losses beside their definitions."""

import numpy as np
import pytest
import tensorflow as tf
from small_detector import small_detector

from keras_effnet.detection import TargetAssigner, anchor_boxes, box_loss, detection_loss, encode, focal_loss, overlaps
from keras_effnet.models.losses.boxes import portable_box_loss, portable_focal_loss

SIZE = (72, 96)


def check_assignment(spec, boxes, labels, targets):
    """Beside the definition: the best box from an overlap of 0.5 on, and a best anchor for every box."""
    anchors = anchor_boxes(spec, SIZE)
    shares = overlaps(boxes, anchors)
    owner = np.where(shares.max(axis=0) >= 0.5, shares.argmax(axis=0), -1)
    best = shares >= shares.max(axis=1, keepdims=True) - 1e-5  # several anchors that contain a box are alike
    found = targets["labels"].numpy()
    assert (owner >= 0).sum() > 30
    forced = best.any(axis=0)
    np.testing.assert_array_equal(found[~forced], np.where(owner >= 0, labels[owner], -1)[~forced])
    for number in range(len(boxes)):
        assert (found[best[number]] >= 0).any()
        if shares[number].max() < 0.5:
            only = best[number] & ~best[np.arange(len(boxes)) != number].any(axis=0) & (owner < 0)
            assert (found[only] >= 0).sum() <= 1
    positive = np.flatnonzero((owner >= 0) & ~forced)
    wanted = encode(boxes[owner[positive]], anchors[positive])
    np.testing.assert_allclose(targets["codes"].numpy()[positive], wanted, atol=1e-5)
    assert not targets["codes"].numpy()[found < 0].any()


def random_boxes(rng, count):
    centers, sizes = rng.uniform(0, SIZE, (count, 2)), rng.uniform(3, 60, (count, 2))
    return np.concatenate([centers - sizes / 2, centers + sizes / 2], axis=1).astype("float32")


@pytest.fixture(scope="module")
def spec():
    return small_detector(anchor_scale=2.0)


@pytest.fixture(scope="module")
def assign(spec):
    return TargetAssigner(spec, SIZE)


@pytest.mark.parametrize("seed", range(5))
def test_assignment_is_the_definitions(spec, assign, seed):
    rng = np.random.default_rng(seed)
    boxes, labels = random_boxes(rng, 12), rng.integers(0, 3, 12).astype("int32")
    check_assignment(spec, boxes, labels, assign(tf.constant(boxes), tf.constant(labels)))


def test_a_box_below_the_bound_gets_its_best_anchor(assign):
    tiny = tf.constant([[30.0, 30.0, 32.0, 32.0]])
    assert (assign(tiny, tf.constant([2])).get("labels").numpy() == 2).sum() == 1


def test_boxes_beyond_all_anchors_and_no_boxes_are_background(assign):
    beyond = assign(tf.constant([[500.0, 500.0, 510.0, 510.0]]), tf.constant([0]))
    nothing = assign(tf.zeros((0, 4)), tf.zeros((0,), tf.int32))
    for targets in (beyond, nothing):
        assert (targets["labels"].numpy() == -1).all() and not targets["codes"].numpy().any()


def test_assignment_runs_in_a_pipeline_with_any_number_of_boxes(assign):
    images = [random_boxes(np.random.default_rng(0), count) for count in (0, 1, 7)]
    data = tf.data.Dataset.from_generator(
        lambda: ((boxes, np.zeros(len(boxes), "int32")) for boxes in images),
        output_signature=(tf.TensorSpec((None, 4)), tf.TensorSpec((None,), tf.int32)),
    )
    (batch,) = data.map(assign).batch(3)
    assert (batch["labels"].numpy() >= 0).sum(axis=1).astype(bool).tolist() == [False, True, True]


def plain_focal_loss(labels, logits):
    """By definition, with a one-hot tensor, in float64."""
    logits = np.asarray(logits, float)
    wanted = labels[..., None] == np.arange(logits.shape[-1])
    p = 1 / (1 + np.exp(-logits))
    right = np.where(wanted, p, 1 - p)
    weight = np.where(wanted, 0.25, 0.75) * (1 - right) ** 1.5
    return (weight * -np.log(right)).sum() / ((labels >= 0).sum() + 1)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    labels = rng.choice([-1, -1, -1, 0, 4], (2, 50)).astype("int32")
    return labels, rng.normal(-1, 3, (2, 50, 5)).astype("float32")


def test_focal_loss_is_its_definition(batch):
    labels, logits = batch
    assert float(focal_loss(labels, tf.constant(logits))) == pytest.approx(plain_focal_loss(labels, logits), rel=1e-5)


def test_gradient_of_the_focal_loss_is_that_of_its_definition(batch):
    labels, logits = batch
    variable = tf.Variable(logits)
    with tf.GradientTape() as tape:
        loss = 3 * focal_loss(labels, variable)
    found = tape.gradient(loss, variable).numpy()
    for place in (
        (0, 0, 0),
        (1, 7, 4),
        *((*tuple(map(int, each)), int(labels[tuple(each)])) for each in np.argwhere(labels >= 0)[:4]),
    ):
        step = np.zeros_like(logits, dtype=float)
        step[place] = 1e-4
        slope = (plain_focal_loss(labels, logits + step) - plain_focal_loss(labels, logits - step)) / 2e-4
        assert found[place] == pytest.approx(3 * slope, rel=1e-3, abs=1e-7)


def test_losses_of_extreme_logits_are_finite():
    labels = np.array([[-1, 0]], "int32")
    variable = tf.Variable(np.array([[[90.0, -90.0], [-90.0, 90.0]]], "float32"))
    with tf.GradientTape() as tape:
        loss = focal_loss(labels, variable)
    assert float(loss) == pytest.approx((0.75 * 90 + 0.25 * 90 + 0.75 * 90) / 2, rel=1e-4)
    assert np.isfinite(tape.gradient(loss, variable)).all()


def test_box_loss_is_hubers_on_positive_anchors():
    labels = np.array([[-1, 2, 0]], "int32")
    codes = tf.zeros((1, 3, 4))
    predicted = tf.constant([[[9.0, 9.0, 9.0, 9.0], [0.05, 0.0, 0.0, 0.0], [0.0, 0.3, 0.0, 0.0]]])
    wanted = (0.05**2 / 2 + 0.1 * (0.3 - 0.05)) / 4 / 3
    assert float(box_loss(labels, codes, predicted)) == pytest.approx(wanted)
    logits = tf.fill((1, 3, 3), -50.0)
    total = detection_loss({"labels": labels, "codes": codes}, {"logits": logits, "boxes": predicted})
    assert float(total) == pytest.approx(50 * wanted + 2 * 0.25 * 50 / 3, rel=1e-4)


def test_losses_in_operations_of_keras_are_those_of_the_kernels(batch):
    """Other backends train detectors with them."""
    labels, logits = batch
    rng = np.random.default_rng(1)
    codes, predicted = (rng.normal(0, 0.2, (2, 50, 4)).astype("float32") for _ in range(2))
    for kernel, portable, values in (
        (focal_loss, portable_focal_loss, (logits,)),
        (box_loss, portable_box_loss, (codes, predicted)),
    ):
        results = []
        for loss in (kernel, portable):
            given = [tf.Variable(each) for each in values]
            with tf.GradientTape() as tape:
                total = loss(tf.constant(labels), *given)
            results.append((float(total), tape.gradient(total, given[-1]).numpy()))
        (expected, slopes), (found, portable_slopes) = results
        assert found == pytest.approx(expected, rel=1e-5)
        np.testing.assert_allclose(portable_slopes, slopes, rtol=1e-4, atol=1e-6)


def test_portable_losses_of_extreme_logits_are_finite():
    labels = np.array([[-1, 0]], "int32")
    variable = tf.Variable(np.array([[[200.0, -200.0], [-200.0, 200.0]]], "float32"))
    with tf.GradientTape() as tape:
        loss = portable_focal_loss(tf.constant(labels), variable)
    assert float(loss) == pytest.approx((0.75 * 200 + 0.25 * 200 + 0.75 * 200) / 2, rel=1e-4)
    assert np.isfinite(tape.gradient(loss, variable)).all()

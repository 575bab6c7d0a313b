"""Images with boxes: boxes stay on what they frame, through every fit, crop, flip and mosaic."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_effnet import datasets
from keras_effnet.architecture.detectors import detector_spec
from keras_effnet.datasets.labels.boxes import Boxes, ImageBoxes
from keras_effnet.detection import decode
from keras_effnet.detection.anchors import anchor_boxes
from keras_effnet.errors import UserError
from keras_effnet.inference import image_files
from keras_effnet.inference.detecting import original_scale
from keras_effnet.pipeline import Augmentation, image_pipeline, scenes
from keras_effnet.preprocessing import ImageSpec

SIZE = 96
DETECTOR = detector_spec("det-lite0", anchor_scale=2.0, classes=3)
STILL = Augmentation(flip=False, scale_jitter=(1.0, 1.0))
SEED, DRAWS = tf.constant([3, 4], tf.int64), tf.constant([0.5, 0.5, 0.5, 0.5])


def spec(fit="stretch", size=SIZE):
    return ImageSpec(size, fit=fit)


def framed(height=80, width=160, boxes=((10, 20, 40, 60), (45, 90, 75, 150))):
    """A dark image whose boxes are bright, with their rows."""
    image = np.full((height, width, 3), 20, "uint8")
    for number, (y0, x0, y1, x1) in enumerate(boxes):
        image[y0:y1, x0:x1] = 120 + 60 * number
    rows = np.array([[*box, number, 0] for number, box in enumerate(boxes)], "float32")
    return tf.constant(image), tf.constant(rows)


def assert_boxes_frame_what_is_bright(image, rows):
    """Pixels inside a box are bright, those just outside are dark or another box's."""
    image = np.asarray(image)[..., 0]
    for y0, x0, y1, x1, number in np.asarray(rows)[:, :5]:
        inside = image[round(y0) + 2 : round(y1) - 2, round(x0) + 2 : round(x1) - 2]
        assert abs(inside - (120 + 60 * number)).max() < 4
    outside = np.ones(image.shape, bool)
    for y0, x0, y1, x1 in np.asarray(rows)[:, :4]:
        outside[max(0, int(y0) - 2) : int(y1) + 3, max(0, int(x0) - 2) : int(x1) + 3] = False
    if len(rows) == 2:  # none is left out: grey padding is the brightest
        assert image[outside].max(initial=0) < 128


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_evaluation_keeps_the_whole_image_and_its_boxes(fit):
    image, rows = framed()
    pixels, labels = scenes.evaluation_scene(image, rows, spec(fit))
    assert pixels.shape == (SIZE, SIZE, 3)
    shown = tf.concat([labels["boxes"], rows[:, 4:]], axis=1)
    assert_boxes_frame_what_is_bright(pixels, shown)
    np.testing.assert_allclose(labels["boxes"] / tf.tile(labels["scale"], (2,)), rows[:, :4], rtol=1e-5)
    scale = labels["scale"].numpy()
    assert scale.tolist() == pytest.approx([SIZE / 80, SIZE / 160] if fit == "stretch" else [SIZE / 160] * 2)
    bottom = pixels.numpy()[-1, 0]
    assert bottom.tolist() == pytest.approx([20.0] * 3 if fit == "stretch" else list(spec().mean), abs=0.01)


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_prediction_prepares_images_as_evaluation_does(fit, tmp_path):
    """`predict` and `export` read files, and boxes are mapped back by `original_scale`."""
    image, rows = framed()
    Image.fromarray(image.numpy()).save(tmp_path / "scene.png")
    expected, labels = scenes.evaluation_scene(image, rows, spec(fit))
    np.testing.assert_array_equal(image_files.image(tmp_path / "scene.png", spec(fit))[0], expected)
    np.testing.assert_allclose(original_scale(spec(fit), (80, 160)), labels["scale"], rtol=1e-6)


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize("jitter", [(0.5, 1.0), (1.0, 1.0), (1.0, 2.0), (0.4, 2.0)])
def test_training_moves_boxes_with_the_pixels(fit, jitter):
    image, rows = framed()
    augmentation = Augmentation(scale_jitter=jitter)
    for number in range(6):
        seed = tf.constant([number, 1], tf.int64)
        found = scenes.training_scene(
            image, rows, spec(fit), augmentation, seed, tf.random.stateless_uniform((4,), (number, 2))
        )
        assert found.image.shape == (SIZE, SIZE, 3)
        assert_boxes_frame_what_is_bright(found.image, found.rows)


def test_flips_are_drawn_by_the_seed_and_mirror_boxes():
    image, rows = framed()
    flipped = [
        scenes.training_scene(
            image, rows, spec(), Augmentation(scale_jitter=(1, 1)), tf.constant([n, 0], tf.int64), DRAWS
        )
        for n in range(12)
    ]
    lefts = {round(float(each.rows[0, 1])) for each in flipped}
    assert lefts == {round(20 * SIZE / 160), round(SIZE - 60 * SIZE / 160)}


def test_crowds_and_boxes_that_are_hardly_visible_are_left_out():
    image, rows = framed(80, 80, ((0, 0, 20, 20), (30, 30, 50, 50), (60, 60, 80, 80)))
    rows = tf.constant(rows.numpy() + np.eye(6)[5] * [[0], [1], [0]], tf.float32)  # the second is a crowd
    enlarged, corner = Augmentation(flip=False, scale_jitter=(1.0, 1.3)), tf.constant([1.0, 0.0, 0.0, 0.0])
    found = scenes.training_scene(image, rows, spec(), enlarged, SEED, corner)
    assert found.rows[:, 4].numpy().tolist() == [0.0]


def test_quadrants_of_a_mosaic_keep_their_boxes():
    images = tf.stack([tf.fill((SIZE, SIZE, 3), 10.0 * n) for n in range(1, 5)])
    whole = tf.constant([[0, 0, SIZE, SIZE, 1, 0], [0, 0, 0, 0, -1, 0]], tf.float32)
    mixed, rows = scenes.mosaic(images, tf.stack([whole] * 4), SEED, 1.0)
    assert rows.shape == (4, 8, 6)
    for image, boxes in zip(mixed.numpy(), rows.numpy(), strict=True):
        assert sorted({int(value) for value in np.unique(image)}) == [10, 20, 30, 40]
        kept = boxes[boxes[:, 4] >= 0]
        for y0, x0, y1, x1 in kept[:, :4].astype(int):
            assert len(np.unique(image[y0:y1, x0:x1])) == 1
        assert np.prod(kept[:, 2:4] - kept[:, :2], axis=1).sum() <= SIZE * SIZE
    still, same = scenes.mosaic(images, tf.stack([whole] * 4), SEED, 0.0)
    np.testing.assert_array_equal(still, images)
    assert (same[..., 4] >= 0).numpy().sum() == 4


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (12, 64, 64, 3), dtype="uint8")
    boxes = [
        ImageBoxes(
            np.array([[8, 8, 40, 40], [20, 30, 60, 62]][: n % 3]).reshape(-1, 4), np.arange(n % 3), np.zeros(n % 3)
        )
        for n in range(12)
    ]
    return datasets.from_arrays(images, Boxes.of_images(boxes, [(64, 64)] * 12), ["a", "b", "c"])


def batches(data, training=True, **options):
    options = {"augmentation": Augmentation(color_jitter=0.2), "epochs": (0, 2)} | options if training else options
    return image_pipeline(data, spec(), 4, training=training, detector=DETECTOR, **options)


def test_training_batches_are_targets_of_the_anchors(data):
    anchors = anchor_boxes(DETECTOR, (SIZE, SIZE))
    part = batches(data.train, augmentation=STILL)
    seen = 0
    for images, targets in part:
        assert images.shape == (4, SIZE, SIZE, 3)
        assert targets["labels"].shape == (4, len(anchors)) and targets["codes"].shape == (4, len(anchors), 4)
        for labels, codes in zip(targets["labels"].numpy(), targets["codes"].numpy(), strict=True):
            positive = labels >= 0
            found = {tuple(np.round(box / SIZE * 64).astype(int)) for box in decode(codes[positive], anchors[positive])}
            assert found <= {(8, 8, 40, 40), (20, 30, 60, 62)}
            seen += len(found)
    assert seen


@pytest.mark.parametrize("options", [{}, {"cache": False}, {"augmentation": Augmentation(mosaic=0.5)}])
def test_epochs_repeat_and_can_be_entered_anywhere(data, options):
    def taken(epochs):
        return [
            (images.numpy(), labels["labels"].numpy()) for images, labels in batches(data, epochs=epochs, **options)
        ]

    whole, again, second = taken((0, 2)), taken((0, 2)), taken((1, 2))
    for left, right in (*zip(whole, again, strict=True), *zip(whole[len(second) :], second, strict=True)):
        np.testing.assert_array_equal(left[0], right[0])
        np.testing.assert_array_equal(left[1], right[1])


def test_evaluation_batches_are_filled_up(data):
    images, labels = next(iter(batches(data.val, training=False)))
    assert images.shape[1:] == (SIZE, SIZE, 3)
    rows, known = labels["classes"].numpy(), data.val.labels
    for index, row in enumerate(rows):
        assert row[row >= 0].tolist() == known.of(index).classes.tolist()
    assert labels["boxes"].shape[:2] == rows.shape == labels["crowd"].shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augmentation": Augmentation(policy="randaugment")}, "which boxes do not follow"),
        ({"augmentation": Augmentation(mixup=0.2)}, "there is mosaic"),
    ],
)
def test_augmentation_that_boxes_cannot_follow_is_refused(data, options, message):
    with pytest.raises(UserError, match=message):
        batches(data, **options)


def test_training_on_boxes_needs_a_detector(data):
    with pytest.raises(UserError, match="detector must be"):
        image_pipeline(data, spec(), 4, training=True)

"""COCO average precision beside pycocotools where it is installed, and its borders."""

import numpy as np
import pytest

from keras_effnet.detection import Detections, Truth, average_precision
from keras_effnet.detection.precision import _annotations, _as_coco
from keras_effnet.errors import UserError

pytest.importorskip("faster_coco_eval")


def boxes_of(rng, count):
    low = rng.uniform(0, 200, (count, 2))
    return np.concatenate([low, low + rng.uniform(5, 150, (count, 2))], axis=1)


@pytest.fixture(scope="module")
def data():
    """Twenty images; detections are the true boxes moved a little, with false ones among them."""
    rng = np.random.default_rng(0)
    truth, found = [], []
    for number in range(20):
        count = number % 5
        boxes, labels = boxes_of(rng, count), rng.integers(0, 3, count)
        truth.append(Truth(boxes, labels, rng.random(count) < 0.1))
        moved = np.concatenate([boxes + rng.normal(0, 4, boxes.shape), boxes_of(rng, 2)])
        found.append(Detections(moved, rng.random(len(moved)), np.concatenate([labels, rng.integers(0, 3, 2)])))
    return truth, found


def test_figures_are_pycocotools(data):
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    truth, found = data
    known = coco.COCO()
    known.dataset = {
        "images": [{"id": number} for number in range(len(truth))],
        "categories": [{"id": number} for number in range(3)],
        "annotations": _annotations(truth),
    }
    known.createIndex()
    known.dataset["info"] = {}
    results = [
        {"image_id": image, "category_id": int(label), "bbox": _as_coco(box), "score": float(score)}
        for image, each in enumerate(found)
        for box, score, label in zip(each.boxes, each.scores, each.labels, strict=True)
    ]
    theirs = evaluation.COCOeval(known, known.loadRes(results), "bbox")
    theirs.evaluate()
    theirs.accumulate()
    theirs.summarize()
    ours = average_precision(truth, found, 3)
    wanted = [ours.ap, ours.ap50, ours.ap75, ours.small, ours.medium, ours.large]
    np.testing.assert_allclose(theirs.stats[:6], wanted, atol=1e-6)
    assert 0.1 < ours.ap < 0.9 and np.mean(ours.by_class) == pytest.approx(ours.ap)


def test_true_boxes_found_exactly_are_1_and_absent_kinds_nan():
    boxes = np.array([[0.0, 0.0, 20.0, 20.0]])
    found = average_precision([Truth(boxes, np.array([1]))], [Detections(boxes, np.ones(1), np.array([1]))], 2)
    assert (found.ap, found.small) == (pytest.approx(1), pytest.approx(1))
    assert np.isnan([found.medium, found.by_class[0]]).all() and found.by_class[1] == pytest.approx(1)


def test_no_detection_is_0_and_not_an_error(data):
    truth, _ = data
    nothing = [Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))] * len(truth)
    found = average_precision(truth, nothing, 4)
    assert (found.ap, found.ap50, found.by_class[:3]) == (0, 0, (0, 0, 0)) and np.isnan(found.by_class[3])


def test_what_has_no_average_precision_is_refused(data):
    truth, found = data
    with pytest.raises(UserError, match="20 images with true boxes and 19 with detections"):
        average_precision(truth, found[1:], 3)
    with pytest.raises(UserError, match="no image has one"):
        average_precision([Truth(np.zeros((0, 4)), np.zeros(0, int))], found[:1], 3)
    groups = Truth(np.array([[0.0, 0.0, 20.0, 20.0]]), np.array([1]), np.array([True]))
    for detections in (found[0], Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))):
        with pytest.raises(UserError, match=r"no image has one but boxes of groups \(iscrowd\)"):
            average_precision([groups], [detections], 3)


def test_a_class_of_groups_alone_has_no_average_precision_with_or_without_detections():
    boxes = np.array([[0.0, 0.0, 20.0, 20.0], [40.0, 40.0, 60.0, 60.0]])
    truth = [Truth(boxes, np.array([0, 1]), np.array([False, True]))]
    for count in (0, 2):
        found = average_precision(truth, [Detections(boxes[:count], np.ones(count), np.array([0, 1])[:count])], 2)
        assert found.by_class[0] == pytest.approx(count / 2) and np.isnan(found.by_class[1])

"""Detections of a file with post-processing beside those of numpy: what counts as the same."""

import numpy as np

from keras_effnet.detection.suppression import Detections
from keras_effnet.export.detection.post_processing import difference_of

BOXES = np.array([[0, 0, 40, 40], [50, 50, 90, 90], [0, 50, 40, 90]], "float32")


def found(boxes=BOXES, scores=(0.9, 0.8, 0.7), labels=(0, 1, 0)):
    return Detections(np.array(boxes, "float32"), np.array(scores, "float32"), np.array(labels, "int32"))


def moved(place, by):
    boxes = BOXES.copy()
    boxes[place] += by
    return boxes


def test_the_same_detections_do_not_differ():
    assert difference_of(found(), found()) == ""
    assert difference_of(found([], [], []), found([], [], [])) == ""


def test_a_number_a_score_a_class_or_a_place_of_its_own_is_told():
    assert difference_of(found(), found(BOXES[:2], (0.9, 0.8), (0, 1))) == "2 instead of 3"
    assert difference_of(found(), found(scores=(0.9, 0.8, 0.6))) == "the scores differ"
    assert difference_of(found(), found(labels=(1, 1, 0))) == "1 of 3 are not found"
    assert difference_of(found(), found(moved(0, 30))) == "1 of 3 are not found"


def test_a_box_may_stand_for_one_of_the_same_score_that_it_suppresses():
    assert difference_of(found(), found(moved(0, 5))) == ""  # overlap above a half
    assert difference_of(found(), found(moved(0, 5)), overlap_threshold=0.9) == "1 of 3 are not found"


def test_the_last_boxes_are_as_many_as_there_is_room_for():
    assert difference_of(found(), found(moved(2, [50, 0, 50, 0]))) == ""

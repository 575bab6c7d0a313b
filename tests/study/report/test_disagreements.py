"""Images that networks disagree on: which are chosen, what is said of them, and how they are stored and drawn."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from study_rows import ROWS

from keras_effnet.errors import UserError
from keras_effnet.study.measurement.held_out import Answers, read_answers, trial_folder
from keras_effnet.study.report.disagreements import find_disagreements, most_disputed, thumbnail, wins
from keras_effnet.study.report.page import Report, Table, render_page
from keras_effnet.study.report.tables import csv_tables

TRUTH = (0, 1, 2, 0, 1)


def answers(*predicted: int, percent: int = 90) -> Answers:
    return Answers("test", TRUTH, predicted, (percent,) * len(TRUTH))


# Image 0: all are right. 1: none. 2: only `large`, in both seeds. 3: only one seed of `small`. 4: only `small`, surely.
STORED = {
    "small": {0: answers(0, 0, 0, 0, 1), 1: answers(0, 2, 1, 1, 1)},
    "large": {0: answers(0, 0, 2, 1, 0, percent=50), 1: answers(0, 2, 2, 1, 2, percent=50)},
}


def test_networks_that_are_sure_of_opposites_come_before_an_unlucky_seed():
    assert most_disputed(STORED) == [2, 4, 3]
    assert most_disputed(STORED, count=1) == [2]


def test_surer_answers_come_first_among_equals():
    surer = Answers("test", TRUTH, STORED["small"][1].predicted, (90, 90, 90, 90, 99))
    assert most_disputed({**STORED, "small": {0: STORED["small"][0], 1: surer}}) == [4, 2, 3]


def test_each_network_says_its_answers_with_their_number():
    found = find_disagreements(STORED, ("cat", "dog", "eel"))
    assert found.sentences[0] == "Of 5 test images, every training of 2 networks is right on 1 and none on 1."
    first = found.images[0]
    assert (first.index, first.truth) == (2, "eel")
    assert [(each.member, each.right, each.text) for each in first.said] == [
        ("small", False, "cat (1), dog (1)"),
        ("large", True, "eel (2)"),
    ]
    assert [each.percent for each in first.said] == [90, 50]


def test_wins_are_counted_over_the_seeds_that_both_have():
    found = {(each["member"], each["other"]): each["share"] for each in wins(STORED)}
    assert found == {("small", "large"): pytest.approx((2 / 5 + 1 / 5) / 2), ("large", "small"): pytest.approx(1 / 5)}
    assert wins({"small": {0: STORED["small"][0]}, "large": {1: STORED["large"][1]}}) == []


def test_one_network_disagrees_with_nobody():
    assert find_disagreements({"small": STORED["small"]}) is None and find_disagreements({}) is None


def test_answers_are_read_again_and_those_for_other_images_left_out(tmp_path):
    for member, runs in STORED.items():
        for seed, each in runs.items():
            (folder := trial_folder(tmp_path, member, seed)).mkdir(parents=True)
            each.save(folder)
    assert read_answers(tmp_path, ROWS) == STORED
    Answers("test", (0, 1), (0, 1), (50, 50)).save(trial_folder(tmp_path, "large", 1))
    assert read_answers(tmp_path, ROWS) == STORED | {"large": {0: STORED["large"][0]}}
    assert read_answers(tmp_path / "earlier", ROWS) == {}  # a study of a version that stored none
    (trial_folder(tmp_path, "small", 0) / "answers.json").write_text('{"split": "test"}')
    with pytest.raises(UserError, match=r"small/seed0/answers.json is damaged: .*Remove it"):
        read_answers(tmp_path, ROWS)


def test_answers_are_a_table_of_the_csv_files():
    lines = csv_tables(ROWS, STORED)["answers.csv"].splitlines()
    assert lines[0] == "image,truth,small seed 0,small seed 1,large seed 0,large seed 1"
    assert lines[3] == "2,2,0,1,2,2" and len(lines) == 6
    assert "answers.csv" not in csv_tables(ROWS)


def test_a_thumbnail_is_a_small_image_that_the_page_holds():
    pixels = np.full((300, 200, 3), (250, 10, 10), "uint8")
    kind, _, encoded = thumbnail(pixels).partition(",")
    image = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert kind == "data:image/jpeg;base64" and image.size == (75, 112)
    assert np.abs(np.asarray(image, int).mean(axis=(0, 1)) - (250, 10, 10)).max() < 5


class _Gallery(HTMLParser):
    """Sources of the images of a page, and the networks whose answers are shown."""

    def __init__(self, html: str):
        super().__init__()
        self.sources, self.members = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag == "img":
            self.sources.append(found["src"])
        elif "data-member" in found:
            self.members.append(found["data-member"])


def test_the_page_shows_images_and_names_as_text():
    hostile = "<script>alert(1)</script>"
    stored = {hostile: STORED["small"], "large": STORED["large"]}
    found = find_disagreements(stored, thumbnails={2: "data:image/jpeg;base64,AA=="}, note="Gone & away.")
    report = Report("A", "b", [], [], (), {"networks": []}, Table([], []), "", {}, disagreements=found)
    html = render_page(report, {}, library="", config={}, texts={})
    gallery = _Gallery(html)
    assert gallery.sources == ["data:image/jpeg;base64,AA=="] and gallery.members == [hostile, "large"] * 3
    assert "Gone &amp; away." in html and hostile not in html

"""Augmentation: operations against Pillow, mixed labels against mixed pixels, randomness against seeds."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from keras_effnet.config.train_config import POLICIES
from keras_effnet.errors import UserError
from keras_effnet.pipeline.augmentation import Augmentation, augment_image, color_jitter, mix_batch, random_erasing
from keras_effnet.pipeline.image_ops import NAMES, OPERATIONS
from keras_effnet.pipeline.mixing import cutmix, mixup
from keras_effnet.pipeline.policies import AUTO_AUGMENT, RAND_AUGMENT, SUB_POLICIES, auto_augment, rand_augment
from keras_effnet.training import contact_sheets

GREY = (128, 128, 128)
STILL = Augmentation(flip=False)


def seed(*numbers: int) -> tf.Tensor:
    return tf.constant(numbers, tf.int64)


def run(name: str, image: np.ndarray, strength: float = 0.0) -> np.ndarray:
    result = OPERATIONS[name](tf.constant(image), tf.constant(strength, tf.float32))
    assert result.dtype == tf.uint8 and result.shape == image.shape
    return result.numpy()


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """Soft colours with sharp spots, higher than wide, of which no channel reaches 0 or 255."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(40, 210, (6, 5, 3)).astype("uint8"))
    pixels = np.array(coarse.resize((53, 61), Image.Resampling.BICUBIC)).clip(20, 230)
    pixels[5:9, 30:33] = (230, 25, 60)
    return pixels


def blended(enhancer):
    return lambda image, factor: enhancer(image).enhance(factor)


def moved(matrix):
    """Function that moves pixels as Pillow does by the matrix for a strength and the image's size."""

    def move(image, strength):
        how = Image.Transform.AFFINE
        return image.transform(image.size, how, matrix(strength, *image.size), fillcolor=GREY)

    return move


# name -> what Pillow computes, strengths to try, how much a value may differ. Pillow rounds grey before it blends.
PILLOW = {
    "auto_contrast": (lambda image, _: ImageOps.autocontrast(image), (0.0,), 1),
    "equalize": (lambda image, _: ImageOps.equalize(image), (0.0,), 0),
    "invert": (lambda image, _: ImageOps.invert(image), (0.0,), 0),
    "posterize": (lambda image, bits: ImageOps.posterize(image, int(bits)), (1.0, 3.0, 4.4), 0),
    "solarize": (lambda image, threshold: ImageOps.solarize(image, int(threshold)), (0.0, 77.0, 128.0, 200.5), 0),
    "color": (blended(ImageEnhance.Color), (0.1, 0.6, 1.9), 1),
    "contrast": (blended(ImageEnhance.Contrast), (0.1, 0.6, 1.9), 1),
    "brightness": (blended(ImageEnhance.Brightness), (0.1, 0.6, 1.9), 0),
    "sharpness": (blended(ImageEnhance.Sharpness), (0.1, 0.6, 1.9), 1),
    "shear_x": (moved(lambda by, width, height: (1, by, 0, 0, 1, 0)), (0.3, -0.13), 0),
    "shear_y": (moved(lambda by, width, height: (1, 0, 0, by, 1, 0)), (0.3, -0.13), 0),
    "translate_x": (moved(lambda by, width, height: (1, 0, by * width, 0, 1, 0)), (0.3, -0.13), 0),
    "translate_y": (moved(lambda by, width, height: (1, 0, 0, 0, 1, by * height)), (0.3, -0.13), 0),
}
CASES = [(name, strength) for name, (_, strengths, _) in PILLOW.items() for strength in strengths]


@pytest.mark.parametrize(("name", "strength"), CASES)
def test_an_operation_computes_what_pillow_does(name, strength, image):
    pillow, _, most = PILLOW[name]
    expected = np.asarray(pillow(Image.fromarray(image), strength)).astype(int)
    assert np.abs(run(name, image, strength) - expected).max() <= most
    assert np.abs(expected - image).max() > 5  # a strength that does nothing would compare nothing


@pytest.mark.parametrize("degrees", [30.0, -30.0, 12.0, 90.0])
def test_rotate_turns_about_the_middle_as_pillow_does(degrees, image):
    expected = np.asarray(Image.fromarray(image).rotate(degrees, fillcolor=GREY)).astype(int)
    # Pillow counts in fixed point, so that a pixel halfway between two may fall on the other.
    assert (run("rotate", image, degrees) != expected).any(axis=-1).mean() < 0.002


def test_solarize_add_brightens_the_dark_half_alone():
    ramp = np.repeat(np.arange(256, dtype="uint8")[None, :, None], 3, axis=-1)
    result = run("solarize_add", ramp, 110.0)[0, :, 0]
    assert result[:128].tolist() == [value + 110 for value in range(128)]
    assert result[128:].tolist() == list(range(128, 256))


def test_what_a_move_uncovers_is_mid_grey(image):
    assert (run("translate_x", image, 0.5)[:, 27:] == 128).all()
    assert (run("translate_y", image, -0.5)[:30] == 128).all()


NEUTRAL = {"posterize": 8.0, "solarize": 256.0, "color": 1.0, "contrast": 1.0, "brightness": 1.0, "sharpness": 1.0}
STRENGTHLESS = {"auto_contrast", "equalize", "invert"}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in STRENGTHLESS])
def test_the_neutral_strength_changes_nothing(name, image):
    np.testing.assert_array_equal(run(name, image, NEUTRAL.get(name, 0.0)), image)


@pytest.mark.parametrize("name", ["auto_contrast", "equalize"])
def test_an_image_of_one_colour_has_nothing_to_stretch(name):
    flat = np.full((20, 20, 3), (7, 128, 255), "uint8")
    np.testing.assert_array_equal(run(name, flat), flat)


# ------------------------------------------------------------------ policies


@pytest.mark.parametrize("name", [name for name in RAND_AUGMENT if name not in STRENGTHLESS])
def test_randaugment_begins_with_no_change_at_magnitude_0(name, image):
    for strength in RAND_AUGMENT[name].at(0):
        np.testing.assert_array_equal(run(name, image, strength), image)


def test_randaugment_ends_where_the_papers_ranges_end():
    ends = {name: RAND_AUGMENT[name].at(10) for name in RAND_AUGMENT}
    assert len(ends) == 14
    assert ends["rotate"] == (30, -30) and ends["shear_x"] == ends["shear_y"] == (0.3, -0.3)
    assert np.allclose(ends["translate_x"], (150 / 331, -150 / 331)) and ends["translate_y"] == ends["translate_x"]
    assert ends["posterize"] == (4, 4) and ends["solarize"] == (0, 0)
    for name in ("color", "contrast", "brightness", "sharpness"):
        assert np.allclose(ends[name], (1.9, 0.1))


def test_autoaugment_has_the_published_levels_and_25_pairs():
    assert len(SUB_POLICIES) == 25 and all(len(pair) == 2 for pair in SUB_POLICIES)
    assert SUB_POLICIES[6] == (("equalize", 0.4, 8), ("solarize_add", 0.8, 3))
    assert AUTO_AUGMENT["color"].at(5) == (1.0, 1.0) and AUTO_AUGMENT["rotate"].at(9) == (27, -27)
    assert AUTO_AUGMENT["posterize"].at(6)[0] == pytest.approx(2.4)
    assert AUTO_AUGMENT["solarize"].at(8)[0] == pytest.approx(204.8)


def many(function, count: int, salt: int = 0) -> np.ndarray:
    """What a function of a seed gives for the seeds `(salt, 0)`, `(salt, 1)`, ..."""
    seeds = tf.data.Dataset.range(count).map(lambda place: tf.stack([tf.constant(salt, tf.int64), place]))
    return np.stack(list(seeds.map(function).as_numpy_iterator()))


@pytest.fixture
def calls(monkeypatch):
    """Policies report the operations that they call, `(number, strength)`, in the place of an image."""
    from keras_effnet.pipeline import policies

    monkeypatch.setattr(policies.ops, "to_bytes", lambda image: tf.zeros((0, 2)))

    def note(image, number, strength):
        return tf.concat([image, tf.stack([tf.cast(number, tf.float32), strength])[None]], axis=0)

    monkeypatch.setattr(policies.ops, "apply", note)


def test_randaugment_draws_every_operation_and_side_alike(calls):
    noted = many(lambda draw: rand_augment(None, draw, 3, 10.0), 4000).reshape(-1, 2)
    assert len(noted) == 12000
    numbers, counts = np.unique(noted[:, 0], return_counts=True)
    assert {NAMES[int(number)] for number in numbers} == set(RAND_AUGMENT)
    spread = math.sqrt(12000 / 14 * 13 / 14)
    assert np.abs(counts - 12000 / 14).max() < 4 * spread
    degrees = noted[noted[:, 0] == NAMES.index("rotate"), 1]
    assert set(degrees) == {30.0, -30.0} and abs((degrees > 0).mean() - 0.5) < 0.1


def test_randaugments_layers_are_drawn_independently(calls):
    noted = many(lambda draw: rand_augment(None, draw, 2, 10.0), 4000)
    assert abs((noted[:, 0, 0] == noted[:, 1, 0]).mean() - 1 / 14) < 4 * math.sqrt(1 / 14 * 13 / 14 / 4000)


def test_autoaugment_calls_each_operation_as_often_as_its_table_says(calls):
    noted = many(lambda draw: auto_augment(None, draw), 6000)
    expected = dict.fromkeys(AUTO_AUGMENT, 0.0)
    for pair in SUB_POLICIES:
        for name, chance, _ in pair:
            expected[name] += chance / len(SUB_POLICIES)
    expected["identity"] = 2 - sum(expected.values())
    for name, mean in expected.items():
        share = (noted[..., 0] == NAMES.index(name)).sum() / 6000
        assert share == pytest.approx(mean, abs=4 * math.sqrt(2 * max(mean, 0.001) / 6000)), name
    assert {round(float(s), 3) for s in noted[noted[..., 0] == NAMES.index("posterize")][:, 1]} == {0.8, 2.4}


def test_a_policy_applies_what_it_draws(image):
    """Of one layer, every result is one of the operations' own, and the strongest ones all appear."""
    possible = {
        run(name, image, strength).tobytes(): name for name in RAND_AUGMENT for strength in RAND_AUGMENT[name].at(9)
    }
    results = many(lambda draw: rand_augment(image, draw, 1, 9.0), 120)
    assert {possible[result.tobytes()] for result in results} == set(RAND_AUGMENT)


def test_no_layers_leave_the_image_alone(image):
    np.testing.assert_array_equal(rand_augment(image, seed(0, 0), 0, 9.0), image)


# ------------------------------------------------------------------ flip, jitter, erasing


def test_half_of_the_images_are_mirrored_exactly(image):
    results = many(lambda draw: augment_image(image, draw, Augmentation()), 200, 1)
    mirrored = [np.array_equal(result, image[:, ::-1]) for result in results]
    kept = [np.array_equal(result, image) for result in results]
    assert all(one != other for one, other in zip(mirrored, kept, strict=True))
    assert 70 < sum(mirrored) < 130


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_what_is_not_asked_for_leaves_no_trace_in_values_or_graph(image, dtype):
    function = tf.function(lambda image, draw: augment_image(image, draw, STILL)).get_concrete_function(
        tf.TensorSpec(image.shape, dtype), tf.TensorSpec((2,), tf.int64)
    )
    assert {op.type for op in function.graph.get_operations()} <= {"Placeholder", "Cast", "Identity"}
    exact = image.astype(dtype) + (0.25 if dtype == "float32" else 0)
    np.testing.assert_array_equal(augment_image(tf.constant(exact, dtype), seed(0, 0), STILL), exact)


def jittered(image, monkeypatch, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0) -> np.ndarray:
    """Colour jitter by amounts that are given, in the place of drawn ones."""
    draws = tf.constant([brightness, contrast, saturation, 10 * hue])
    monkeypatch.setattr(tf.random, "stateless_uniform", lambda *args, **kwargs: draws)
    return color_jitter(image, seed(0, 0), 1.0).numpy()


@pytest.mark.parametrize(
    ("name", "enhancer"),
    [("brightness", ImageEnhance.Brightness), ("contrast", ImageEnhance.Contrast), ("saturation", ImageEnhance.Color)],
)
@pytest.mark.parametrize("amount", [-0.3, 0.4])
def test_jitter_blends_as_pillow_does(name, enhancer, amount, image, monkeypatch):
    expected = np.asarray(enhancer(Image.fromarray(image)).enhance(1 + amount)).astype(float)
    assert np.abs(jittered(image, monkeypatch, **{name: amount}) - expected).max() < 2
    assert np.abs(expected - image).max() > 10


def test_jitters_blends_follow_one_another(image, monkeypatch):
    soft = (100 + 0.3 * image).astype("uint8")  # nothing is cut on the way
    expected = Image.fromarray(soft)
    for enhancer, factor in (
        (ImageEnhance.Brightness, 1.2),
        (ImageEnhance.Contrast, 0.6),
        (ImageEnhance.Color, 1.5),
    ):
        expected = enhancer(expected).enhance(factor)
    result = jittered(soft, monkeypatch, brightness=0.2, contrast=-0.4, saturation=0.5)
    assert np.abs(result - np.asarray(expected)).max() < 3.5  # Pillow drops fractions three times


def test_jitter_turns_hue_in_the_plane_of_chroma(image, monkeypatch):
    soft = (100 + 0.3 * image).astype("uint8")
    turn = 0.1 * 2 * math.pi
    result = jittered(soft, monkeypatch, hue=0.1)
    for row, column in ((3, 4), (7, 31), (40, 20)):
        y, i, q = colorsys.rgb_to_yiq(*(soft[row, column] / 255))
        turned = (y, math.cos(turn) * i - math.sin(turn) * q, math.sin(turn) * i + math.cos(turn) * q)
        expected = 255 * np.array(colorsys.yiq_to_rgb(*turned))
        np.testing.assert_allclose(result[row, column], expected, atol=2)
        assert np.abs(result[row, column] - soft[row, column]).max() > 4


def test_jitter_draws_within_its_strength():
    grey = np.full((8, 8, 3), 100, "uint8")
    means = many(lambda draw: color_jitter(grey, draw, 0.4), 300, 2).mean(axis=(1, 2, 3))
    assert 60 <= means.min() < 65 and 135 < means.max() <= 140.001  # of one grey, brightness alone is seen


def erased_box(result: np.ndarray, image: np.ndarray) -> tuple[int, int, int, int]:
    changed = np.argwhere((result != image).any(axis=-1))
    (top, left), (bottom, right) = changed.min(axis=0), changed.max(axis=0) + 1
    return top, left, bottom, right


def test_erasing_fills_one_rectangle_of_2_to_40_percent_with_noise(image):
    areas, ratios = [], []
    canvas = np.repeat(np.repeat(image, 2, axis=0), 2, axis=1)[:100, :100]
    for result in many(lambda draw: random_erasing(canvas, draw, 1.0), 150, 3):
        top, left, bottom, right = erased_box(result, canvas)
        inside = result[top:bottom, left:right]
        assert (inside != canvas[top:bottom, left:right]).any(axis=-1).mean() > 0.99  # a whole rectangle, not its rim
        assert inside.min() >= 0 and inside.max() <= 255 and 45 < inside.std() < 95
        areas.append((bottom - top) * (right - left) / 100**2)
        ratios.append((bottom - top) / (right - left))
    assert 0.015 < min(areas) < 0.05 and 0.36 < max(areas) < 0.41
    assert np.mean(areas) == pytest.approx(0.21, abs=0.03)
    assert min(ratios) < 0.5 and max(ratios) > 2 and min(ratios) > 0.25 and max(ratios) < 4


def test_erasing_happens_as_often_as_asked(image):
    results = many(lambda draw: random_erasing(image, draw, 0.25), 400, 4)
    hit = (results != image).any(axis=(1, 2, 3))
    assert 65 < sum(hit) < 135


# ------------------------------------------------------------------ batches


@pytest.fixture(scope="module")
def batch():
    """Images of one value each, 10 times their number, whose labels are one-hot."""
    values = 10.0 * np.arange(8)
    return np.broadcast_to(values[:, None, None, None], (8, 20, 30, 3)).astype("float32"), np.eye(8, dtype="float32")


def test_mixup_mixes_labels_by_the_share_of_the_pixels(batch):
    images, labels = (part.numpy() for part in mixup(*batch, seed(0, 1), 1.0))
    own = labels[np.arange(8), np.arange(8)]
    other = labels[np.arange(8), np.arange(8) - 1]
    np.testing.assert_allclose(own + other, 1, rtol=1e-6)
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)
    expected = own * 10 * np.arange(8) + other * 10 * np.roll(np.arange(8), 1)
    np.testing.assert_allclose(images, np.broadcast_to(expected[:, None, None, None], images.shape), rtol=1e-5)
    assert len(set(own.tolist())) == 8  # each image draws its own


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 4.0])
def test_mixups_shares_have_the_moments_of_the_beta_distribution(alpha):
    count = 4000
    _, labels = mixup(np.zeros((count, 1, 1, 1), "float32"), np.eye(count, dtype="float32"), seed(5, 6), alpha)
    own = np.diag(labels)
    assert own.mean() == pytest.approx(0.5, abs=0.03)
    assert own.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_cutmix_counts_the_pixels_that_it_replaced(batch):
    areas = []
    for place in range(30):
        images, labels = (part.numpy() for part in cutmix(*batch, seed(7, place), 1.0))
        for number in range(8):
            other = images[number, :, :, 0] == 10 * ((number - 1) % 8)
            assert (other | (images[number, :, :, 0] == 10 * number)).all()
            rows, columns = other.any(axis=1), other.any(axis=0)
            np.testing.assert_array_equal(other, rows[:, None] & columns[None, :])  # a rectangle
            assert labels[number, (number - 1) % 8] == pytest.approx(other.mean(), abs=1e-6)
            areas.append(other.mean())
            # Where no edge cuts it, it has the image's own proportions, 20 to 30.
            whole = not (rows[[0, -1]].any() or columns[[0, -1]].any())
            assert not whole or abs(rows.sum() - columns.sum() / 1.5) <= 1.5
        np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)
    assert min(areas) < 0.05 and max(areas) > 0.7
    # A square of share a, centred anywhere, keeps (1 - sqrt(a) / 4)^2 of itself on the average; a is uniform.
    assert np.mean(areas) == pytest.approx(1 / 2 - 1 / 5 + 1 / 48, abs=0.06)


def test_soft_labels_are_mixed_as_they_are(batch):
    soft = np.full((8, 8), 0.1 / 7, "float32") + np.eye(8, dtype="float32") * (0.9 - 0.1 / 7)
    for mix in (mixup, cutmix):
        _, hard = mix(*batch, seed(0, 1), 1.0)
        _, mixed = mix(batch[0], soft, seed(0, 1), 1.0)
        np.testing.assert_allclose(mixed, hard.numpy() @ soft, atol=1e-6)


def test_with_both_a_coin_decides_for_each_batch(batch):
    both = Augmentation(mixup=1.0, cutmix=1.0)
    flat = 0
    for place in range(100):
        images, labels = mix_batch(*batch, seed(8, place), both)
        np.testing.assert_allclose(labels.numpy().sum(axis=1), 1, rtol=1e-6)
        blended = images.numpy() % 10 != 0  # MixUp makes values that no image has
        assert blended.mean() < 0.01 or blended.mean() > 0.9
        flat += blended.mean() > 0.9
    assert 30 < flat < 70


@pytest.mark.parametrize(("only", "mix"), [("mixup", mixup), ("cutmix", cutmix)])
def test_one_alone_is_always_taken(only, mix, batch):
    for place in range(8):
        images, _ = mix_batch(*batch, seed(9, place), Augmentation(**{only: 1.0}))
        assert ((images.numpy() % 10 != 0).mean() > 0.9) == (only == "mixup")


def test_without_either_the_batch_is_what_it_was(batch):
    images, labels = mix_batch(*batch, seed(0, 0), STILL)
    assert images is batch[0] and labels is batch[1]


# ------------------------------------------------------------------ the seed, and nothing else


EVERYTHING = {
    policy: Augmentation(policy=policy, color_jitter=0.4, erasing=0.5, mixup=0.4, cutmix=1.0) for policy in POLICIES
}


def batches(originals: np.ndarray, augmentation: Augmentation, workers: int, first: int = 0) -> tuple:
    data = tf.data.Dataset.from_tensor_slices(originals).enumerate(first)
    data = data.map(
        lambda number, image: augment_image(image, tf.stack([number, 3]), augmentation), num_parallel_calls=workers
    )
    assert data.element_spec == tf.TensorSpec(originals.shape[1:], tf.float32)
    labels = tf.eye(len(originals))
    images = next(iter(data.batch(len(originals))))
    images, labels = mix_batch(images, labels, seed(first, 3), augmentation)
    assert images.shape == originals.shape and labels.shape == (len(originals), len(originals))
    return images.numpy(), labels.numpy()


@pytest.fixture(scope="module")
def images(smooth_images) -> np.ndarray:
    return smooth_images(24, 32)


@pytest.mark.parametrize("augmentation", EVERYTHING.values(), ids=EVERYTHING)
def test_batches_depend_on_the_seed_whatever_the_number_of_workers(augmentation, images):
    alone, many = batches(images, augmentation, 1), batches(images, augmentation, 8)
    for one, other in zip(alone, many, strict=True):
        np.testing.assert_array_equal(one, other)
    others = batches(images, augmentation, 8, first=1000)
    assert (others[0] != alone[0]).any(axis=(1, 2, 3)).mean() > 0.9
    assert (others[1] != alone[1]).any()


@pytest.mark.parametrize("policy", POLICIES)
def test_a_graph_computes_what_eager_execution_does(policy, images):
    augmentation = EVERYTHING[policy]
    function = tf.function(lambda image, draw: augment_image(image, draw, augmentation))
    for place in range(12):
        eager = augment_image(images[place], seed(place, 1), augmentation)
        np.testing.assert_allclose(function(images[place], seed(place, 1)), eager, atol=1e-3)


@pytest.mark.parametrize("augmentation", EVERYTHING.values(), ids=EVERYTHING)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_images_stay_within_0_to_255(augmentation, dtype, images):
    extreme = np.where(images > 128, 255, 0).astype(dtype)
    images, _ = batches(extreme, augmentation, 4)
    assert images.dtype == np.float32 and np.isfinite(images).all()
    assert images.min() >= 0 and images.max() <= 255 and images.max() > 200


def test_floats_are_rounded_for_a_policy(image):
    np.testing.assert_array_equal(rand_augment(image + np.float32(0.4), seed(0, 5)), rand_augment(image, seed(0, 5)))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"policy": "randaugmnt"}, "Did you mean 'randaugment'"),
        ({"magnitude": 11.0}, "magnitude must be at least 0 and at most 10, got 11.0"),
        ({"layers": -1}, "policy_layers must be at least 1 and at most 8, got -1"),
        ({"erasing": 1.5}, "erasing must be at least 0 and at most 1, got 1.5"),
        ({"color_jitter": -0.1}, "color_jitter must be at least 0 and at most 1, got -0.1"),
        ({"mixup": math.nan}, "mixup must be a number, got nan"),
        ({"cutmix": -1.0}, "cutmix must be at least 0, got -1.0"),
    ],
)
def test_a_value_out_of_range_is_refused(wrong, said):
    with pytest.raises(UserError, match=said):
        Augmentation(**wrong)


# ------------------------------------------------------------------ sheets


@pytest.fixture
def drawn(monkeypatch):
    """What a sheet would draw: images, titles, columns."""
    seen = {}

    def grid(images, titles, path, columns):
        seen.update(images=images, titles=list(titles), columns=columns)

    monkeypatch.setattr(contact_sheets.plots, "image_grid", grid)
    return seen


def test_the_operation_sheet_has_a_row_an_operation_and_a_column_a_level(drawn, image):
    contact_sheets.operation_sheet(image, "sheet.png", levels=(0.0, 5.0, 10.0))
    assert drawn["columns"] == 3 and len(drawn["images"]) == len(drawn["titles"]) == 14 * 3
    row = list(RAND_AUGMENT).index("rotate")
    assert drawn["titles"][3 * row : 3 * row + 3] == ["rotate 0", "rotate 15", "rotate 30"]
    np.testing.assert_array_equal(drawn["images"][3 * row + 2], run("rotate", image, 30.0))


def test_the_contact_sheet_shows_a_batch_as_training_sees_it(drawn, images):
    augmentation = EVERYTHING["randaugment"]
    batch, labels = contact_sheets.augmented_batch(images[:6], augmentation, seed=2)
    one = np.stack([augment_image(image, seed(2, place), augmentation) for place, image in enumerate(images[:6])])
    expected, shares = mix_batch(one, np.eye(6, dtype="float32"), seed(2, 6), augmentation)
    np.testing.assert_allclose(batch, expected, atol=1e-3)
    np.testing.assert_allclose(labels, shares)

    contact_sheets.contact_sheet(batch, labels, "sheet.png")
    assert drawn["images"] is batch and drawn["columns"] == 6
    assert f"{labels[3, 3]:.0%} 3" in drawn["titles"][3].splitlines()


def test_the_contact_sheet_names_pure_and_mixed_classes(drawn):
    labels = [[0, 1, 0], [0.25, 0, 0.75]]
    contact_sheets.contact_sheet(np.zeros((2, 4, 4, 3)), labels, "sheet.png", class_names=["cat", "dog", "owl"])
    assert drawn["titles"] == ["dog", "25% cat\n75% owl"]


def test_sheets_are_written_as_images(tmp_path, images):
    contact_sheets.kinds_sheet(images[:4], tmp_path / "kinds.png", columns=2)
    with Image.open(tmp_path / "kinds.png") as image:
        assert image.width > 200 and image.height > 800

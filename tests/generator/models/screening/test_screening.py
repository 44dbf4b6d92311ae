"""Screening: the copy index finds every copy, the label judge rejects wrong labels."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from generator.errors import BundleError, SourceError
from generator.models.autoencoders.augmentation import Augmentation
from generator.models.autoencoders.config import default_config
from generator.models.autoencoders.settings import default_settings
from generator.models.bundle import load_bundle
from generator.models.features.classifier import LabelledImages
from generator.models.features.config import Budget
from generator.models.features.neighbours import nearest_neighbours
from generator.models.latents.config import GaussianSettings
from generator.models.learning import refit, train_bundle
from generator.models.screening import mirroring
from generator.models.screening.calibration import calibrate, calibration_error
from generator.models.screening.config import JudgeSettings, PassRates, default_judge
from generator.models.screening.copy_index import MIN_HOLDOUT, CopyIndex, block_sums, fit_copy_index, load_copy_index
from generator.models.screening.data import ScreeningData
from generator.models.screening.label_judge import LabelJudge, load_judge, train_judge
from generator.models.screening.mirroring import is_mirroring_harmless
from generator.models.screening.soft_labels import MAX_LABELS, SoftLabels, soft_label
from generator.sources import load_source
from generator.sources.pixels.storage import ImageRows
from generator.spec.image_size import AnySize, as_size
from generator.store import open_store

pytestmark = pytest.mark.slow

DIGITS = load_source("digits", size=8)


def blobs(count: int, *, size: AnySize, channels: int, seed: int) -> np.ndarray:
    """uint8 NHWC: smooth images, so that a few components explain most of their variance."""
    rng = np.random.default_rng(seed)
    columns, rows = (np.linspace(-1, 1, side) for side in as_size(size))
    weights = rng.normal(size=(count, 6, channels))
    waves = np.stack([np.sin(k * np.pi * rows)[:, None] * np.cos(k * np.pi * columns) for k in range(1, 7)])
    return np.clip(128 + 60 * np.einsum("nkc,khw->nhwc", weights, waves) + rng.normal(size=1), 0, 255).astype(np.uint8)


def make_index(train: np.ndarray, holdout: np.ndarray) -> CopyIndex:
    copy_index = fit_copy_index(train, holdout, seed=0)
    assert copy_index is not None
    return copy_index


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (16, 3), (40, 1), (64, 3), ((50, 28), 1), ((8, 100), 3)])
def test_projections_are_never_further_apart_than_images(size: AnySize, channels: int) -> None:
    width, height = as_size(size)
    images = np.random.default_rng(1).integers(0, 256, (400, height, width, channels), dtype=np.uint8)
    copy_index = make_index(images[:200], images[200:])
    flat = images.reshape(len(images), -1).astype(np.float64)
    pairs = np.random.default_rng(2).integers(0, 400, (500, 2))
    exact = np.linalg.norm(flat[pairs[:, 0]] - flat[pairs[:, 1]], axis=1)
    rows = copy_index.project(images)
    projected = np.linalg.norm(rows[pairs[:, 0]] - rows[pairs[:, 1]], axis=1) * copy_index.unit
    rounding = np.sqrt(copy_index.rows_NK.shape[1]) * copy_index.unit
    assert (projected <= exact + rounding).all()
    assert np.abs(rows).max() <= np.iinfo(np.int16).max
    assert np.array_equal(copy_index.rows_NK, copy_index.project(images[:200]))


def test_every_image_nearer_than_the_floor_is_found_and_few_others() -> None:
    train, holdout = DIGITS.images_NHWC[:1200], DIGITS.images_NHWC[1200:1500]
    copy_index, rest = make_index(train, holdout), DIGITS.images_NHWC[1500:]
    near = nearest_neighbours(rest.reshape(len(rest), -1), train.reshape(len(train), -1)).distances_QK[:, 0]
    for quantile in (0.001, 0.02, 0.1):
        copies = near < copy_index.distance_floor(quantile)
        found = copy_index.is_copy(rest, quantile)
        assert not (copies & ~found).any()
        assert (found & ~copies).mean() < 0.02
    held = nearest_neighbours(holdout.reshape(300, -1), train.reshape(1200, -1)).distances_QK[:, 0]
    assert copy_index.distance_floor(0.1) == pytest.approx(np.quantile(held, 0.1))


@pytest.mark.parametrize("size", [8, 32, 48, (28, 50)])
def test_a_copy_is_found_whatever_else_is_in_the_batch(size: AnySize) -> None:
    images = blobs(500, size=size, channels=3, seed=3)
    copy_index, fresh = make_index(images[:350], images[350:450]), images[450:]
    planted = fresh.copy()
    planted[7] = np.clip(images[100].astype(int) + 1, 0, 255)
    whole = copy_index.is_copy(planted, 0.001)
    assert whole[7]
    assert not whole[np.arange(50) != 7].all()
    parts = np.concatenate([copy_index.is_copy(planted[begin : begin + 3], 0.001) for begin in range(0, 50, 3)])
    assert np.array_equal(parts, whole)
    again = load_copy_index(copy_index.tensors(), size=size, channels=3)
    assert np.array_equal(again.is_copy(planted, 0.001), whole)


@pytest.mark.parametrize(
    ("size", "block"), [(32, 1), (33, 2), (64, 2), (65, 3), (512, 16), ((50, 28), 2), ((8, 100), 1), ((512, 8), 2)]
)
def test_oblong_images_are_reduced_to_as_many_numbers_as_squares(size: AnySize, block: int) -> None:
    width, height = as_size(size)
    images = np.zeros((300, height, width, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(300) % 256
    copy_index = make_index(images[:180], images[180:])
    assert copy_index.block == block
    assert len(copy_index.projection_PK) == -(-width // block) * -(-height // block) <= 1100


def test_blocks_are_summed_and_a_last_one_is_filled_with_zeros() -> None:
    image = np.arange(25, dtype=np.uint8).reshape(1, 5, 5, 1)
    assert block_sums(image, 1).tolist() == [list(range(25))]
    assert block_sums(image, 2).tolist() == [[12, 20, 13, 52, 60, 33, 41, 45, 24]]


def test_too_few_held_out_images_give_no_index() -> None:
    images = blobs(300, size=8, channels=1, seed=4)
    assert fit_copy_index(images, images[: MIN_HOLDOUT - 1], seed=0) is None


def test_screening_data_counts_its_bytes() -> None:
    copy_index = make_index(DIGITS.images_NHWC[:600], DIGITS.images_NHWC[600:800])
    copy_index.is_copy(DIGITS.images_NHWC[800:810], 0.05)  # creates the derived arrays
    arrays = [array for array in vars(copy_index).values() if isinstance(array, np.ndarray) and array.size > 1001]
    assert len(arrays) == 4
    assert copy_index.nbytes == sum(array.nbytes for array in arrays)
    weights = {"a": np.zeros(10, np.float32)}
    assert ScreeningData(JudgeSettings(), weights, copy_index).nbytes == 40 + copy_index.nbytes


def test_an_index_is_loaded_as_stored_and_damaged_ones_are_refused() -> None:
    copy_index = make_index(DIGITS.images_NHWC[:600], DIGITS.images_NHWC[600:800])
    again = load_copy_index(copy_index.tensors(), size=8, channels=1)
    rest = DIGITS.images_NHWC[800:900]
    assert np.array_equal(again.is_copy(rest, 0.05), copy_index.is_copy(rest, 0.05))
    tensors = copy_index.tensors()
    damaged = [
        {name: array for name, array in tensors.items() if name != "rows"},
        tensors | {"rows": tensors["rows"].astype(np.int32)},
        tensors | {"rows": tensors["rows"][:, :-1]},
        tensors | {"rows": tensors["rows"][:0]},
        tensors | {"distance": tensors["distance"][:-1]},
        tensors | {"scale": np.array([99, 1])},
        tensors | {"scale": np.array([3, 7])},
        tensors | {"projection": tensors["projection"][:-1]},
    ]
    for parts in damaged:
        with pytest.raises(BundleError, match=r"sketch\.safetensors"):
            load_copy_index(parts, size=8, channels=1)


@pytest.fixture(scope="module")
def judge() -> LabelJudge:
    labelled = LabelledImages(DIGITS.images_NHWC[:1400], DIGITS.labels_N[:1400])
    settings = JudgeSettings(members=2, budget=Budget(steps=120, augmentation=Augmentation(shift=1)))
    return train_judge(labelled, settings, classes=10, seed=3)


@pytest.mark.usefixtures("one_thread")
def test_a_judge_confirms_right_labels_and_rejects_wrong_ones(judge: LabelJudge) -> None:
    images, labels = DIGITS.images_NHWC[1400:], DIGITS.labels_N[1400:]
    probabilities = judge.probabilities(images)
    assert probabilities.sum(1) == pytest.approx(1.0, abs=1e-5)
    assert (probabilities[np.arange(len(labels)), labels] >= 0.5).mean() > 0.9
    assert (probabilities[np.arange(len(labels)), (labels + 1) % 10] < 0.5).mean() > 0.97


def test_probabilities_do_not_depend_on_the_number_of_images(judge: LabelJudge) -> None:
    images = DIGITS.images_NHWC[1400:1450]
    whole = judge.probabilities(images, batch=16)
    parts = [judge.probabilities(images[begin : begin + 16][:5], batch=16) for begin in (0, 16, 32)]
    assert np.array_equal(np.concatenate(parts), np.concatenate([whole[:5], whole[16:21], whole[32:37]]))
    assert judge.probabilities(images[:0]).shape == (0, 10)


def test_a_judge_is_loaded_as_it_was_saved(judge: LabelJudge) -> None:
    weights = {name: weight.numpy() for name, weight in judge.state_dict().items()}
    settings = JudgeSettings(members=2)
    again = load_judge(settings, weights, size=8, channels=1, classes=10)
    images = DIGITS.images_NHWC[:40]
    assert np.array_equal(again.probabilities(images), judge.probabilities(images))
    for wrong in (JudgeSettings(members=3), JudgeSettings(members=2, width=8)):
        with pytest.raises(BundleError, match=r"judge\.safetensors"):
            load_judge(wrong, weights, size=8, channels=1, classes=10)


def test_members_differ_by_their_seeds(judge: LabelJudge) -> None:
    first, second = (list(member.state_dict().values()) for member in judge.members)
    assert not np.array_equal(first[0].numpy(), second[0].numpy())


def test_a_judge_of_labels_outside_the_classes_is_refused() -> None:
    labelled = LabelledImages(DIGITS.images_NHWC[:50], DIGITS.labels_N[:50] + 5)
    with pytest.raises(SourceError, match="labels"):
        train_judge(labelled, default_judge(8), classes=10, seed=0)


@pytest.mark.parametrize(
    ("label", "novelty", "floors", "expected"),
    [
        ((0.9, 0.6), 0.99, (0.5, 0.001), []),
        ((0.9, 0.4), 0.3, (None, None), ["40% of the samples of class 'owl'", "30% of the samples"]),
        ((), None, (None, None), []),
    ],
)
def test_floors_that_would_reject_most_samples_are_off_with_a_notice(
    label: tuple[float, ...], novelty: float | None, floors: tuple[float | None, float | None], expected: list[str]
) -> None:
    pass_rates = PassRates(label=label, novelty=novelty)
    assert (pass_rates.label_floor, pass_rates.novelty_floor) == floors
    notices = pass_rates.notices(("cat", "owl"))
    assert [any(part in notice for notice in notices) for part in expected] == [True] * len(notices)


@pytest.mark.parametrize(
    ("label", "floors", "expected"),
    [
        ((0.9, 0.5), (0.5, 0.5), ()),
        (
            (0.9, 0.4),
            (0.5, None),
            (
                "the judge confirms only 40% of the samples of class 'owl': "
                "images of these classes are not refused by label by default",
            ),
        ),
        (
            (0.1, 0.0),
            (None, None),
            (
                "the judge confirms only 0% of the samples of class 'owl', 10% of the samples of class 'cat': "
                "label_floor is off by default",
            ),
        ),
        ((), (), ()),
    ],
)
def test_a_floor_is_off_by_default_for_those_classes_that_the_judge_does_not_confirm(
    label: tuple[float, ...], floors: tuple[float | None, ...], expected: tuple[str, ...]
) -> None:
    pass_rates = PassRates(label=label)
    assert pass_rates.label_floors == floors
    assert pass_rates.notices(("cat", "owl")) == expected


def test_a_notice_names_ten_classes_at_most() -> None:
    names = tuple(f"class {number}" for number in range(200))
    (notice,) = PassRates(label=(0.9, *[0.1] * 199)).notices(names)
    assert notice.count("10% of the samples") == 10
    assert "less than half of 189 more classes" in notice


@pytest.mark.usefixtures("one_thread")
def test_a_trained_bundle_screens_its_own_samples(tmp_path: Path) -> None:
    source = load_source("digits")
    settings = default_settings(len(source)).model_copy(update={"epochs": 12})
    result = train_bundle(source, default_config(8, 1, "vae"), settings, tmp_path / "b", judge=default_judge(8))
    bundle = load_bundle(open_store(str(tmp_path / "b")))
    assert bundle.screening.judge == default_judge(8)
    assert len(bundle.info.passing.label) == 10
    assert (np.array(bundle.info.passing.label) > 0.3).all()
    assert bundle.info.passing.novelty > 0.9
    assert bundle.screening.pass_rates.notices(source.class_names) == result.fit.notices[-1:] * (
        bundle.info.passing.label_floor is None
    )
    again = refit(open_store(str(tmp_path / "b")), GaussianSettings(), tmp_path / "again")
    other = load_bundle(open_store(str(tmp_path / "again")))
    assert again.digest == other.digest
    assert other.screening.judge == bundle.screening.judge
    assert np.array_equal(other.screening.copy_index.rows_NK, bundle.screening.copy_index.rows_NK)
    assert other.info.passing != bundle.info.passing


@given(
    rows=st.lists(st.lists(st.integers(1, 1000), min_size=3, max_size=3), min_size=1, max_size=5),
    classes=st.integers(3, 40),
)
def test_soft_labels_are_the_most_likely_probabilities(rows: list[list[int]], classes: int) -> None:
    given_NC = np.zeros((len(rows), classes), dtype=np.float32)
    given_NC[:, -3:] = rows
    given_NC /= given_NC.sum(axis=1, keepdims=True)
    likely = SoftLabels.from_probabilities(given_NC)
    assert likely.labels_NK.shape == (len(rows), min(classes, MAX_LABELS))
    for row, labels_K in enumerate(likely.labels_NK.tolist()):
        target_C = soft_label(labels_K, likely.probability_NK[row].tolist(), classes)
        assert np.abs(target_C - given_NC[row]).max() < 3e-4
        assert target_C.sum() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("labels", "probabilities"),
    [([0, 3], [0.5, 0.5]), ([-1], [1.0]), ([0], [0.5, 0.5]), ([0, 1], [0.0, 0.0]), ([0, 1], [1.5, -0.5])],
)
def test_labels_and_probabilities_that_make_no_target_are_refused(
    labels: list[int], probabilities: list[float]
) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        soft_label(labels, probabilities, 3)


@pytest.mark.usefixtures("one_thread")
def test_a_mirrored_judge_finds_an_image_and_its_mirror_image_alike() -> None:
    images, labels = DIGITS.images_NHWC[:600], DIGITS.labels_N[:600]
    settings = JudgeSettings(mirrored=True, budget=Budget(steps=60, augmentation=Augmentation(shift=1)))
    judge = train_judge(LabelledImages(images, labels), settings, classes=10, seed=0)
    probability_NC = judge.probabilities(images[:40], batch=16)
    np.testing.assert_allclose(judge.probabilities(images[:40, :, ::-1], batch=16), probability_NC, atol=1e-6)
    assert judge.probabilities(images[:5], batch=16).tobytes() == probability_NC[:5].tobytes()
    weights = {name: weight.numpy() for name, weight in judge.state_dict().items()}
    again = load_judge(settings, weights, size=8, channels=1, classes=10)
    assert again.probabilities(images[:40], batch=16).tobytes() == probability_NC.tobytes()


@pytest.mark.usefixtures("one_thread")
def test_calibration_makes_a_judge_that_is_too_sure_as_sure_as_it_is_right() -> None:
    labelled = LabelledImages(DIGITS.images_NHWC[:300], DIGITS.labels_N[:300])
    holdout = LabelledImages(DIGITS.images_NHWC[300:1000], DIGITS.labels_N[300:1000])
    rest = LabelledImages(DIGITS.images_NHWC[1000:], DIGITS.labels_N[1000:])
    judge = train_judge(labelled, JudgeSettings(members=2, budget=Budget(steps=40)), classes=10, seed=0)
    with torch.no_grad():
        for member in judge.members:
            member.head.weight.mul_(6.0)
            member.head.bias.mul_(6.0)
    before = judge.probabilities(rest.images_NHWC)
    temperature = calibrate(judge, holdout)
    after = judge.probabilities(rest.images_NHWC)
    assert temperature > 2.0
    assert calibration_error(after, rest.labels_N) < 0.7 * calibration_error(before, rest.labels_N)
    assert surprise(after, rest.labels_N) < surprise(before, rest.labels_N)
    assert calibrate(judge, holdout) == pytest.approx(1.0, abs=0.01)
    few = LabelledImages(holdout.images_NHWC[:50], holdout.labels_N[:50])
    assert calibrate(judge, few) == 1.0
    assert judge.probabilities(rest.images_NHWC[:9]) == pytest.approx(after[:9], abs=1e-3)


def surprise(probability_NC: np.ndarray, labels_N: np.ndarray) -> float:
    return -float(np.log(probability_NC[np.arange(len(labels_N)), labels_N]).mean())


def test_the_calibration_error_is_the_mean_difference_of_confidence_and_accuracy() -> None:
    sure = np.array([[0.9, 0.1]] * 10)
    assert calibration_error(sure, np.zeros(10, dtype=np.int64)) == pytest.approx(0.1)
    assert calibration_error(sure, np.array([0] * 9 + [1])) == pytest.approx(0.0)
    both = np.concatenate([sure, np.array([[0.6, 0.4]] * 10)])
    assert calibration_error(both, np.array([0] * 9 + [1] + [1] * 10)) == pytest.approx(0.3)


@pytest.mark.usefixtures("one_thread")
def test_mirroring_is_harmless_for_symmetric_images_and_not_for_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirroring, "_STEPS", 120)
    digits = [
        LabelledImages(DIGITS.images_NHWC[part], DIGITS.labels_N[part]) for part in (slice(1200), slice(1200, None))
    ]
    assert not is_mirroring_harmless(*digits, classes=10, seed=0)
    symmetric = [
        LabelledImages(np.maximum(part.images_NHWC, part.images_NHWC[:, :, ::-1]), part.labels_N) for part in digits
    ]
    assert is_mirroring_harmless(*symmetric, classes=10, seed=0)
    on_disk = [
        LabelledImages(cast(np.ndarray, ImageRows(part.images_NHWC)), part.labels_N)
        for part in (digits[1], symmetric[1])
    ]
    assert not is_mirroring_harmless(digits[0], on_disk[0], classes=10, seed=0)
    assert is_mirroring_harmless(symmetric[0], on_disk[1], classes=10, seed=0)
    assert not is_mirroring_harmless(
        symmetric[0], LabelledImages(symmetric[1].images_NHWC[:99], symmetric[1].labels_N[:99]), classes=10, seed=0
    )


def test_settings_that_came_later_are_left_out_of_the_json_by_default() -> None:
    assert sorted(JudgeSettings().model_dump(mode="json")) == ["budget", "members", "width"]
    changed = JudgeSettings(mirrored=True, calibrated=True)
    assert JudgeSettings.model_validate(changed.model_dump(mode="json")) == changed
    assert changed.training_budget.augmentation.mirror
    assert not JudgeSettings().training_budget.augmentation.mirror

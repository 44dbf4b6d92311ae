"""Copies, overfitting and duplicates are found; a perfect generator passes."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from generator.curation.quality.duplicates import duplicates
from generator.curation.quality.novelty import make_folds, novelty, protection
from generator.curation.quality.shifts import shifted_distances
from generator.errors import MeasureError
from generator.models.features.neighbours import nearest_neighbours

DIMS = 6


def normal_points(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, DIMS))


TRAIN, HOLDOUT = normal_points(3000, 0), normal_points(500, 1)


def test_a_perfect_generator_is_novel() -> None:
    found = novelty(normal_points(4000, 2), TRAIN, HOLDOUT)
    assert found.share < 0.01
    assert found.identical == 0
    assert found.authenticity == pytest.approx(found.holdout_authenticity, abs=0.06)
    assert found.median == pytest.approx(found.holdout_median, rel=0.05)
    measured = found.protection
    assert (measured.subsamples, measured.size) == (6, 500)
    assert measured.score > 0.9
    assert measured.low is not None
    assert measured.high is not None
    assert measured.low <= measured.score <= measured.high
    assert measured.high > 0.99


def test_a_training_set_larger_than_the_holdout_would_accuse_a_perfect_generator() -> None:
    """Six times as many: the nearest of all is a training image six times in seven, and 2 (1 - 6/7) is 0.29."""
    samples = normal_points(4000, 2)
    to_holdout_N = nearest_neighbours(samples, HOLDOUT).distances_QK[:, 0]
    naive = protection([nearest_neighbours(samples, TRAIN).distances_QK[:, 0] < to_holdout_N], len(TRAIN))
    assert naive.score == pytest.approx(2.0 / 7.0, abs=0.04)
    assert novelty(samples, TRAIN, HOLDOUT).protection.score > 3.0 * naive.score


def test_a_planted_copy_is_caught() -> None:
    samples = normal_points(1000, 2)
    samples[123] = TRAIN[77]
    samples[124] = TRAIN[78] + 1e-3
    found = novelty(samples, TRAIN, HOLDOUT)
    assert found.identical == 1
    assert found.nearest_copies[:2] == (123, 124)


def test_distances_under_shifts_take_little_memory_and_are_exact() -> None:
    """Of 300 images of 64 pixels at once, their shifts alone would take 265 MB."""
    rng, shape = np.random.default_rng(0), (64, 64, 3)
    queries_QD, points_PD = (rng.integers(0, 256, (count, 64 * 64 * 3), dtype=np.uint8) for count in (300, 20))
    rows_QM = rng.integers(0, 20, (300, 4))
    tracemalloc.start()
    found_Q = shifted_distances(queries_QD, points_PD, rows_QM, shape)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6
    for query in (0, 36, 37, 299):
        padded = np.pad(queries_QD[query].reshape(shape), ((1, 1), (1, 1), (0, 0)), mode="edge").astype(int)
        moved = [padded[y : y + 64, x : x + 64].ravel() for y in range(3) for x in range(3)]
        near = points_PD[rows_QM[query]].astype(int)
        assert found_Q[query] == min(np.sqrt(((one - other) ** 2).sum()) for one in moved for other in near)


def test_distances_under_shifts_see_through_moves_of_one_pixel_and_no_more() -> None:
    """Images of a few bright dots: a shifted image is as far from the original as from any other image."""
    rng = np.random.default_rng(0)

    def dots(count: int) -> np.ndarray:
        images_NHW = np.zeros((count, 12, 12), dtype=np.uint8)
        for image_HW in images_NHW:
            image_HW[rng.integers(2, 10, 6), rng.integers(2, 10, 6)] = rng.integers(100, 256, 6)
        return images_NHW

    train, holdout, samples = dots(1000), dots(300), dots(500)
    samples[11] = np.roll(train[345], 1, axis=1)
    samples[12] = np.roll(train[346], (-1, 1), axis=(0, 1))
    samples[13] = np.roll(train[347], 2, axis=0)
    flat = [each.reshape(len(each), -1) for each in (samples, train, holdout)]
    found = novelty(flat[0], flat[1], flat[2], shape=(12, 12, 1))
    every_PQ = np.tile(np.arange(1000), (3, 1))
    assert shifted_distances(flat[0][11:14], flat[1], every_PQ, (12, 12, 1)).round(6).tolist()[:2] == [0.0, 0.0]
    assert shifted_distances(flat[0][11:14], flat[1], every_PQ, (12, 12, 1))[2] > 100.0
    assert found.identical == 0
    assert found.shifted is not None
    assert found.shifted.share < 0.02
    assert novelty(flat[0], flat[1], flat[2]).shifted is None


def test_a_copy_among_smooth_images_moved_by_a_pixel_is_named() -> None:
    rng = np.random.default_rng(0)

    def blobs(count: int) -> np.ndarray:
        place_N211 = rng.uniform(4.0, 12.0, (count, 2, 1, 1))
        wide_N211 = rng.uniform(1.5, 4.0, (count, 2, 1, 1))
        row_HW, column_HW = np.mgrid[:16, :16]
        far_NHW = ((row_HW - place_N211[:, 0]) / wide_N211[:, 0]) ** 2
        far_NHW += ((column_HW - place_N211[:, 1]) / wide_N211[:, 1]) ** 2
        noise_NHW = rng.normal(size=(count, 16, 16)) * 15.0
        return np.clip(200.0 * np.exp(-far_NHW / 2) + 30.0 + noise_NHW, 0, 255).astype(np.uint8)

    train, holdout, samples = blobs(1000), blobs(300), blobs(500)
    samples[11] = np.pad(train[345], ((0, 0), (1, 0)), mode="edge")[:, :-1]
    flat = [each.reshape(len(each), -1) for each in (samples, train, holdout)]
    found = novelty(flat[0], flat[1], flat[2], shape=(16, 16, 1))
    assert found.shifted is not None
    assert 11 not in found.nearest_copies[:1]
    assert found.shifted.nearest_copies[0] == 11


def test_an_overfitted_generator_is_caught() -> None:
    rng = np.random.default_rng(3)
    samples = TRAIN[rng.integers(0, len(TRAIN), 2000)] + rng.normal(size=(2000, DIMS)) * 0.02
    found = novelty(samples, TRAIN, HOLDOUT)
    assert found.share > 0.5
    assert found.authenticity < 0.1
    assert found.authenticity < found.holdout_authenticity - 0.3
    assert found.protection.high is not None
    assert found.protection.score < 0.9
    assert found.protection.high < novelty(normal_points(2000, 4), TRAIN, HOLDOUT).protection.score


def test_an_overfitted_generator_has_no_protection_where_sizes_are_equal() -> None:
    rng = np.random.default_rng(3)
    train, holdout = TRAIN[:500], HOLDOUT
    samples = train[rng.integers(0, 500, 2000)] + rng.normal(size=(2000, DIMS)) * 0.02
    measured = novelty(samples, train, holdout).protection
    assert measured.score < 0.02
    assert (measured.low, measured.high, measured.subsamples) == (None, None, 1)


def test_novelty_depends_on_the_seed_alone() -> None:
    samples = normal_points(300, 2)
    assert novelty(samples, TRAIN, HOLDOUT, seed=4) == novelty(samples, TRAIN, HOLDOUT, seed=4)
    assert novelty(samples, TRAIN, HOLDOUT, seed=4).protection != novelty(samples, TRAIN, HOLDOUT, seed=5).protection


def test_the_whole_training_set_is_searched_whatever_the_subsamples() -> None:
    """3100 images: six subsamples of 500 and a rest of 100. Copies of all of them are found."""
    train = normal_points(3100, 0)
    found = novelty(train.copy(), train, HOLDOUT)
    assert found.identical == 3100


@pytest.mark.parametrize(("train", "holdout", "count", "size"), [(3100, 500, 6, 500), (60, 60, 1, 60), (9, 60, 1, 9)])
def test_subsamples_are_disjoint_and_of_the_holdouts_size(train: int, holdout: int, count: int, size: int) -> None:
    folds = make_folds(train, holdout, 0)
    assert [len(rows) for rows in folds.rows] == [size] * count
    assert sorted(np.concatenate([*folds.rows, folds.rest]).tolist()) == list(range(train))


def test_sets_that_do_not_fit_are_refused() -> None:
    with pytest.raises(MeasureError, match="holdout"):
        novelty(normal_points(9, 2), TRAIN, HOLDOUT[:, :3])
    with pytest.raises(MeasureError, match="synthetic"):
        novelty(np.zeros((9, DIMS)), TRAIN, HOLDOUT)
    with pytest.raises(MeasureError, match="holdout"):
        novelty(normal_points(9, 2), TRAIN, HOLDOUT[:1])


def test_duplicates_exact_and_near() -> None:
    images = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 1), dtype=np.uint8)
    images[10] = images[20] = images[30]
    images[40] = images[50]
    images[40, 0, 0, 0] ^= 1
    found = duplicates(images, threshold=5.0)
    assert (found.images, found.exact, found.near) == (300, 2, 5)
    assert found.pairs[-1] == (40, 50)
    assert {row for pair in found.pairs for row in pair} == {10, 20, 30, 40, 50}
    assert duplicates(images, threshold=0.5).near == 3
    with pytest.raises(MeasureError):
        duplicates(images[:1], threshold=5.0)

"""Each measure on synthetic codes with a known result."""

from __future__ import annotations

import numpy as np
import pytest

from generator.curation.diagnosis.clustering import Hopkins, agreement, hopkins, silhouette
from generator.curation.diagnosis.code_subset import choose_codes, choose_rows
from generator.curation.diagnosis.convexity import OffSupport, Support, fit_support, midpoints
from generator.curation.diagnosis.dimension import Dimension, active_dimensions, two_nn
from generator.curation.diagnosis.topology import Loop, measure_loop
from generator.curation.diagnosis.two_sample import Accuracy, Discrepancy, classifier_test, mmd_test
from generator.curation.diagnosis.unmeasured import Unmeasured
from generator.errors import SourceError
from generator.models.latents.codes import Codes
from tests.support.sample_codes import blobs, gaussian, ring


@pytest.mark.slow
def test_two_sample_tests_hold_their_level() -> None:
    rng = np.random.default_rng(0)
    low = {"classifier": 0, "mmd": 0}
    for seed in range(12):
        first, second = rng.normal(size=(2, 100, 4))
        low["classifier"] += classifier_test(first, second, seed=seed).p_value < 0.05  # type: ignore[union-attr]
        low["mmd"] += mmd_test(first, second, seed=seed).p_value < 0.05  # type: ignore[union-attr]
    assert max(low.values()) <= 3  # of 12 at the 5% level; more than 3 has a probability of 0.2%


@pytest.mark.parametrize("dims", [1, 2, 24])
def test_two_sample_tests_find_a_shift(dims: int) -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, 300, dims))
    second[:, 0] += 1.5
    accuracy, discrepancy = classifier_test(first, second), mmd_test(first, second)
    assert isinstance(accuracy, Accuracy)
    assert isinstance(discrepancy, Discrepancy)
    assert accuracy.low > 0.55
    assert max(accuracy.p_value, discrepancy.p_value) < 0.01
    assert discrepancy.mmd2 > 0.0


def test_two_sample_tests_tell_a_ring_from_its_gaussian() -> None:
    codes_ND = ring(800).codes_ND
    cloud_ND = np.random.default_rng(2).multivariate_normal(codes_ND.mean(axis=0), np.cov(codes_ND.T), 800)
    accuracy, discrepancy = classifier_test(cloud_ND, codes_ND), mmd_test(cloud_ND, codes_ND)
    assert isinstance(accuracy, Accuracy)
    assert accuracy.accuracy > 0.65
    assert isinstance(discrepancy, Discrepancy)
    assert discrepancy.p_value < 0.05


def test_mmd_is_unbiased() -> None:
    rng = np.random.default_rng(3)
    found = [mmd_test(*rng.normal(size=(2, 60, 2)), seed=seed).mmd2 for seed in range(30)]  # type: ignore[union-attr]
    assert abs(np.mean(found)) < 3.0 * np.std(found) / np.sqrt(30)


@pytest.mark.parametrize("dims", [1, 2, 5])
def test_intrinsic_dimension_of_a_plane_in_space(dims: int) -> None:
    rng = np.random.default_rng(dims)
    plane_ND = rng.normal(size=(1500, dims)) @ np.linalg.qr(rng.normal(size=(12, 12)))[0][:dims]
    found = two_nn(plane_ND)
    assert isinstance(found, Dimension)
    assert found.dimension == pytest.approx(dims, rel=0.15)


def test_intrinsic_dimension_of_a_swiss_roll_is_two() -> None:
    rng = np.random.default_rng(0)
    turn_N = 1.5 * np.pi * (1.0 + 2.0 * rng.uniform(size=1500))
    roll_ND = np.stack([turn_N * np.cos(turn_N), 20.0 * rng.uniform(size=1500), turn_N * np.sin(turn_N)], axis=1)
    found = two_nn(roll_ND)
    assert isinstance(found, Dimension)
    assert found.dimension == pytest.approx(2.0, abs=0.3)


def test_active_dimensions() -> None:
    codes_ND = np.random.default_rng(0).normal(size=(500, 3)) * [1.0, 0.05, 0.0]
    assert active_dimensions(codes_ND, prior=True).tolist() == [True, False, False]
    assert active_dimensions(codes_ND, prior=False).tolist() == [True, True, False]
    assert not active_dimensions(np.zeros((10, 3)), prior=False).any()


def test_hopkins_is_a_half_without_clusters_and_high_with_them() -> None:
    rng = np.random.default_rng(4)
    even, clustered, one = (
        hopkins(codes_ND) for codes_ND in (rng.uniform(size=(500, 2)), blobs(500).codes_ND, rng.normal(size=(500, 20)))
    )
    assert isinstance(even, Hopkins)
    assert isinstance(clustered, Hopkins)
    assert isinstance(one, Hopkins)
    assert even.against_uniform == pytest.approx(0.5, abs=0.12)
    assert clustered.against_uniform > 0.9
    assert clustered.against_gaussian > 0.7
    assert one.against_gaussian == pytest.approx(0.5, abs=0.05)
    assert one.against_uniform > 0.9  # the caveat: not clustered at all
    assert one.caveat
    assert not even.caveat


def test_silhouette_and_agreement() -> None:
    apart = blobs(400)
    labels_N = apart.labels_N
    assert labels_N is not None
    shuffled_N = np.random.default_rng(0).permutation(labels_N)
    assert silhouette(apart.codes_ND, labels_N) > 0.7  # type: ignore[operator]
    assert abs(silhouette(apart.codes_ND, shuffled_N)) < 0.1  # type: ignore[arg-type]
    assert agreement(apart.codes_ND, labels_N, apart.codes_ND, labels_N) == pytest.approx(1.0)
    assert agreement(apart.codes_ND, shuffled_N, apart.codes_ND, shuffled_N) == pytest.approx(0.5, abs=0.1)
    assert isinstance(silhouette(apart.codes_ND, np.zeros(400, dtype=np.int64)), Unmeasured)


def test_a_ring_has_a_loop_and_clouds_have_none() -> None:
    found = measure_loop(ring(400).codes_ND)
    assert isinstance(found, Loop)
    assert found.ring
    for codes_ND in (
        gaussian(400, dims=2).codes_ND,
        blobs(400).codes_ND,
        np.random.default_rng(0).uniform(size=(400, 2)),
    ):
        none = measure_loop(codes_ND)
        assert isinstance(none, Loop)
        assert not none.ring


def test_gaussian_noise_is_never_called_a_ring() -> None:
    rng = np.random.default_rng(5)
    found = [
        measure_loop(rng.normal(size=(count, 2)), references=4, landmarks=80)
        for count in (60, 120, 240)
        for _ in range(5)
    ]
    assert not any(isinstance(one, Loop) and one.ring for one in found)


def test_midpoints_and_a_gaussian_leave_the_support_of_a_ring() -> None:
    subset = choose_codes(ring(2000), seed=0)
    support = fit_support(subset)
    assert isinstance(support, Support)
    points_BD, labels_B = midpoints(subset.shape_SD, subset.shape_labels_S)
    cloud_BD = np.random.default_rng(0).multivariate_normal(np.zeros(2), np.cov(subset.train_ND.T), 2000)
    shares = [
        support.measure_off_support(points_BD, labels_B),
        support.measure_off_support(cloud_BD, np.zeros(2000, dtype=np.int64)),
    ]
    assert all(isinstance(found, OffSupport) and found.share > 0.5 for found in shares)
    own = support.measure_off_support(subset.holdout_HD, subset.holdout_labels_H)
    assert isinstance(own, OffSupport)
    assert own.share == pytest.approx(0.05, abs=0.01)


def test_midpoints_of_a_cloud_stay_on_its_support() -> None:
    subset = choose_codes(gaussian(1500, dims=3), seed=0)
    support = fit_support(subset)
    assert isinstance(support, Support)
    found = support.measure_off_support(*midpoints(subset.shape_SD, subset.shape_labels_S))
    assert isinstance(found, OffSupport)
    assert found.share < 0.05


def test_midpoints_are_of_one_class() -> None:
    codes = blobs(300)
    assert codes.labels_N is not None
    points_BD, labels_B = midpoints(codes.codes_ND, codes.labels_N)
    centre_C = [codes.codes_ND[codes.labels_N == label].mean(axis=0) for label in (0, 1)]
    for label, centre_D in enumerate(centre_C):
        assert np.linalg.norm(points_BD[labels_B == label] - centre_D, axis=1).max() < 4.0


@pytest.mark.parametrize("codes_ND", [np.zeros((0, 2)), np.zeros((1, 2)), np.zeros((100, 2)), np.eye(3)])
def test_too_few_or_equal_codes_are_not_measurable(codes_ND: np.ndarray) -> None:
    labels_N = np.zeros(len(codes_ND), dtype=np.int64)
    for found in (two_nn(codes_ND), hopkins(codes_ND), measure_loop(codes_ND), silhouette(codes_ND, labels_N)):
        assert isinstance(found, Unmeasured)
        assert found.why
    assert isinstance(mmd_test(codes_ND, codes_ND), Unmeasured)


def test_one_dimension_has_no_rings() -> None:
    assert isinstance(measure_loop(np.random.default_rng(0).normal(size=(100, 1))), Unmeasured)


def test_nan_is_refused_and_rare_classes_are_kept() -> None:
    broken = Codes(np.full((5, 2), np.nan), None, np.zeros((1, 2)), None)
    with pytest.raises(SourceError):
        choose_codes(broken, seed=0)
    labels_N = np.zeros(50_000, dtype=np.int64)
    labels_N[:7] = 1
    rows = choose_rows(labels_N, 1000, seed=3)
    assert (labels_N[rows] == 1).sum() == 7
    assert len(rows) == 1000
    assert np.array_equal(rows, choose_rows(labels_N, 1000, seed=3))

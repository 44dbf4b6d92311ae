"""Fidelity, coverage and neighbours: known results, and the effect of known defects."""

from __future__ import annotations

import numpy as np
import pytest

from generator.curation.quality.coverage import coverage
from generator.curation.quality.fidelity import frechet_distance, kernel_distance
from generator.errors import MeasureError
from generator.models.features.neighbours import nearest_neighbours


def normal(count: int, dims: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dims))


def clusters(count: int, kinds: int, seed: int) -> np.ndarray:
    """Points in 4 dimensions around ``kinds`` of four far corners."""
    rng = np.random.default_rng(seed)
    corners = np.eye(4)[:kinds] * 20.0
    return corners[rng.integers(0, kinds, count)] + rng.normal(size=(count, 4))


def whitened(points_ND: np.ndarray) -> np.ndarray:
    """The points, transformed to mean 0 and covariance identity."""
    centred_ND = points_ND - points_ND.mean(0)
    factor = np.linalg.cholesky(np.linalg.inv(np.cov(centred_ND.T)))
    return centred_ND @ factor


def test_frechet_distance_of_two_gaussians() -> None:
    """Diagonal covariances commute: |m|^2 + sum (s1 - s2)^2."""
    base1, base2 = whitened(normal(500, 3, 0)), whitened(normal(400, 3, 1))
    s1, s2, m = np.array([1.0, 2.0, 3.0]), np.array([2.0, 0.5, 3.0]), np.array([1.0, -2.0, 0.5])
    expected = (m**2).sum() + ((s1 - s2) ** 2).sum()
    assert frechet_distance(base1 * s1, base2 * s2 + m) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_where_covariances_do_not_commute() -> None:
    from scipy.linalg import sqrtm

    first, second = normal(300, 4, 0) @ normal(4, 4, 1), normal(300, 4, 2) @ normal(4, 4, 3) + 1.0
    c1, c2 = np.cov(first.T), np.cov(second.T)
    mean = first.mean(0) - second.mean(0)
    expected = mean @ mean + np.trace(c1 + c2 - 2.0 * sqrtm(c1 @ c2).real)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-6)


def test_fewer_points_than_dimensions_and_constant_dimensions_are_measured() -> None:
    points = np.concatenate([normal(20, 50, 0), np.zeros((20, 5))], axis=1)
    assert frechet_distance(points, points) == pytest.approx(0.0, abs=1e-6)
    assert frechet_distance(points, points + 1.0) == pytest.approx(55.0, abs=1e-6)


@pytest.mark.slow
def test_kernel_distance_is_unbiased_and_sees_a_shift() -> None:
    real, same, other = normal(3000, 8, 0), normal(3000, 8, 1), normal(3000, 8, 2) + 0.3
    found = kernel_distance(real, same, subsets=30, size=300)
    assert abs(found.mean) < 3.0 * found.spread / 30**0.5 + 0.003
    assert kernel_distance(real, other, subsets=30, size=300).mean > 10.0 * abs(found.mean)
    one, again, another = (kernel_distance(real, same, subsets=10, size=300, seed=seed) for seed in (1, 1, 2))
    assert one == again != another


def test_identical_sets_cover_each_other_wholly() -> None:
    points = normal(300, 6, 0)
    found = coverage(points, points)
    assert (found.precision, found.recall, found.coverage) == (1.0, 1.0, 1.0)


def test_a_perfect_generator_has_density_and_coverage_near_one() -> None:
    found = coverage(normal(2000, 4, 0), normal(2000, 4, 1))
    assert found.density == pytest.approx(1.0, abs=0.06)
    assert found.coverage == pytest.approx(1.0 - 0.5**5, abs=0.02)  # Naeem et al., equation 13


def test_a_dropped_mode_costs_recall_and_coverage_but_no_precision() -> None:
    whole, half = coverage(clusters(800, 4, 0), clusters(800, 4, 1)), coverage(clusters(800, 4, 0), clusters(800, 2, 1))
    assert whole.recall > 0.9
    assert half.recall < 0.6
    assert half.coverage < 0.6 < whole.coverage
    assert half.precision > whole.precision - 0.05


def test_noise_costs_precision_and_density() -> None:
    noisy = np.concatenate([clusters(400, 4, 1), normal(400, 4, 2) * 60.0])
    found = coverage(clusters(800, 4, 0), noisy)
    assert found.precision < 0.6
    assert found.density < 0.6
    assert found.recall > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("kind", ["uint8", "float64", "far from the origin"])
def test_neighbours_are_those_of_brute_force(kind: str, k: int) -> None:
    """More points than one block holds, and more queries."""
    rng = np.random.default_rng(3)
    points, queries = rng.normal(size=(9500, 6)), rng.normal(size=(1100, 6))
    if kind == "uint8":
        points, queries = (np.clip(each * 60 + 128, 0, 255).astype(np.uint8) for each in (points, queries))
    if kind == "far from the origin":
        points, queries = points + 1e4, queries + 1e4
    found = nearest_neighbours(queries, points, k)
    squared = np.zeros((1100, 9500))
    for dim in range(6):
        squared += (queries[:, dim, None].astype(float) - points[:, dim].astype(float)) ** 2
    np.testing.assert_allclose(found.distances_QK, np.sqrt(np.sort(squared, axis=1)[:, :k]), rtol=1e-12)
    at = np.sqrt(np.take_along_axis(squared, found.rows_QK, axis=1))
    np.testing.assert_allclose(at, found.distances_QK, rtol=1e-12)


def test_a_point_is_not_its_own_neighbour_but_its_twin_is() -> None:
    points = normal(2500, 5, 0)
    points[2400] = points[7]
    found = nearest_neighbours(points, points, exclude_Q=np.arange(2500))
    assert np.all(found.rows_QK[:, 0] != np.arange(2500))
    assert (int(found.rows_QK[7, 0]), int(found.rows_QK[2400, 0])) == (2400, 7)
    assert np.flatnonzero(found.distances_QK[:, 0] == 0.0).tolist() == [7, 2400]


def test_points_that_are_all_alike_are_at_distance_zero() -> None:
    points = np.full((3000, 4), 7, dtype=np.uint8)
    found = nearest_neighbours(points, points, 3, exclude_Q=np.arange(3000))
    assert np.all(found.distances_QK == 0.0)
    assert np.all(found.rows_QK != np.arange(3000)[:, None])


def test_bad_points_are_refused_in_words() -> None:
    points, broken = normal(50, 3, 0), normal(50, 3, 1)
    broken[4, 1] = np.nan
    for other in (np.ones((50, 3)), points[:1], broken, normal(50, 4, 1), normal(50, 3, 1)[0]):
        for measured in (frechet_distance, kernel_distance, coverage):
            with pytest.raises(MeasureError, match="synthetic"):
                measured(points, other)
    with pytest.raises(MeasureError, match="at least 6 images"):
        coverage(points, points[:5])
    with pytest.raises(MeasureError, match="at least 50"):
        nearest_neighbours(points[:3], points[:49], 50)

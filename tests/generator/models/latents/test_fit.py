"""Fitting mixtures: it finds the clusters, works with few codes, and warns."""

from __future__ import annotations

import numpy as np
import pytest

from generator.errors import SourceError
from generator.models.latents.codes import Codes
from generator.models.latents.fitting.mixture import fit_mixture
from generator.models.latents.fitting.shrinkage import shrink
from generator.models.latents.quantiles import MIN_HOLDOUT
from generator.spec.seeding import noise


def clustered(count: int, centres_KD: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return centres_KD[rng.integers(0, len(centres_KD), count)] + 0.3 * rng.normal(size=(count, centres_KD.shape[1]))


CENTRES = np.array([[0.0, 0.0, 0.0], [6.0, 0.0, 0.0], [0.0, 6.0, 0.0]])


@pytest.mark.parametrize("criterion", ["bic", "likelihood"])
def test_it_finds_as_many_clusters_as_there_are(criterion: str) -> None:
    codes, holdout = clustered(600, CENTRES, 0), clustered(200, CENTRES, 1)
    fit = fit_mixture(Codes(codes, None, holdout, None), criterion=criterion)  # type: ignore[arg-type]
    assert fit.mixture.classes == 0
    if criterion == "bic":
        assert fit.mixture.clusters == (3,)
    assert 3 <= fit.mixture.clusters[0] <= 5
    assert fit.warnings == ()


def test_each_class_is_sampled_from_its_own_codes() -> None:
    labels_N = np.arange(900) % 3
    codes = CENTRES[labels_N] + 0.3 * np.random.default_rng(0).normal(size=(900, 3))
    fit = fit_mixture(Codes(codes[:600], labels_N[:600], codes[600:], labels_N[600:], ("a", "b", "c")))
    labels_B = np.arange(300) % 3
    z_BD = fit.mixture.sample(noise(0, np.arange(300), np.zeros(300, dtype=np.int64), 3), labels_B).z_BD
    nearest_B = np.linalg.norm(z_BD[:, None] - CENTRES[None], axis=2).argmin(axis=1)
    np.testing.assert_array_equal(nearest_B, labels_B)


def test_the_same_seed_gives_the_same_bits() -> None:
    codes, holdout = clustered(500, CENTRES, 0), clustered(100, CENTRES, 1)
    labels_N, labels_H = np.arange(500) % 4, np.arange(100) % 4
    first, second = (
        fit_mixture(Codes(codes, labels_N, holdout, labels_H, ("a", "b", "c", "d")), seed=7).mixture.state()
        for _ in range(2)
    )
    assert first[0] == second[0]
    assert all(first[1][name].tobytes() == second[1][name].tobytes() for name in first[1])


def test_the_floor_refuses_its_share_of_held_out_codes() -> None:
    codes, holdout = clustered(2000, CENTRES, 0), clustered(1000, CENTRES, 1)
    mixture = fit_mixture(Codes(codes, None, holdout, None)).mixture
    density = mixture.log_prob(holdout, np.zeros(1000, dtype=np.int64))
    for quantile in (0.01, 0.05, 0.5):
        rejected = float((density < mixture.density_floor(quantile)[0]).mean())
        assert rejected == pytest.approx(quantile, abs=0.002)


def test_thirty_codes_in_twenty_four_dimensions_make_a_usable_mixture() -> None:
    rng = np.random.default_rng(0)
    codes, holdout, unseen = (rng.normal(size=(count, 24)) for count in (30, 3, 500))
    fit = fit_mixture(Codes(codes, None, holdout, None))
    labels = np.zeros(500, dtype=np.int64)
    truth = -0.5 * (24 * np.log(2 * np.pi) + (unseen**2).sum(axis=1)).mean()
    assert fit.mixture.clusters == (1,)
    assert fit.mixture.log_prob(unseen, labels).mean() > truth - 15.0
    assert len(fit.warnings) == 2


def test_too_few_codes_for_the_clusters_asked_for_is_said() -> None:
    fit = fit_mixture(Codes(clustered(45, CENTRES, 0), None, clustered(MIN_HOLDOUT, CENTRES, 1), None), clusters=10)
    assert fit.mixture.clusters == (4,)
    assert [warning.class_name for warning in fit.warnings] == ["all images"]
    assert "not 10" in fit.warnings[0].message


def test_a_constant_dimension_is_no_obstacle() -> None:
    codes = np.column_stack([clustered(300, CENTRES, 0), np.full(300, 0.25)])
    mixture = fit_mixture(Codes(codes[:250], None, codes[250:], None)).mixture
    z_BD = mixture.sample(noise(0, np.arange(50), np.zeros(50, dtype=np.int64), 4), np.zeros(50, dtype=np.int64)).z_BD
    np.testing.assert_allclose(z_BD[:, 3], 0.25, atol=0.05)


def test_shrinking_keeps_large_clusters_and_draws_small_ones_to_the_pool() -> None:
    covariances = np.stack([np.eye(3), 9.0 * np.eye(3)])
    large = shrink(covariances, np.array([0.5, 0.5]), 1_000_000)
    np.testing.assert_allclose(large, covariances, rtol=1e-4)
    small = shrink(covariances, np.array([0.5, 0.5]), 4)
    assert 1.0 < small[0, 0, 0] < small[1, 0, 0] < 9.0


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        (np.zeros((50, 3)), "codes that differ"),
        (np.zeros((1, 3)), "at least 2"),
        (np.full((50, 3), np.nan), "finite"),
    ],
)
def test_codes_that_cannot_be_fitted_name_their_class(codes: np.ndarray, expected: str) -> None:
    good = clustered(100, CENTRES, 0)
    labels = np.repeat([0, 1], [len(codes), len(good)])
    with pytest.raises(SourceError, match=expected) as refused:
        fit_mixture(Codes(np.concatenate([codes, good]), labels, good, np.ones(100, dtype=np.int64), ("zebra", "lion")))
    assert "zebra" in refused.value.field


@pytest.mark.parametrize("held_out", [3, 40])
@pytest.mark.parametrize("tails", ["light", "heavy"])
def test_a_density_floor_refuses_at_most_its_share_of_samples(held_out: int, tails: str) -> None:
    rng = np.random.default_rng(0)
    codes_ND, holdout_HD = (
        rng.normal(size=(count, 48)) * (1.0 if tails == "light" else rng.pareto(2.0, size=(count, 1)))
        for count in (60, held_out)
    )
    mixture = fit_mixture(Codes(codes_ND, None, holdout_HD, None)).mixture
    labels = np.zeros(2000, dtype=np.int64)
    drawn = mixture.sample(noise(1, np.arange(2000), labels, 48), labels)
    accepted = mixture.log_prob(drawn.z_BD, labels) >= mixture.density_floor(0.05)[0]
    assert accepted.mean() > 0.93

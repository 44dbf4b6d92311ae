"""The polar mixture: its centre is found, its density has no discontinuity, and codes must be two-dimensional."""

from __future__ import annotations

import math

import numpy as np
import pytest

from generator.errors import SourceError
from generator.models.latents.codes import Codes
from generator.models.latents.config import GaussianSettings, PolarSettings, SamplerSettings
from generator.models.latents.fitting.fit import fit
from generator.models.latents.fitting.polar import fit_polar, ring_centre
from generator.spec.seeding import noise


def ring(count: int, seed: int, low: float = -math.pi, high: float = math.pi) -> np.ndarray:
    rng = np.random.default_rng(seed)
    angle, radius = rng.uniform(low, high, count), rng.normal(3.0, 0.15, count)
    return np.stack([4.0 + radius * np.cos(angle), -1.0 + radius * np.sin(angle)], axis=1)


def radii_of(sampler: SamplerSettings, count: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """(distance from the true centre, angle) of samples of a distribution fitted to a full ring without labels."""
    distribution = fit(Codes(ring(2000, 0), None, ring(400, 1), None), sampler).distribution
    labels = np.zeros(count, dtype=np.int64)
    z = distribution.sample(noise(0, np.arange(count), labels, 2), labels).z_BD - np.array([4.0, -1.0])
    return np.hypot(*z.T), np.arctan2(z[:, 1], z[:, 0])


@pytest.mark.parametrize("part", [1.0, 0.5])
def test_the_centre_is_found_beside_stray_codes(part: float) -> None:
    codes = np.concatenate([ring(1000, 0, -math.pi * part, math.pi * part), np.array([[40.0, 40.0]] * 10)])
    np.testing.assert_allclose(ring_centre(codes), [4.0, -1.0], atol=0.15)


def test_codes_on_a_straight_line_have_their_mean_as_centre() -> None:
    line = np.linspace(-1.0, 1.0, 100)[:, None] * np.array([[1.0, 2.0]]) + 3.0
    np.testing.assert_allclose(ring_centre(line), [3.0, 3.0], atol=1e-6)


def test_samples_stay_on_the_ring_where_a_gaussian_fills_it() -> None:
    radius, angle = radii_of(PolarSettings())
    assert ((radius > 2.2) & (radius < 3.8)).mean() > 0.99
    assert np.histogram(angle, bins=8, range=(-math.pi, math.pi))[0].min() > 3000 / 8 * 0.7
    filled, _ = radii_of(GaussianSettings())
    assert (filled < 2.0).mean() > 0.2


def test_density_does_not_change_across_the_cut() -> None:
    distribution = fit_polar(Codes(ring(2000, 0), None, ring(400, 1), None)).polar
    centre = distribution.state()[1]["centre"]
    sides = centre + np.array([[-3.0, 1e-9], [-3.0, -1e-9]])
    above, below = distribution.log_prob(sides, np.zeros(2, dtype=np.int64))
    assert above == pytest.approx(below, abs=1e-6)


def test_more_than_two_dimensions_are_refused() -> None:
    codes = np.random.default_rng(0).normal(size=(50, 3))
    with pytest.raises(SourceError, match="2 dimensions") as refused:
        fit(Codes(codes, None, codes, None), PolarSettings())
    assert refused.value.field == "codes"

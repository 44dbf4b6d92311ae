"""The laws of latent distributions, for every family: samples, densities, and batch invariance."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load as parse_safetensors
from safetensors.numpy import save as safetensors_bytes

from generator.errors import BundleError
from generator.models.latents.base import LatentDistribution
from generator.models.latents.codes import Codes
from generator.models.latents.config import (
    FlowSettings,
    GaussianSettings,
    MapSettings,
    MixtureSettings,
    PolarSettings,
    PriorSettings,
    SamplerSettings,
    TransportSettings,
)
from generator.models.latents.fitting.fit import fit
from generator.models.latents.load import load_distribution
from generator.spec.seeding import Noise, noise

TRUNCATION = 3.0
SETTINGS: dict[str, SamplerSettings] = {
    "gaussian full": GaussianSettings(),
    "gaussian diagonal": GaussianSettings(covariance="diagonal"),
    "gaussian tied": GaussianSettings(covariance="tied"),
    "mixture full": MixtureSettings(clusters=4),
    "mixture diagonal": MixtureSettings(clusters=4, covariance="diagonal"),
    "mixture tied": MixtureSettings(clusters=4, covariance="tied"),
    "flow": FlowSettings(transforms=4, hidden=16, epochs=8, batch=256),
    "polar": PolarSettings(clusters=3),
    "prior": PriorSettings(),
    "prior truncated": PriorSettings(truncation=TRUNCATION),
    "transport": TransportSettings(map=MapSettings(width=16, blocks=1), epochs=10),
    "transport clusters": TransportSettings(map=None, clusters=3),
}
FAMILIES = sorted(SETTINGS)
ROWS = 40


def ring(count: int, seed: int, *, middle: float = math.pi, width: float = 0.7) -> np.ndarray:
    """Codes around (1, -2) at a distance of about 3; their mean angle is at the discontinuity of arctan2."""
    rng = np.random.default_rng(seed)
    angle, radius = rng.normal(middle, width, count), 3.0 * np.exp(rng.normal(0.0, 0.1, count))
    return np.stack([1.0 + radius * np.cos(angle), -2.0 + radius * np.sin(angle)], axis=1)


def codes_of(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two classes on opposite sides of the ring, the second one narrower."""
    half = count // 2
    codes = np.concatenate([ring(half, seed), ring(count - half, seed + 1, middle=0.5, width=0.4)])
    return codes, np.repeat(np.array([0, 1]), [half, count - half])


@cache
def fitted_distribution(family: str) -> LatentDistribution:
    (codes, labels), (holdout, holdout_labels) = codes_of(1200, 0), codes_of(300, 7)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        fit_result = fit(Codes(codes, labels, holdout, holdout_labels, ("left", "right")), SETTINGS[family])
    finally:
        torch.set_num_threads(threads)
    return fit_result.distribution


def noise_rows(all_noise: Noise, rows: np.ndarray) -> Noise:
    return Noise(choice_B=all_noise.choice_B[rows], normal_BD=all_noise.normal_BD[rows])


def make_noise(count: int, seed: int = 3, first: int = 0) -> Noise:
    return noise(seed, np.arange(first, first + count), np.zeros(count, dtype=np.int64), 2)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32), first=st.integers(0, 2**40))
def test_rows_do_not_depend_on_their_batch(family: str, seed: int, first: int) -> None:
    distribution, rng = fitted_distribution(family), np.random.default_rng(seed)
    all_noise, labels = make_noise(ROWS, seed, first), rng.integers(0, 2, ROWS)
    whole = distribution.sample(all_noise, labels)
    density = distribution.log_prob(whole.z_BD, labels)
    parts = [np.arange(ROWS)[i : i + size] for size in (1, 3, 7) for i in range(0, ROWS, size)]
    parts += [rng.permutation(ROWS), np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)]
    for rows in parts:
        part = distribution.sample(noise_rows(all_noise, rows), labels[rows])
        assert part.z_BD.tobytes() == whole.z_BD[rows].tobytes()
        assert part.cluster_B.tobytes() == whole.cluster_B[rows].tobytes()
        assert distribution.log_prob(part.z_BD, labels[rows]).tobytes() == density[rows].tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_neither_tiles_nor_threads_change_a_bit(family: str, threads: int) -> None:
    distribution, count = fitted_distribution(family), 1025
    all_noise, labels = make_noise(count), np.arange(count) % 2
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        whole = distribution.sample(all_noise, labels)
        density = distribution.log_prob(whole.z_BD, labels)
    finally:
        torch.set_num_threads(before)
    for rows in (np.arange(250, 263), np.arange(1020, 1025), np.arange(count)[::-1]):
        part = distribution.sample(noise_rows(all_noise, rows), labels[rows])
        assert part.z_BD.tobytes() == whole.z_BD[rows].tobytes()
        assert distribution.log_prob(part.z_BD, labels[rows]).tobytes() == density[rows].tobytes()


@cache
def on_grid(family: str, label: int) -> tuple[np.ndarray, np.ndarray]:
    """(points (G, 2), mass (G,)): no point is the centre of a ring, where the density in the plane may have a pole."""
    side = np.linspace(-13.013, 14.017, 150)
    grid = np.stack(np.meshgrid(side, side - 1.5), axis=-1).reshape(-1, 2)
    density = np.exp(fitted_distribution(family).log_prob(grid, np.full(len(grid), label)))
    return grid, density * (side[1] - side[0]) ** 2


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_density_integrates_to_one(family: str) -> None:
    for label in (0, 1):
        assert on_grid(family, label)[1].sum() == pytest.approx(1.0, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_samples_have_the_moments_of_the_density(family: str) -> None:
    distribution, count = fitted_distribution(family), 20_000
    for label in (0, 1):
        grid, mass = on_grid(family, label)
        mean = mass @ grid / mass.sum()
        covariance = (grid - mean).T @ ((grid - mean) * mass[:, None]) / mass.sum()
        z = distribution.sample(make_noise(count), np.full(count, label)).z_BD
        scale = math.sqrt(np.trace(covariance))
        np.testing.assert_allclose(z.mean(axis=0), mean, atol=0.03 * scale)
        np.testing.assert_allclose(np.cov(z.T), covariance, atol=0.05 * scale**2)


@pytest.mark.parametrize("family", FAMILIES)
def test_to_noise_finds_the_noise_of_a_sample(family: str) -> None:
    distribution, labels = fitted_distribution(family), np.arange(500) % 2
    z = distribution.sample(make_noise(500), labels).z_BD
    again = distribution.sample(distribution.to_noise(z, labels), labels).z_BD
    np.testing.assert_allclose(again, z, atol=1e-4)
    real, real_labels = codes_of(300, 11)
    real = real.clip(-TRUNCATION, TRUNCATION) if family == "prior truncated" else real  # it gives nothing beyond
    back = distribution.sample(distribution.to_noise(real, real_labels), real_labels).z_BD
    np.testing.assert_allclose(back, real, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_floor_refuses_at_most_its_share_of_samples(family: str) -> None:
    distribution, labels = fitted_distribution(family), np.arange(6000) % 2
    density = distribution.log_prob(distribution.sample(make_noise(6000, seed=9), labels).z_BD, labels)
    for quantile in (0.05, 0.2):
        refused = (density < distribution.density_floor(quantile)[labels]).mean()
        assert refused < quantile + 0.02


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_stored_and_read_samples_the_same_bits(family: str) -> None:
    distribution, labels = fitted_distribution(family), np.arange(300) % 2
    config, tensors = distribution.state()
    again = load_distribution(config, parse_safetensors(safetensors_bytes(tensors)))
    first, second = distribution.sample(make_noise(300), labels), again.sample(make_noise(300), labels)
    assert first.z_BD.tobytes() == second.z_BD.tobytes()
    assert distribution.log_prob(first.z_BD, labels).tobytes() == again.log_prob(first.z_BD, labels).tobytes()
    assert distribution.density_floor(0.1).tobytes() == again.density_floor(0.1).tobytes()


def damaged(tensors: dict[str, np.ndarray]) -> list[tuple[str, dict[str, Any]]]:
    """Each tensor missing, with another shape, with another type, and (floats) with NaN."""
    cases: list[tuple[str, dict[str, Any]]] = [("additional", {**tensors, "other": np.zeros(1)})]
    for name, array in tensors.items():
        cases.append((f"{name} left out", {key: value for key, value in tensors.items() if key != name}))
        cases.append((f"{name} longer", {**tensors, name: np.concatenate([array, array])}))
        cases.append((f"{name} of another type", {**tensors, name: array.astype(np.float16)}))
        if array.dtype.kind == "f":
            broken = array.copy()
            broken.reshape(-1)[-1] = np.nan
            cases.append((f"{name} no number", {**tensors, name: broken}))
    return cases


@pytest.mark.parametrize("family", FAMILIES)
def test_damage_is_refused(family: str) -> None:
    config, tensors = fitted_distribution(family).state()
    for _, altered in damaged(tensors):
        with pytest.raises(BundleError) as refused:
            load_distribution(config, altered)
        assert refused.value.field.startswith("latents")
    shape = {} if family.startswith("prior") else {"dims": 3, "classes": 5}  # a prior has no arrays of these lengths
    for name, value in (shape | {"extra": 1, "family": "pickle"}).items():
        with pytest.raises(BundleError):
            load_distribution({**config, name: value}, tensors)

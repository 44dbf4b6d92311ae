"""Law 1 for latent distributions: the result of a row depends only on its noise and label, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.models.latents.load import load_distribution
from generator.models.latents.mixture import QUANTILE_GRID, GaussianMixture, MixtureConfig
from generator.spec.seeding import Noise, noise

ROWS = 40


def make_mixture(dims: int, clusters: tuple[int, ...], seed: int = 0) -> GaussianMixture:
    rng, count = np.random.default_rng(seed), sum(clusters)
    weight_M = np.concatenate([rng.dirichlet(np.full(size, 2.0)) for size in clusters])
    root_MDD = rng.normal(size=(count, dims, dims)) / np.sqrt(dims)
    covariance_MDD = root_MDD @ root_MDD.transpose(0, 2, 1) + 0.1 * np.eye(dims)
    return GaussianMixture(
        MixtureConfig(dims=dims, classes=len(clusters), clusters=clusters),
        weight_M=weight_M,
        mean_MD=rng.normal(scale=2.0, size=(count, dims)),
        factor=np.linalg.cholesky(covariance_MDD),
        quantile_CQ=np.zeros((len(clusters), len(QUANTILE_GRID))),
    )


def noise_rows(all_noise: Noise, rows: np.ndarray) -> Noise:
    return Noise(choice_B=all_noise.choice_B[rows], normal_BD=all_noise.normal_BD[rows])


def partitions(cluster_B: np.ndarray, order: np.ndarray) -> dict[str, list[np.ndarray]]:
    rows = np.arange(ROWS)
    batched = {f"batches of {size}": [rows[i : i + size] for i in range(0, ROWS, size)] for size in (1, 3, 7)}
    grouped = [np.flatnonzero(cluster_B == cluster) for cluster in np.unique(cluster_B)]
    return {**batched, "permuted": [order], "permuted, by 7": np.array_split(order, 7), "by cluster": grouped}


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    dims=st.integers(2, 64),
    clusters=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    seed=st.integers(0, 2**32),
    first=st.integers(0, 2**40),
)
def test_rows_do_not_depend_on_their_batch(dims: int, clusters: list[int], seed: int, first: int) -> None:
    mixture, rng = make_mixture(dims, tuple(clusters), seed), np.random.default_rng(seed)
    sample_noise = noise(seed, np.arange(first, first + ROWS), np.zeros(ROWS, dtype=np.int64), dims)
    labels_B = rng.integers(0, len(clusters), ROWS)
    whole = mixture.sample(sample_noise, labels_B)
    density_B = mixture.log_prob(whole.z_BD, labels_B)
    for name, parts in partitions(whole.cluster_B, rng.permutation(ROWS)).items():
        for rows in parts:
            part = mixture.sample(noise_rows(sample_noise, rows), labels_B[rows])
            assert part.z_BD.tobytes() == whole.z_BD[rows].tobytes(), name
            assert part.cluster_B.tobytes() == whole.cluster_B[rows].tobytes(), name
            assert mixture.log_prob(part.z_BD, labels_B[rows]).tobytes() == density_B[rows].tobytes(), name


@pytest.mark.parametrize("rows", [255, 257, 1000])
def test_tiles_do_not_change_results(rows: int) -> None:
    mixture = make_mixture(24, (10, 10))
    sample_noise = noise(3, np.arange(rows), np.zeros(rows, dtype=np.int64), 24)
    labels_B = np.arange(rows) % 2
    whole = mixture.sample(sample_noise, labels_B)
    density_B = mixture.log_prob(whole.z_BD, labels_B)
    tail = np.arange(rows - 5, rows)
    again = mixture.sample(noise_rows(sample_noise, tail), labels_B[tail])
    assert again.z_BD.tobytes() == whole.z_BD[tail].tobytes()
    assert mixture.log_prob(again.z_BD, labels_B[tail]).tobytes() == density_B[tail].tobytes()


def test_strided_codes_have_the_density_of_contiguous_ones() -> None:
    mixture = make_mixture(6, (3,))
    wide = np.random.default_rng(0).normal(size=(50, 12))
    labels_B = np.zeros(50, dtype=np.int64)
    strided, fortran = wide[:, ::2], np.asfortranarray(wide[:, ::2])
    expected = mixture.log_prob(strided.copy(), labels_B).tobytes()
    assert mixture.log_prob(strided, labels_B).tobytes() == expected
    assert mixture.log_prob(fortran, labels_B).tobytes() == expected


@settings(max_examples=20, deadline=None)
@given(dims=st.integers(1, 20), clusters=st.lists(st.integers(1, 5), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_a_stored_mixture_samples_the_same_bits(dims: int, clusters: list[int], seed: int) -> None:
    mixture = make_mixture(dims, tuple(clusters), seed)
    again = load_distribution(*mixture.state())
    sample_noise = noise(seed, np.arange(20), np.zeros(20, dtype=np.int64), dims)
    labels_B = np.arange(20) % len(clusters)
    first, second = mixture.sample(sample_noise, labels_B), again.sample(sample_noise, labels_B)
    assert first.z_BD.tobytes() == second.z_BD.tobytes()
    assert mixture.log_prob(first.z_BD, labels_B).tobytes() == again.log_prob(first.z_BD, labels_B).tobytes()

"""The Gaussian mixture: its density and samples, and the states that its loader refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from generator.errors import BundleError
from generator.models.latents import kernels
from generator.models.latents.load import load_distribution
from generator.models.latents.mixture import QUANTILE_GRID, GaussianMixture, MixtureConfig
from generator.spec.seeding import noise


def make_mixture(dims: int, clusters: tuple[int, ...], *, classes: int | None = None) -> GaussianMixture:
    rng, count = np.random.default_rng(dims), sum(clusters)
    root_MDD = rng.normal(size=(count, dims, dims)) / np.sqrt(dims)
    return GaussianMixture(
        MixtureConfig(dims=dims, classes=len(clusters) if classes is None else classes, clusters=clusters),
        weight_M=np.concatenate([rng.dirichlet(np.full(size, 3.0)) for size in clusters]),
        mean_MD=rng.normal(scale=1.5, size=(count, dims)),
        factor=np.linalg.cholesky(root_MDD @ root_MDD.transpose(0, 2, 1) + 0.2 * np.eye(dims)),
        quantile_CQ=np.sort(rng.normal(size=(len(clusters), len(QUANTILE_GRID))), axis=1),
    )


def parts_of(mixture: GaussianMixture, label: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    _, tensors = mixture.state()
    start = sum(mixture.clusters[:label])
    part = slice(start, start + mixture.clusters[label])
    factor_KDD = tensors["factor"][part]
    return tensors["weight"][part], tensors["mean"][part], factor_KDD @ factor_KDD.transpose(0, 2, 1)


@pytest.mark.parametrize("dims", [1, 2, 24, 64])
def test_log_prob_is_that_of_scipy(dims: int) -> None:
    mixture = make_mixture(dims, (4, 1, 7))
    z_BD = np.random.default_rng(1).normal(scale=3.0, size=(60, dims))
    labels_B = np.arange(60) % 3
    density_B = mixture.log_prob(z_BD, labels_B)
    for label in range(3):
        weight_K, mean_KD, covariance_KDD = parts_of(mixture, label)
        each_KB = np.stack(
            [
                multivariate_normal(mean, covariance).logpdf(z_BD[labels_B == label])
                for mean, covariance in zip(mean_KD, covariance_KDD, strict=True)
            ]
        ).reshape(len(weight_K), -1)
        expected_B = logsumexp(each_KB + np.log(weight_K)[:, None], axis=0)
        np.testing.assert_allclose(density_B[labels_B == label], expected_B, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("covariance", ["full", "diagonal", "tied"])
@pytest.mark.parametrize("family", ["mixture", "gaussian"])
def test_classes_of_one_component_have_the_bits_of_any_number(covariance: Any, family: Any) -> None:
    classes, dims, rng = 3, 9, np.random.default_rng(0)
    config = MixtureConfig(family=family, dims=dims, classes=classes, clusters=(1,) * classes, covariance=covariance)
    matrices = np.tril(rng.normal(size=(classes, dims, dims))) + 4.0 * np.eye(dims)
    mixture = GaussianMixture(
        config,
        weight_M=np.ones(classes),
        mean_MD=rng.normal(size=(classes, dims)),
        factor=np.abs(matrices[:, 0]) + 1.0 if covariance == "diagonal" else matrices[: config.factor_shape[0]],
        quantile_CQ=np.zeros((classes, len(QUANTILE_GRID))),
    )
    z_BD, labels_B = rng.normal(scale=3.0, size=(5000, dims)), rng.integers(0, classes, 5000)
    found_B = mixture.log_prob(z_BD, labels_B)
    for label in range(classes):
        rows_R = labels_B == label
        expected_R = kernels.log_sum_exp(mixture.joint_log_prob(label, z_BD[rows_R]))
        assert found_B[rows_R].tobytes() == expected_R.tobytes()


def test_density_integrates_to_one() -> None:
    mixture = make_mixture(2, (5,), classes=0)
    side = np.linspace(-12.0, 12.0, 601)
    grid_BD = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    density_B = np.exp(mixture.log_prob(grid_BD, np.zeros(len(grid_BD), dtype=np.int64)))
    assert density_B.sum() * (side[1] - side[0]) ** 2 == pytest.approx(1.0, abs=1e-6)


def test_samples_have_the_moments_of_their_class() -> None:
    mixture, count = make_mixture(5, (6, 3)), 40_000
    drawn = noise(11, np.arange(count), np.zeros(count, dtype=np.int64), 5)
    labels_B = np.arange(count) % 2
    sampled = mixture.sample(drawn, labels_B)
    for label in (0, 1):
        weight_K, mean_KD, covariance_KDD = parts_of(mixture, label)
        mean_D = weight_K @ mean_KD
        spread_KD = mean_KD - mean_D
        covariance_DD = np.einsum("k,kij->ij", weight_K, covariance_KDD)
        covariance_DD += np.einsum("k,ki,kj->ij", weight_K, spread_KD, spread_KD)
        rows = labels_B == label
        share_K = np.bincount(sampled.cluster_B[rows], minlength=len(weight_K)) / rows.sum()
        np.testing.assert_allclose(sampled.z_BD[rows].mean(axis=0), mean_D, atol=0.06)
        np.testing.assert_allclose(np.cov(sampled.z_BD[rows].T), covariance_DD, atol=0.15)
        np.testing.assert_allclose(share_K, weight_K, atol=0.015)


def test_samples_of_one_cluster_have_its_covariance() -> None:
    mixture, count = make_mixture(4, (3,)), 60_000
    sampled = mixture.sample(
        noise(5, np.arange(count), np.zeros(count, dtype=np.int64), 4), np.zeros(count, dtype=np.int64)
    )
    _, mean_KD, covariance_KDD = parts_of(mixture, 0)
    for cluster in range(3):
        of_cluster = sampled.z_BD[sampled.cluster_B == cluster]
        np.testing.assert_allclose(of_cluster.mean(axis=0), mean_KD[cluster], atol=0.06)
        np.testing.assert_allclose(np.cov(of_cluster.T), covariance_KDD[cluster], atol=0.12)


def test_density_floor_reads_the_stored_quantiles() -> None:
    mixture = make_mixture(3, (2, 2))
    quantile_CQ = mixture.state()[1]["quantile"]
    np.testing.assert_array_equal(mixture.density_floor(0.0), quantile_CQ[:, 0])
    np.testing.assert_array_equal(mixture.density_floor(0.5), quantile_CQ[:, 500])
    between = mixture.density_floor(0.0105)
    np.testing.assert_allclose(between, (quantile_CQ[:, 10] + quantile_CQ[:, 11]) / 2)


def altered(name: str, value: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    config, tensors = make_mixture(3, (2, 1)).state()
    if name in tensors:
        return config, {**tensors, name: value}
    return {**config, name: value}, tensors


def changed(name: str, where: tuple[int, ...], value: float) -> np.ndarray:
    array = make_mixture(3, (2, 1)).state()[1][name].copy()
    array[where] = value
    return array


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("family", "pickle", "latents.family"),
        ("family", None, "latents.family"),
        ("dims", 4, "latents.weight|latents.mean"),
        ("clusters", [3], "latents"),
        ("clusters", [3, 0], "latents"),
        ("clusters", [1, 1], "latents.weight"),
        ("extra", 1, "latents.extra"),
        ("weight", changed("weight", (0,), 0.0), "latents.weight"),
        ("weight", changed("weight", (2,), 0.7), "latents.weight"),
        ("weight", np.ones(3, dtype=np.float32), "latents.weight"),
        ("mean", changed("mean", (0, 0), np.nan), "latents.mean"),
        ("mean", np.zeros((3, 4)), "latents.mean"),
        ("factor", changed("factor", (1, 0, 2), 0.1), "latents.factor"),
        ("factor", changed("factor", (1, 2, 2), -1.0), "latents.factor"),
        ("factor", changed("factor", (1, 2, 2), np.inf), "latents.factor"),
        ("quantile", changed("quantile", (0, 3), 99.0), "latents.quantile"),
    ],
)
def test_what_is_no_mixture_is_refused(name: str, value: Any, field: str) -> None:
    with pytest.raises(BundleError) as refused:
        load_distribution(*altered(name, value))
    assert refused.value.field.split(".")[0] == "latents"
    assert any(refused.value.field.startswith(known) for known in field.split("|"))


def test_missing_and_additional_tensors_are_refused() -> None:
    config, tensors = make_mixture(3, (2, 1)).state()
    with pytest.raises(BundleError):
        load_distribution(config, {name: value for name, value in tensors.items() if name != "quantile"})
    with pytest.raises(BundleError):
        load_distribution(config, {**tensors, "other": np.zeros(1)})

"""Clusters in the space of a base's normals: their draws, densities and stored form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from generator.errors import BundleError, SpecError
from generator.models.latents.codes import Codes
from generator.models.latents.config import TransportSettings, parse_sampler
from generator.models.latents.fitting.fit import fit
from generator.models.latents.load import load_distribution
from generator.models.latents.transport import Transport
from generator.models.latents.whitened_clusters import WhitenedClusters
from generator.spec.seeding import Noise, noise

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = TransportSettings(map=None, clusters=3)


def blobs(count: int = 1800, dims: int = 8, seed: int = 0) -> Codes:
    """Two classes of three blobs, of different shapes, whose centres differ in the first two numbers."""
    rng, labels_N = np.random.default_rng(seed), np.arange(count) % 2
    blob_N = rng.integers(0, 3, count)
    centres_K = np.array([[0.0, 0.0], [12.0, 0.0], [0.0, 16.0]])
    codes_ND = rng.normal(size=(count, dims)) * np.linspace(1.5, 0.3, dims)
    codes_ND[:, 0] *= 1.0 + blob_N
    codes_ND[:, :2] += centres_K[blob_N] + labels_N[:, None]
    return Codes(codes_ND, labels_N, codes_ND[:100], labels_N[:100], ("even", "odd"))


def fitted(codes: Codes) -> Transport:
    distribution = fit(codes, SETTINGS, seed=0).distribution
    assert isinstance(distribution, Transport)
    return distribution


def noise_of(count: int, dims: int) -> Noise:
    rows_B = np.arange(count)
    return noise(7, rows_B, np.zeros_like(rows_B), dims)


def test_samples_lie_in_the_blobs_and_a_gaussian_lies_between_them() -> None:
    codes = blobs()
    labels_B = np.arange(3000) % 2
    drawn = fitted(codes).sample(noise_of(3000, 8), labels_B).z_BD
    gaussian = fit(codes, TransportSettings(map=None)).distribution.sample(noise_of(3000, 8), labels_B).z_BD
    empty_real, empty, empty_gaussian = (
        ((z[:, 1] > 4.0) & (z[:, 1] < 12.0)).mean() for z in (codes.codes_ND, drawn, gaussian)
    )
    assert empty_real < 0.01
    assert empty < 0.02
    assert empty_gaussian > 0.2
    np.testing.assert_allclose(drawn.mean(axis=0), codes.codes_ND.mean(axis=0), atol=0.4)
    np.testing.assert_allclose(drawn.std(axis=0), codes.codes_ND.std(axis=0), rtol=0.1)


def test_the_density_is_that_of_the_mixture() -> None:
    """Against a mixture written out: every cluster's mean and covariance in the space of codes."""
    distribution = fitted(blobs())
    document, tensors = distribution.state()
    labels_B = np.arange(12) % 2
    drawn = distribution.sample(noise_of(12, 8), labels_B)
    assert drawn.log_density_B is not None
    rotation_DD, rank = distribution.base.rotation.columns(8), document["cluster_rank"]  # type: ignore[union-attr]
    for row, label in enumerate(labels_B):
        factor_DD, total = rotation_DD @ tensors["factor"][label], 0.0
        for cluster in range(3 * label, 3 * label + 3):
            own_DD = np.eye(8)
            own_DD[:rank, :rank] = tensors["cluster_factor"][cluster]
            mean_D = tensors["mean"][label] + factor_DD @ tensors["cluster_mean"][cluster]
            covariance_DD = factor_DD @ own_DD @ own_DD.T @ factor_DD.T
            density = multivariate_normal(mean_D, covariance_DD).pdf(drawn.z_BD[row])
            total += tensors["cluster_weight"][cluster] * density
        assert drawn.log_density_B[row] == pytest.approx(np.log(total), abs=1e-2)
    np.testing.assert_allclose(distribution.log_prob(drawn.z_BD, labels_B), drawn.log_density_B, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("dims", [8, 640])
def test_a_draw_does_not_depend_on_its_batch(dims: int) -> None:
    codes = blobs(dims=dims)
    if dims > 512:
        codes = replace(codes, shape=(dims // 16, 4, 4))
    distribution, labels_B, drawn_noise = fitted(codes), np.arange(300) % 2, noise_of(300, dims)
    whole = distribution.sample(drawn_noise, labels_B)
    assert whole.log_density_B is not None
    for size in (1, 3, 7, 256):
        for begin in range(0, 60, size):
            rows = slice(begin, begin + size)
            part_noise = Noise(drawn_noise.choice_B[rows], drawn_noise.normal_BD[rows])
            part = distribution.sample(part_noise, labels_B[rows])
            assert part.log_density_B is not None
            assert part.z_BD.tobytes() == whole.z_BD[rows].tobytes()
            assert part.log_density_B.tobytes() == whole.log_density_B[rows].tobytes()
            assert part.cluster_B.tolist() == whole.cluster_B[rows].tolist()


def test_codes_give_back_the_noise_that_made_them() -> None:
    distribution, labels_B = fitted(blobs()), np.arange(200) % 2
    drawn = distribution.sample(noise_of(200, 8), labels_B)
    back = distribution.to_noise(drawn.z_BD, labels_B)
    again = distribution.sample(back, labels_B)
    np.testing.assert_allclose(again.z_BD, drawn.z_BD, atol=1e-3)
    assert (again.cluster_B == drawn.cluster_B).mean() > 0.97
    for cluster in range(3):
        choice_B = distribution.choice_for_cluster(np.full(200, cluster), labels_B)
        assert set(distribution.sample(Noise(choice_B, back.normal_BD), labels_B).cluster_B.tolist()) == {cluster}


def test_a_density_floor_refuses_its_share_of_draws() -> None:
    distribution, labels_B = fitted(blobs()), np.arange(4000) % 2
    drawn = distribution.sample(noise_of(4000, 8), labels_B)
    assert drawn.log_density_B is not None
    refused = (drawn.log_density_B < distribution.density_floor(0.2)[labels_B]).mean()
    assert refused == pytest.approx(0.2, abs=0.03)


def test_it_is_stored_bit_for_bit_and_one_gaussian_as_before() -> None:
    distribution, labels_B = fitted(blobs()), np.arange(50) % 2
    document, tensors = distribution.state()
    again = load_distribution(document, tensors)
    assert document["clusters"] == [3, 3]
    assert again.clusters == (3, 3)
    assert again.sample(noise_of(50, 8), labels_B).z_BD.tobytes() == (
        distribution.sample(noise_of(50, 8), labels_B).z_BD.tobytes()
    )
    plain, _ = fit(blobs(), TransportSettings(map=None)).distribution.state()
    assert sorted(plain) == ["base", "classes", "dims", "family", "map"]
    assert "clusters" not in TransportSettings().model_dump(mode="json")


def test_classes_of_few_codes_have_one_gaussian_and_others_fewer_clusters() -> None:
    few = fit(blobs(150), SETTINGS).distribution
    assert few.clusters == (1, 1)
    assert "clusters" not in few.state()[0]
    codes = blobs(1200)
    assert codes.labels_N is not None
    kept_N = np.flatnonzero((codes.labels_N == 1) | (np.arange(1200) < 240))
    uneven = replace(codes, codes_ND=codes.codes_ND[kept_N], labels_N=codes.labels_N[kept_N])
    assert fit(uneven, SETTINGS).distribution.clusters == (1, 3)


def test_unlabelled_codes_are_one_class() -> None:
    codes = blobs()
    distribution = fit(Codes(codes.codes_ND, None, codes.holdout_HD, None), SETTINGS).distribution
    assert distribution.clusters == (3,)
    assert load_distribution(*distribution.state()).classes == 0


def test_clusters_with_a_map_are_refused() -> None:
    with pytest.raises(SpecError, match="without a map"):
        parse_sampler({"family": "transport", "clusters": 4})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cluster_weight", np.full(6, 0.3)),
        ("cluster_weight", np.array([0.0, 0.5, 0.5, 0.2, 0.4, 0.4])),
        ("cluster_factor", -np.stack([np.eye(8)] * 6)),
        ("cluster_factor", np.ones((6, 8, 8))),
        ("cluster_mean", np.full((6, 8), np.nan)),
        ("quantile", np.linspace(1.0, 0.0, 2002).reshape(2, 1001)),
    ],
)
def test_damaged_clusters_are_refused(name: str, value: np.ndarray) -> None:
    document, tensors = fitted(blobs()).state()
    with pytest.raises(BundleError, match="latents"):
        load_distribution(document, tensors | {name: value})
    with pytest.raises(BundleError, match="clusters"):
        load_distribution(document | {"clusters": [3]}, tensors)
    with pytest.raises(BundleError, match="cluster_rank"):
        load_distribution({key: each for key, each in document.items() if key != "cluster_rank"}, tensors)


def test_factors_too_large_for_exact_products_are_refused() -> None:
    document, tensors = fitted(blobs(dims=40)).state()
    with pytest.raises(BundleError, match="usable size"):
        load_distribution(document, tensors | {"cluster_mean": np.full((6, 40), 1e7)})
    assert WhitenedClusters((3, 3), tensors).clusters == (3, 3)

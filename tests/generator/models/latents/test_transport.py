"""The family transport: a Gaussian base whose draws are exact, and a map that moves them to where the codes are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from generator.errors import BundleError, SourceError
from generator.models.latents.codes import Codes
from generator.models.latents.config import MapSettings, TransportSettings
from generator.models.latents.fitting.fit import fit
from generator.models.latents.fitting.gaussian_base import fit_base
from generator.models.latents.gaussian_base import BaseConfig, GaussianBase
from generator.models.latents.load import load_distribution
from generator.models.latents.map_inversion import MAX_ERROR, to_base
from generator.models.latents.transport import MapConfig, Transport
from generator.models.latents.transport_map import TransportMap, new_map, to_codes
from generator.spec.seeding import noise

pytestmark = pytest.mark.usefixtures("one_thread")


def two_rings(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes of two classes: rings of radius 1 and 3 around the origin, which a Gaussian fills."""
    rng, labels_N = np.random.default_rng(seed), np.arange(count) % 2
    angle_N, radius_N = rng.uniform(0.0, 2.0 * np.pi, count), 1.0 + 2.0 * labels_N + rng.normal(0.0, 0.1, count)
    return np.stack([radius_N * np.cos(angle_N), radius_N * np.sin(angle_N)], axis=1), labels_N


def ring_codes() -> Codes:
    (codes_ND, labels_N), (holdout_HD, holdout_labels_H) = two_rings(1200, 0), two_rings(300, 1)
    return Codes(codes_ND, labels_N, holdout_HD, holdout_labels_H, ("inner", "outer"))


def correlated(count: int, dims: int, seed: int, classes: int = 2) -> Codes:
    rng = np.random.default_rng(seed)
    root_DD, labels_N = rng.normal(size=(dims, dims)) / np.sqrt(dims), np.arange(count) % classes
    codes_ND = rng.normal(size=(count, dims)) @ root_DD.T + 3.0 * labels_N[:, None]
    names = tuple(f"class {label}" for label in range(classes))
    return Codes(codes_ND, labels_N, codes_ND[:50], labels_N[:50], names)


def base_of(codes: Codes) -> GaussianBase:
    config, arrays = fit_base(codes, codes.by_class())
    return GaussianBase(config, arrays["mean"], arrays)


def draws(distribution: Transport, count: int, labels_B: np.ndarray) -> np.ndarray:
    rows_B = np.arange(count)
    drawn = noise(5, rows_B, np.zeros_like(rows_B), distribution.dims)
    return distribution.sample(drawn, labels_B).z_BD


@pytest.mark.slow
def test_the_map_puts_samples_on_rings_that_a_gaussian_fills() -> None:
    network = MapSettings(width=64, blocks=2, steps=16)
    settings = TransportSettings(map=network, epochs=60, batch=96, learning_rate=2e-3)
    fitted = fit(ring_codes(), settings, seed=0)
    distribution, labels_B = fitted.distribution, np.arange(1000) % 2
    assert isinstance(distribution, Transport)
    base_BD = draws(distribution, 1000, labels_B)
    codes_BD, wanted_B = to_codes(distribution, base_BD, labels_B), 1.0 + 2.0 * labels_B
    off_base_B, off_B = (np.abs(np.linalg.norm(z_BD, axis=1) - wanted_B) for z_BD in (base_BD, codes_BD))
    assert np.median(off_base_B) > 0.35
    assert np.median(off_B) < 0.2
    for code_D, label in zip(*two_rings(4, 7), strict=True):
        point_D, error = to_base(distribution, code_D, int(label))
        again_1D = to_codes(distribution, point_D[None], np.array([label]))
        assert error < MAX_ERROR
        np.testing.assert_allclose(again_1D[0], code_D, atol=0.1)
        assert np.abs(point_D - code_D).max() > 1e-3
    useful = fitted.chosen["code_usefulness"]
    assert useful["map"] >= useful["base"]
    assert fitted.chosen["holdout_loss"] < 0.9
    assert 0.0 <= fitted.chosen["density_auroc"] <= 1.0


def test_an_untrained_map_changes_nothing() -> None:
    codes = correlated(300, 5, 0)
    base = base_of(codes)
    labels_B = np.arange(70) % 2
    z_BD = torch.from_numpy(base.draw(np.random.default_rng(0).normal(size=(70, 5)), labels_B).astype(np.float32))
    for steps, spacing in ((1, "equal"), (3, "equal"), (8, "equal"), (1, "late"), (3, "late")):
        config = MapConfig(width=32, blocks=2, steps=steps, spacing=spacing)
        moved_BD = TransportMap(config, base.mean_CD, base.scale()).eval()(z_BD, torch.from_numpy(labels_B))
        np.testing.assert_allclose(moved_BD.detach().numpy(), z_BD.numpy(), rtol=1e-4, atol=1e-5)


def test_times_lie_late_in_new_maps_and_evenly_in_those_of_earlier_releases() -> None:
    stored = {"width": 8, "blocks": 1, "steps": 4}
    earlier = MapConfig.model_validate(stored)
    assert earlier.times == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert earlier.model_dump(mode="json") == stored  # its digest stays
    assert MapConfig.model_validate({}).times == earlier.times
    late = MapConfig.model_validate({**stored, "spacing": "late"})
    assert late.times == pytest.approx((0.0, 0.5, 0.5**0.5, 0.75**0.5, 1.0))
    assert late.model_dump(mode="json") == {**stored, "spacing": "late"}
    with pytest.raises(ValueError, match="spacing"):
        MapConfig.model_validate({**stored, "spacing": "early"})


@pytest.mark.slow
def test_a_map_is_dropped_where_a_gaussian_says_it_all() -> None:
    codes = correlated(400, 4, 0)
    fitted = fit(codes, TransportSettings(map=MapSettings(width=16, blocks=1), epochs=1), seed=0)
    assert new_map(fitted.distribution) is None
    assert any("the map is dropped" in notice for notice in fitted.notices)
    z_BD = draws(fitted.distribution, 10, np.zeros(10, dtype=np.int64))
    assert to_codes(fitted.distribution, z_BD, np.zeros(10, dtype=np.int64)) is z_BD


def test_draws_and_densities_are_those_of_the_gaussian() -> None:
    codes = correlated(500, 6, 1)
    config, arrays = fit_base(codes, codes.by_class())
    base, labels_B = GaussianBase(config, arrays["mean"], arrays), np.arange(40) % 2
    normal_BD = np.random.default_rng(2).normal(size=(40, 6))
    z_BD = base.draw(normal_BD, labels_B)
    for z_D, normal_D, label in zip(z_BD, normal_BD, labels_B, strict=True):
        factor_DD = arrays["factor"][label]
        np.testing.assert_allclose(z_D, arrays["mean"][label] + factor_DD @ normal_D, atol=1e-5)
        wanted = multivariate_normal(arrays["mean"][label], factor_DD @ factor_DD.T).logpdf(z_D)
        found = base.log_prob_of_normals(normal_D[None], np.array([label]))[0]
        assert found == pytest.approx(wanted, abs=1e-3)
    np.testing.assert_allclose(base.to_normals(z_BD, labels_B), normal_BD, atol=1e-4)


def test_few_codes_take_their_covariance_from_all_classes() -> None:
    codes = correlated(400, 8, 3)
    assert codes.labels_N is not None
    few = codes.labels_N == 0
    few[20:] = False
    rows_N = np.flatnonzero(few | (codes.labels_N == 1))
    sparse = replace(codes, codes_ND=codes.codes_ND[rows_N], labels_N=codes.labels_N[rows_N])
    whole, shrunk = (fit_base(each, each.by_class())[1]["factor"] for each in (codes, sparse))
    covariance_CDD, shrunk_CDD = (factor_CDD @ factor_CDD.transpose(0, 2, 1) for factor_CDD in (whole, shrunk))
    own_DD = np.cov(sparse.codes_ND[sparse.labels_N == 0].T, bias=True)
    error, own_error = (np.linalg.norm(each_DD - covariance_CDD[0]) for each_DD in (shrunk_CDD[0], own_DD))
    assert error < own_error


def test_large_codes_have_a_covariance_of_low_rank() -> None:
    """As many directions as the codes have, which lie in 20 of 640 dimensions, and a little of the noise beside."""
    rng, dims, rank = np.random.default_rng(0), 640, 50
    mixing_KD = rng.normal(size=(20, dims))
    labels_N = np.arange(600) % 2
    codes_ND = rng.normal(size=(600, 20)) * (1.0 + labels_N[:, None]) @ mixing_KD + 0.1 * rng.normal(size=(600, dims))
    codes = Codes(codes_ND, labels_N, codes_ND[:50], labels_N[:50], ("narrow", "wide"), (40, 4, 4))
    config, arrays = fit_base(codes, codes.by_class())
    assert (config.covariance, config.rank, config.factors) == ("low_rank", rank, 2)
    base = GaussianBase(config, arrays["mean"], arrays)
    normal_BD, labels_B = rng.normal(size=(3000, dims)), np.arange(3000) % 2
    z_BD = base.draw(normal_BD, labels_B)
    back_BD = base.to_normals(z_BD[:9], labels_B[:9])
    np.testing.assert_allclose(back_BD[:, :rank], normal_BD[:9, :rank], atol=1e-3)
    np.testing.assert_allclose(base.draw(back_BD, labels_B[:9]), z_BD[:9], atol=1e-3)
    np.testing.assert_allclose(base.scale()[0], z_BD[labels_B == 0].std(axis=0), rtol=0.12)
    for label in (0, 1):
        centred_BD = z_BD[labels_B == label] - base.mean_CD[label]
        found_DD, wanted_DD = np.cov(centred_BD.T), (1.0 + label) ** 2 * mixing_KD.T @ mixing_KD
        assert np.linalg.norm(found_DD - wanted_DD) < 0.45 * np.linalg.norm(wanted_DD)
    found_B = base.log_prob_of_normals(normal_BD[:2], labels_B[:2])
    basis_DK = base.rotation.columns(rank) if base.rotation is not None else np.zeros((dims, rank))
    np.testing.assert_allclose(basis_DK.T @ basis_DK, np.eye(rank), atol=1e-12)
    others = float(arrays["other_scale"][0]) ** 2
    for label in (0, 1):
        inner_KK = arrays["factor"][label] @ arrays["factor"][label].T
        covariance_DD = basis_DK @ (inner_KK - others * np.eye(rank)) @ basis_DK.T + others * np.eye(dims)
        exact = multivariate_normal(base.mean_CD[label], covariance_DD).logpdf(z_BD[label])
        assert found_B[label] == pytest.approx(exact, abs=0.1)


def test_a_stored_rotation_must_be_one() -> None:
    codes = replace(correlated(200, 640, 4), shape=(40, 4, 4))
    config, tensors = fit(codes, TransportSettings(map=None)).distribution.state()
    assert load_distribution(config, tensors).state()[0] == config
    for name in ("reflectors", "reflections"):
        with pytest.raises(BundleError, match=r"latents\.reflections"):
            load_distribution(config, tensors | {name: tensors[name] * 1.01})
    with pytest.raises(BundleError, match=r"latents\.other_scale"):
        load_distribution(config, tensors | {"other_scale": np.zeros(1)})
    for base in ({"rank": 700}, {"rank": None}, {"covariance": "full"}):
        with pytest.raises(BundleError, match="latents"):
            load_distribution(config | {"base": config["base"] | base}, tensors)


def test_the_product_of_two_covariances() -> None:
    shape, rng = (40, 4, 4), np.random.default_rng(0)
    channel_CC, position_PP = (np.tril(rng.normal(size=(side, side)) * 0.2) + np.eye(side) for side in (40, 16))
    arrays = {"channel_factor": channel_CC[None], "position_factor": position_PP[None]}
    for factor_FSS in arrays.values():
        np.einsum("fss->fs", factor_FSS)[:] = 1.0 + np.abs(np.einsum("fss->fs", factor_FSS))
    arrays["mean"] = rng.normal(size=(1, 640))
    base = GaussianBase(BaseConfig(covariance="kronecker", factors=1, shape=shape), arrays["mean"], arrays)
    factor_DD = np.kron(arrays["channel_factor"][0], arrays["position_factor"][0])
    found_DD = factor_DD @ factor_DD.T
    normal_BD, labels_B = rng.normal(size=(9, 640)), np.zeros(9, dtype=np.int64)
    z_BD = base.draw(normal_BD, labels_B)
    np.testing.assert_allclose(z_BD, arrays["mean"][0] + normal_BD @ factor_DD.T, atol=1e-4)
    np.testing.assert_allclose(base.to_normals(z_BD, labels_B), normal_BD, atol=1e-3)
    np.testing.assert_allclose(base.scale()[0], np.sqrt(np.diag(found_DD)), rtol=1e-9)
    wanted = -0.5 * (normal_BD**2).sum(axis=1) - np.log(np.diag(factor_DD)).sum() - 320.0 * np.log(2.0 * np.pi)
    np.testing.assert_allclose(base.log_prob_of_normals(normal_BD, labels_B), wanted, rtol=1e-9)


@pytest.mark.parametrize("dims", [6, 640])
def test_a_draw_does_not_depend_on_its_batch(dims: int) -> None:
    codes = correlated(200, dims, 4)
    if dims > 512:
        codes = replace(codes, shape=(dims // 16, 4, 4))
    base, labels_B = base_of(codes), np.arange(60) % 2
    normal_BD = np.random.default_rng(6).normal(size=(60, dims))
    whole_BD, density_B = base.draw(normal_BD, labels_B), base.log_prob_of_normals(normal_BD, labels_B)
    for size in (1, 3, 7):
        for begin in range(0, 60, size):
            rows = slice(begin, begin + size)
            assert base.draw(normal_BD[rows], labels_B[rows]).tobytes() == whole_BD[rows].tobytes()
            found_B = base.log_prob_of_normals(normal_BD[rows], labels_B[rows])
            assert found_B.tobytes() == density_B[rows].tobytes()


def test_a_density_floor_refuses_its_share_of_draws() -> None:
    fitted = fit(correlated(500, 6, 1), TransportSettings(map=None), seed=0).distribution
    labels_B, rows_B = np.arange(4000) % 2, np.arange(4000)
    drawn = fitted.sample(noise(0, rows_B, np.zeros_like(rows_B), 6), labels_B)
    assert drawn.log_density_B is not None
    refused = (drawn.log_density_B < fitted.density_floor(0.2)[labels_B]).mean()
    assert refused == pytest.approx(0.2, abs=0.03)


def test_classes_of_one_code_are_refused() -> None:
    codes = correlated(41, 3, 0)
    assert codes.labels_N is not None
    labels_N = np.minimum(np.arange(41), 1)
    with pytest.raises(SourceError, match="at least 2 images"):
        fit(replace(codes, labels_N=labels_N), TransportSettings(), seed=0)


@pytest.mark.parametrize(
    ("damage", "field"),
    [
        ({"map.network.head.weight": np.zeros((3, 3), np.float32)}, "latents.map.network.head.weight"),
        ({"mean": np.full((2, 3), np.nan)}, "latents.mean"),
        ({"factor": -np.stack([np.eye(3)] * 2)}, "latents.factor"),
    ],
)
def test_damaged_weights_are_refused(damage: dict[str, np.ndarray], field: str) -> None:
    codes = correlated(100, 3, 0)
    config, arrays = fit_base(codes, codes.by_class())
    fresh = TransportMap(MapConfig(width=8, blocks=1), arrays["mean"], np.ones((2, 3)))
    weights = {f"map.{name}": value.numpy() for name, value in fresh.state_dict().items()}
    document = {
        "family": "transport",
        "dims": 3,
        "classes": 2,
        "base": config.model_dump(mode="json"),
        "map": {"width": 8, "blocks": 1, "steps": 2},
    }
    assert load_distribution(document, {**arrays, **weights}).dims == 3
    with pytest.raises(BundleError, match=field):
        load_distribution(document, {**arrays, **weights, **damage})
    with pytest.raises(BundleError, match="latents"):
        load_distribution({**document, "map": None}, {**arrays, **weights})
    with pytest.raises(BundleError, match="steps"):
        load_distribution({**document, "map": {"width": 8, "blocks": 1, "steps": 0}}, {**arrays, **weights})

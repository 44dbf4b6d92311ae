"""Sampling: each ``draw`` mode of a recipe, on a mixture with known components."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from generator.errors import RejectionExhausted, SpecError
from generator.models.latents import LatentDistribution
from generator.models.latents.load import load_distribution
from generator.production.pipeline.sampling import Draw, Sampler
from generator.spec.recipe import Recipe
from generator.spec.seeding import Noise, noise

DIMS, CLUSTERS = 5, (2, 1, 4)
CODE, OTHER = (0.5, -1.0, 2.0, 0.25, -0.75), (-2.0, 1.0, 0.0, 0.5, 3.0)
DRAWS: dict[str, dict[str, Any]] = {
    "distribution": {"mode": "distribution"},
    "cluster": {"mode": "cluster", "cluster": 0},
    "around": {"mode": "around", "code": CODE, "distance": 0.4},
    "between": {"mode": "between", "start": CODE, "end": OTHER},
    "around the line": {"mode": "between", "start": CODE, "end": OTHER, "distance": 0.2},
}


def make_mixture(*, first_weight: float = 0.3) -> LatentDistribution:
    """Three classes of 2, 1 and 4 clusters; ``first_weight`` is that of the first cluster of the first class."""
    rng, count = np.random.default_rng(3), sum(CLUSTERS)
    root_MDD = rng.normal(size=(count, DIMS, DIMS)) / np.sqrt(DIMS)
    rest = [rng.dirichlet(np.full(size, 3.0)) for size in CLUSTERS[1:]]
    tensors = {
        "weight": np.concatenate([[first_weight, 1.0 - first_weight], *rest]),
        "mean": rng.normal(scale=2.0, size=(count, DIMS)),
        "factor": np.linalg.cholesky(root_MDD @ root_MDD.transpose(0, 2, 1) + 0.2 * np.eye(DIMS)),
        "quantile": np.tile(np.linspace(-30.0, 0.0, 1001), (3, 1)),
    }
    return load_distribution({"family": "mixture", "dims": DIMS, "classes": 3, "clusters": list(CLUSTERS)}, tensors)


MIXTURE = make_mixture()
MEAN_MD, FACTOR_MDD = (MIXTURE.state()[1][name] for name in ("mean", "factor"))


def sampler(mixture: LatentDistribution = MIXTURE, **changes: Any) -> Sampler:
    fields = {"bundle": "sha256:" + "ab" * 32, "classes": ("a", "b", "c"), "counts": (9, 9, 9), "seed": 11}
    return Sampler(Recipe.model_validate(fields | changes), mixture)


def first_attempts(drawer: Sampler, labels_B: np.ndarray) -> Draw:
    return drawer.draw_attempt(np.arange(len(labels_B)), np.zeros(len(labels_B), dtype=np.int64), labels_B)


def labels_of(rows: int) -> np.ndarray:
    return np.arange(rows) % 3


@settings(max_examples=15)
@pytest.mark.parametrize("draw", DRAWS)
@given(order=st.permutations(range(21)), batch=st.sampled_from([1, 3, 7, 21]), first=st.integers(0, 2**40))
def test_a_row_depends_on_index_and_attempt_alone(draw: str, order: list[int], batch: int, first: int) -> None:
    indices, attempts, labels = np.arange(first, first + 21), np.arange(21) % 4, labels_of(21)
    whole = sampler(draw=DRAWS[draw], temperature=0.8).draw_attempt(indices, attempts, labels)
    for begin in range(0, 21, batch):
        rows = np.array(order[begin : begin + batch])
        part = sampler(draw=DRAWS[draw], temperature=0.8).draw_attempt(indices[rows], attempts[rows], labels[rows])
        for name in ("z_BD", "attempts_B", "clusters_B", "log_density_B"):
            assert getattr(part, name).tobytes() == getattr(whole, name)[rows].tobytes(), name


@pytest.mark.parametrize("draw", ["distribution", "cluster", "around", "between"])
def test_a_floor_refuses_and_draws_again(draw: str) -> None:
    unfloored, labels = sampler(draw=DRAWS[draw]), np.zeros(200, dtype=np.int64)
    middle = float(np.median(first_attempts(unfloored, labels).log_density_B))
    floored = sampler(draw=DRAWS[draw], density_floor=1.0 + middle / 30.0)
    found = floored.draw(np.arange(200), labels, labels)
    assert (found.log_density_B >= middle - 1e-9).all()
    assert found.refused > 50
    first = first_attempts(unfloored, labels)
    kept = found.attempts_B == 0
    assert found.z_BD[kept].tobytes() == first.z_BD[kept].tobytes()
    assert (first.log_density_B[~kept] < middle).all()
    assert unfloored.draw_attempt(np.arange(200), found.attempts_B, labels).z_BD.tobytes() == found.z_BD.tobytes()


def test_a_code_that_no_neighbour_of_reaches_the_floor_is_an_error_with_the_rate() -> None:
    far = {"mode": "around", "code": (50.0,) * DIMS, "distance": 0.001}
    with pytest.raises(RejectionExhausted, match="within 100 attempts"):
        sampler(draw=far, density_floor=0.01).draw(*np.zeros((3, 1), dtype=np.int64))


def test_temperature_scales_the_way_from_the_centre_of_the_cluster() -> None:
    labels = labels_of(300)
    warm, cool = first_attempts(sampler(), labels), first_attempts(sampler(temperature=0.3), labels)
    assert np.array_equal(warm.clusters_B, cool.clusters_B)
    mean_BD = MEAN_MD[np.cumsum((0, *CLUSTERS))[labels] + warm.clusters_B]
    np.testing.assert_allclose(cool.z_BD - mean_BD, 0.3 * (warm.z_BD - mean_BD), rtol=1e-9, atol=1e-9)
    assert cool.log_density_B.mean() > warm.log_density_B.mean()
    np.testing.assert_array_equal(cool.log_density_B, MIXTURE.log_prob(cool.z_BD, labels))


def test_a_cluster_is_the_only_one_and_has_its_own_mean_and_covariance() -> None:
    labels = np.full(20_000, 2)
    drawn = first_attempts(sampler(draw={"mode": "cluster", "cluster": 3}, counts=(0, 0, 9)), labels)
    assert (drawn.clusters_B == 3).all()
    white_BD = np.linalg.solve(FACTOR_MDD[6], (drawn.z_BD - MEAN_MD[6]).T).T
    assert np.abs(white_BD.mean(axis=0)).max() < 0.04
    assert np.abs(np.cov(white_BD.T) - np.eye(DIMS)).max() < 0.06


@settings(max_examples=20)
@given(st.floats(1e-12, 1.0 - 1e-12), st.integers(0, 1))
def test_the_weight_of_a_cluster_does_not_matter_once_it_is_asked_for(weight: float, cluster: int) -> None:
    labels, draw = np.zeros(8, dtype=np.int64), {"mode": "cluster", "cluster": cluster}
    drawn = first_attempts(sampler(make_mixture(first_weight=weight), draw=draw, counts=(9, 0, 0)), labels)
    assert drawn.z_BD.tobytes() == first_attempts(sampler(draw=draw, counts=(9, 0, 0)), labels).z_BD.tobytes()
    assert (drawn.clusters_B == cluster).all()


def test_close_around_a_code_is_the_code_in_every_class() -> None:
    drawn = first_attempts(sampler(draw={"mode": "around", "code": CODE, "distance": 1e-9}), labels_of(60))
    np.testing.assert_allclose(drawn.z_BD, np.tile(CODE, (60, 1)), atol=1e-7)


def test_as_far_as_it_goes_around_a_code_is_its_cluster() -> None:
    labels, cluster = np.full(40, 2), 1
    code = tuple((MEAN_MD[4] + FACTOR_MDD[4] @ np.full(DIMS, 0.1)).tolist())
    around = first_attempts(sampler(draw={"mode": "around", "code": code, "distance": 1.0}), labels)
    within = first_attempts(sampler(draw={"mode": "cluster", "cluster": cluster}, counts=(0, 0, 9)), labels)
    assert around.z_BD.tobytes() == within.z_BD.tobytes()
    assert around.clusters_B.tobytes() == within.clusters_B.tobytes()


def test_samples_leave_a_code_as_the_distance_grows() -> None:
    spread = [
        np.linalg.norm(
            first_attempts(sampler(draw={"mode": "around", "code": CODE, "distance": d}), labels_of(90)).z_BD - CODE,
            axis=1,
        ).mean()
        for d in (0.01, 0.1, 0.3, 0.9)
    ]
    assert spread == sorted(spread)
    assert spread[0] < 0.05 * spread[-1]


def test_between_two_codes_is_their_line_evenly() -> None:
    drawn = first_attempts(sampler(draw=DRAWS["between"]), labels_of(3000))
    start_D, way_D = np.array(CODE), np.array(OTHER) - np.array(CODE)
    share_B = (drawn.z_BD - start_D) @ way_D / (way_D @ way_D)
    np.testing.assert_allclose(drawn.z_BD, start_D + share_B[:, None] * way_D, atol=1e-12)
    assert share_B.min() > 0.0
    assert share_B.max() < 1.0
    assert kstest(share_B, "uniform").pvalue > 0.01
    near = first_attempts(sampler(draw=DRAWS["between"] | {"distance": 1e-9}), labels_of(3000))
    np.testing.assert_allclose(near.z_BD, drawn.z_BD, atol=1e-6)
    assert np.array_equal(near.clusters_B, drawn.clusters_B)


def test_around_the_line_samples_leave_it() -> None:
    line, around = (
        first_attempts(sampler(draw=DRAWS[name]), labels_of(90)).z_BD for name in ("between", "around the line")
    )
    assert (np.linalg.norm(line - around, axis=1) > 1e-3).all()


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"draw": {"mode": "cluster", "cluster": 1}}, "draw.cluster", "0 in class 'b', got 1"),
        ({"draw": {"mode": "cluster", "cluster": 4}, "counts": (0, 0, 1)}, "draw.cluster", r"0 \.\. 3 in class 'c'"),
        ({"draw": {"mode": "around", "code": (1.0,), "distance": 0.5}}, "draw.code", "5 numbers.*got 1$"),
        ({"draw": {"mode": "between", "start": (1.0,), "end": (2.0,)}}, "draw.start", "5 numbers"),
    ],
)
def test_a_draw_that_the_distribution_has_not_got_is_refused(changes: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        sampler(**changes)
    assert caught.value.field == field


def test_a_class_that_is_not_drawn_need_not_have_the_cluster() -> None:
    draw = {"mode": "cluster", "cluster": 1}
    assert (first_attempts(sampler(draw=draw, counts=(1, 0, 1)), np.array([0, 2, 0])).clusters_B == 1).all()


def test_locating_undoes_sampling_row_by_row() -> None:
    labels, rows = labels_of(60), np.random.default_rng(0).permutation(60)
    drawn = MIXTURE.sample(noise(1, np.arange(60), np.zeros(60, dtype=np.int64), DIMS), labels)
    found = MIXTURE.to_noise(drawn.z_BD, labels)
    np.testing.assert_allclose(MIXTURE.sample(found, labels).z_BD, drawn.z_BD, atol=1e-9)
    for part in np.array_split(rows, 9):
        again = MIXTURE.to_noise(drawn.z_BD[part], labels[part])
        assert again.normal_BD.tobytes() == found.normal_BD[part].tobytes()
        assert again.choice_B.tobytes() == found.choice_B[part].tobytes()
    chosen = Noise(MIXTURE.choice_for_cluster(drawn.cluster_B, labels), found.normal_BD)
    assert np.array_equal(MIXTURE.sample(chosen, labels).cluster_B, drawn.cluster_B)

"""The fixed map of a bundle: what it shows, that it is linear and batch-invariant, and what cannot be loaded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.errors import BundleError
from generator.models.latents.code_map import CodeMap, load_code_map
from generator.models.latents.codes import Codes
from generator.models.latents.fitting.code_map import fit_code_map


def labelled(codes_ND: np.ndarray, labels_N: np.ndarray) -> Codes:
    names = tuple(f"class {label}" for label in range(int(labels_N.max()) + 1))
    return Codes(codes_ND, labels_N, codes_ND[:3], labels_N[:3], names)


def unlabelled(codes_ND: np.ndarray) -> Codes:
    return Codes(codes_ND, None, codes_ND[:3], None)


def classes_along_two_axes(count: int, dims: int, *, spread: float = 1.0) -> Codes:
    """Three classes that differ in dimensions 1 and 2 only; dimension 0 has by far the largest variance."""
    rng, labels_N = np.random.default_rng(0), np.arange(count) % 3
    codes_ND = rng.normal(scale=spread, size=(count, dims))
    codes_ND[:, 0] *= 50.0
    codes_ND[:, 1:3] += np.array([[0.0, 0.0], [20.0, 0.0], [0.0, 10.0]])[labels_N]
    return labelled(codes_ND, labels_N)


@pytest.mark.parametrize("dims", [3, 16, 600])
def test_the_classes_of_a_labelled_bundle_lie_apart(dims: int) -> None:
    codes = classes_along_two_axes(1200, dims)
    found_N2 = fit_code_map(codes).coordinates(codes.codes_ND)
    centres_32 = np.stack([found_N2[codes.labels_N == label].mean(axis=0) for label in range(3)])
    within_2 = np.sqrt(np.mean([found_N2[codes.labels_N == label].var(axis=0) for label in range(3)], axis=0))
    assert within_2 == pytest.approx(1.0, abs=0.01)
    distances = [np.linalg.norm(centres_32[one] - centres_32[other]) for one, other in ((0, 1), (0, 2), (1, 2))]
    assert min(distances) > 5.0


def test_without_labels_the_axes_are_the_widest_directions() -> None:
    codes_ND = np.random.default_rng(0).normal(size=(4000, 5)) * np.array([1.0, 9.0, 0.5, 3.0, 0.1])
    axes_2D = fit_code_map(unlabelled(codes_ND)).axes_2D
    assert np.abs(axes_2D).argmax(axis=1).tolist() == [1, 3]
    assert axes_2D.max(axis=1) == pytest.approx([1 / 9, 1 / 3], rel=0.05)
    assert fit_code_map(unlabelled(codes_ND)).coordinates(codes_ND).std(axis=0) == pytest.approx(1.0, abs=1e-3)


def test_two_classes_have_one_discriminant_and_the_widest_direction_beside_it() -> None:
    rng, labels_N = np.random.default_rng(0), np.arange(3000) % 2
    codes_ND = rng.normal(size=(3000, 4)) * np.array([1.0, 1.0, 6.0, 1.0])
    codes_ND[:, 0] += 30.0 * labels_N
    axes_2D = fit_code_map(labelled(codes_ND, labels_N)).axes_2D
    assert np.abs(axes_2D).argmax(axis=1).tolist() == [0, 2]


@pytest.mark.parametrize(
    "codes",
    [
        unlabelled(np.random.default_rng(0).normal(size=(20, 1))),
        labelled(np.random.default_rng(0).normal(size=(20, 1)), np.arange(20) % 3),
        labelled(np.random.default_rng(0).normal(size=(20, 6)), np.zeros(20, dtype=np.int64)),
        labelled(np.ones((20, 4)), np.arange(20) % 2),
        labelled(np.repeat(np.eye(3), 4, axis=0), np.repeat(np.arange(3), 4)),
        unlabelled(np.ones((20, 4))),
        unlabelled(np.array([[0.0, 1.0], [2.0, 3.0]])),
        unlabelled(np.ones((20, 600))),
        unlabelled(np.random.default_rng(0).normal(size=(2, 600))),
        labelled(1e6 * np.random.default_rng(0).normal(size=(9, 600)), np.arange(9)),
    ],
)
def test_degenerate_codes_have_a_finite_map(codes: Codes) -> None:
    code_map = fit_code_map(codes)
    assert (code_map.centre_D.shape, code_map.axes_2D.shape) == ((codes.dims,), (2, codes.dims))
    assert np.isfinite(code_map.axes_2D).all()
    assert np.abs(code_map.coordinates(codes.codes_ND)).max() < 1e8


@pytest.mark.parametrize("dims", [5, 600])
def test_signs_do_not_depend_on_those_of_the_eigenvectors(dims: int) -> None:
    axes_2D = fit_code_map(classes_along_two_axes(300, dims)).axes_2D
    assert (axes_2D[np.arange(2), np.abs(axes_2D).argmax(axis=1)] > 0.0).all()


@settings(max_examples=40, deadline=None)
@given(dims=st.integers(1, 700), seed=st.integers(0, 2**32), size=st.integers(1, 39))
def test_a_coordinate_does_not_depend_on_the_batch(dims: int, seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    code_map = CodeMap(rng.normal(size=dims), rng.normal(size=(2, dims)))
    z_BD = rng.normal(size=(40, dims)) * 10.0 ** rng.integers(-6, 6, size=(40, dims))
    whole_B2 = code_map.coordinates(z_BD)
    order = rng.permutation(40)
    for rows in (*np.split(np.arange(40), range(size, 40, size)), order, order[::3]):
        assert code_map.coordinates(z_BD[rows]).tobytes() == whole_B2[rows].tobytes()
    assert code_map.coordinates(np.asfortranarray(z_BD)).tobytes() == whole_B2.tobytes()
    expected_B2 = (z_BD - code_map.centre_D) @ code_map.axes_2D.T
    assert np.allclose(whole_B2, expected_B2, rtol=1e-6, atol=1e-5 * np.abs(z_BD).max())


def test_coordinates_leave_the_codes_as_they_are() -> None:
    z_BD = np.random.default_rng(0).normal(size=(9, 4))
    before = z_BD.copy()
    CodeMap(np.ones(4), np.ones((2, 4))).coordinates(z_BD)
    assert np.array_equal(z_BD, before)


@pytest.mark.parametrize(
    "damage",
    [
        lambda tensors: {"centre": tensors["centre"]},
        lambda tensors: tensors | {"more": np.zeros(1)},
        lambda tensors: tensors | {"centre": np.zeros(3)},
        lambda tensors: tensors | {"axes": np.zeros((3, 4))},
        lambda tensors: tensors | {"axes": np.zeros((2, 4), dtype=np.float32)},
    ],
)
def test_other_tensors_are_refused(damage: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> None:
    tensors = CodeMap(np.ones(4), np.ones((2, 4))).tensors()
    assert np.array_equal(load_code_map(tensors, 4).axes_2D, np.ones((2, 4)))
    with pytest.raises(BundleError, match=r"map\.safetensors"):
        load_code_map(damage(tensors), 4)

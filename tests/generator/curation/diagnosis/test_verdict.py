"""The verdict on codes, and the recommended sampler."""

from __future__ import annotations

import numpy as np
import pytest

from generator.curation.diagnosis.code_subset import choose_codes
from generator.curation.diagnosis.convexity import OffSupport, Support, fit_support
from generator.curation.diagnosis.diagnose import recommend_sampler, verdict_of_codes
from generator.curation.diagnosis.samplers import sample_like_holdout
from generator.curation.diagnosis.verdict import THRESHOLDS
from generator.errors import SourceError
from generator.models.latents.codes import Codes
from generator.models.latents.fitting.fit import fit
from tests.support.sample_codes import blobs, gaussian, ring

pytestmark = pytest.mark.slow


def scattered(count: int) -> Codes:
    """Ten classes in many small clusters, mixed at random."""
    rng = np.random.default_rng(0)
    centre_KD = rng.uniform(-20.0, 20.0, (150, 2))
    cluster_N = rng.integers(0, 150, count * 4 // 3)
    codes_ND = centre_KD[cluster_N] + 0.3 * rng.normal(size=(len(cluster_N), 2))
    labels_N = np.where(rng.uniform(size=len(cluster_N)) < 0.5, cluster_N % 10, rng.integers(0, 10, len(cluster_N)))
    held = np.arange(len(codes_ND)) % 4 == 0
    names = tuple("abcdefghij")
    return Codes(codes_ND[~held], labels_N[~held], codes_ND[held], labels_N[held], names)


def off_support(codes: Codes, family: str) -> float:
    """The off-support share of samples of a sampler fitted to all of ``codes``."""
    from generator.models.latents.config import parse_sampler

    subset = choose_codes(codes, 0)
    support = fit_support(subset)
    assert isinstance(support, Support)
    fitted = fit(codes, parse_sampler({"family": family})).distribution
    found = support.measure_off_support(*sample_like_holdout(fitted, subset.holdout_labels_H, seed=0))
    assert isinstance(found, OffSupport)
    return found.share


def test_on_a_ring_a_gaussian_leaves_the_support_and_auto_does_not() -> None:
    codes = ring(1200)
    verdict = verdict_of_codes(codes, quick=True)
    assert verdict.kind == "ring-like"
    assert "flow or polar" in verdict.sentence
    taken = recommend_sampler(codes).family
    assert taken in ("polar", "flow")
    assert off_support(codes, "gaussian") > 0.5
    assert off_support(codes, taken) < 0.15


@pytest.mark.parametrize(
    ("codes", "kind"),
    [
        (blobs(600), "clustered and convex"),
        (gaussian(600, dims=3), "one convex cloud"),
        (scattered(1500), "scattered"),
        (Codes(np.zeros((50, 2)), None, np.zeros((20, 2)), None), "collapsed"),
    ],
    ids=["blobs", "gaussian", "scattered", "constant"],
)
def test_kinds(codes: Codes, kind: str) -> None:
    assert verdict_of_codes(codes, quick=True).kind == kind


def test_simple_codes_get_a_simple_sampler_that_can_be_fitted() -> None:
    for codes in (gaussian(500, dims=3), blobs(400)):
        settings = recommend_sampler(codes)
        assert settings.family in ("gaussian", "mixture")
        assert fit(codes, settings).distribution.dims == codes.dims
        assert settings == recommend_sampler(codes)


def test_constant_codes_have_no_sampler() -> None:
    codes = Codes(np.zeros((50, 2)), None, np.zeros((20, 2)), None)
    assert verdict_of_codes(codes, quick=True).sampler is None
    with pytest.raises(SourceError):
        recommend_sampler(codes)


def test_a_collapsed_posterior_is_told_by_its_variance() -> None:
    codes = gaussian(300, dims=2)
    tiny = Codes(codes.codes_ND * 0.01, None, codes.holdout_HD * 0.01, None)
    assert verdict_of_codes(tiny, quick=True, prior=True).kind == "collapsed"
    assert verdict_of_codes(tiny, quick=True, prior=False).kind == "one convex cloud"


def test_a_class_with_hardly_any_held_out_codes_is_no_obstacle() -> None:
    codes = blobs(300)
    assert codes.labels_N is not None
    assert codes.holdout_labels_H is not None
    kept = np.flatnonzero(codes.holdout_labels_H == 0)
    held = np.concatenate([kept, np.flatnonzero(codes.holdout_labels_H == 1)[:1]])
    few = Codes(codes.codes_ND, codes.labels_N, codes.holdout_HD[held], codes.holdout_labels_H[held], codes.class_names)
    assert verdict_of_codes(few, quick=True).kind == "clustered and convex"


@pytest.mark.parametrize("dims", [1, 2, 5])
def test_few_codes_of_any_dimension_are_judged(dims: int) -> None:
    codes = gaussian(30, dims=dims)
    verdict = verdict_of_codes(codes, quick=True)
    assert verdict.sampler is not None
    assert any("convexity was not measured" in remark for remark in verdict.remarks)
    assert "convex" not in verdict.kind


def test_thresholds_leave_room_for_what_held_out_codes_do_themselves() -> None:
    assert 0.05 < THRESHOLDS.off_support <= THRESHOLDS.convex

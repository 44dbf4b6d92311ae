"""Each sampler on trial: fitted to the codes, drawn from, and its samples held against held-out codes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from generator.curation.diagnosis.code_subset import CodeSubset, limit_codes
from generator.curation.diagnosis.convexity import OffSupport, Support
from generator.curation.diagnosis.round_trip import ReturnShare, RoundTrip
from generator.curation.diagnosis.two_sample import Accuracy, Discrepancy, classifier_test, mmd_test
from generator.curation.diagnosis.unmeasured import Unmeasured
from generator.errors import BuildError, SourceError
from generator.models.latents.base import LatentDistribution
from generator.models.latents.codes import Codes
from generator.models.latents.config import (
    FlowSettings,
    GaussianSettings,
    MixtureSettings,
    PolarSettings,
    SamplerSettings,
)
from generator.models.latents.fitting.fit import fit
from generator.spec.canonical import FrozenModel
from generator.spec.seeding import noise

_SAMPLES = 2_000
_TRIAL_FLOW = FlowSettings(epochs=40, patience=4)  # a shorter training than its usual one, which takes minutes


@dataclass(frozen=True, eq=False)
class Candidate:
    """A fitted distribution, or why there is none. ``settings`` is what would fit it again."""

    name: str
    settings: SamplerSettings | None
    fitted: LatentDistribution | Unmeasured


class SamplerFacts(FrozenModel):
    """What one sampler does with these codes.

    ``log_likelihood``: mean natural log-density of a held-out code of its class. ``behind``: nats a code behind the
    likeliest of all, with its standard error over codes. ``off_support``, ``returns``: of samples.
    """

    name: str
    log_likelihood: float | Unmeasured
    behind: float = 0.0
    behind_error: float = 0.0
    off_support: OffSupport | Unmeasured
    classifier: Accuracy | Unmeasured
    discrepancy: Discrepancy | Unmeasured
    returns: ReturnShare | Unmeasured


@dataclass(frozen=True, eq=False)
class TrialContext:
    """What samplers are held against. ``tests``: also the two-sample tests, which take most of the time."""

    codes: CodeSubset
    support: Support | Unmeasured
    round_trip: RoundTrip | Unmeasured
    seed: int
    tests: bool = True


def fit_candidates(codes: Codes, seed: int, *, ring: bool, flow: bool = True) -> list[Candidate]:
    """The samplers of this program with their usual settings, fitted to at most ``views.MAX_FIT`` of ``codes``.

    ``polar`` only for a ``ring`` in two dimensions. A sampler that cannot be fitted says why instead.
    """
    some = limit_codes(codes, seed)
    wanted: list[SamplerSettings] = [GaussianSettings(), MixtureSettings()]
    wanted += [PolarSettings()] if ring and codes.dims == 2 else []
    wanted += [FlowSettings()] if flow else []
    on_trial = [_TRIAL_FLOW if isinstance(settings, FlowSettings) else settings for settings in wanted]
    return [
        Candidate(settings.family, settings, _try_fit(some, tried, seed))
        for settings, tried in zip(wanted, on_trial, strict=True)
    ]


def _try_fit(codes: Codes, settings: SamplerSettings, seed: int) -> LatentDistribution | Unmeasured:
    try:
        return fit(codes, settings, seed=seed).distribution
    except (SourceError, BuildError) as refused:
        return Unmeasured(why=str(refused))


def evaluate_candidates(tried: list[Candidate], bench: TrialContext) -> tuple[SamplerFacts, ...]:
    """The facts of each candidate, in the same order."""
    log_density = {c.name: _log_density(c.fitted, bench.codes) for c in tried}
    measured = {name: found_H for name, found_H in log_density.items() if isinstance(found_H, np.ndarray)}
    best_H = max(measured.values(), key=lambda found_H: float(found_H.mean()), default=np.zeros(0))
    facts = []
    for candidate in tried:
        found_H = measured.get(candidate.name)
        gap_H = np.zeros(1) if found_H is None else best_H - found_H
        said = log_density[candidate.name]
        facts.append(
            _measure_candidate(candidate, bench).model_copy(
                update={
                    "log_likelihood": said if isinstance(said, Unmeasured) else float(said.mean()),
                    "behind": float(gap_H.mean()),
                    "behind_error": float(gap_H.std() / np.sqrt(len(gap_H))),
                }
            )
        )
    return tuple(facts)


def _log_density(fitted: LatentDistribution | Unmeasured, view: CodeSubset) -> np.ndarray | Unmeasured:
    if isinstance(fitted, Unmeasured):
        return fitted
    if not len(view.holdout_HD):
        return Unmeasured(why="no held-out codes")
    return fitted.log_prob(view.holdout_HD, view.holdout_labels_H)


def _measure_candidate(candidate: Candidate, bench: TrialContext) -> SamplerFacts:
    fitted, view = candidate.fitted, bench.codes
    if isinstance(fitted, Unmeasured) or not len(view.holdout_HD):
        why = fitted if isinstance(fitted, Unmeasured) else Unmeasured(why="no held-out codes")
        return SamplerFacts(
            name=candidate.name, log_likelihood=why, off_support=why, classifier=why, discrepancy=why, returns=why
        )
    z_BD, labels_B = sample_like_holdout(fitted, view.holdout_labels_H, bench.seed)
    same_HD = z_BD[: len(view.holdout_HD)]  # as many as there are held-out codes, with their very labels
    skipped = Unmeasured(why="left out")
    return SamplerFacts(
        name=candidate.name,
        log_likelihood=0.0,
        off_support=bench.support
        if isinstance(bench.support, Unmeasured)
        else bench.support.measure_off_support(z_BD, labels_B),
        classifier=_classifier_test(same_HD, bench) if bench.tests else skipped,
        discrepancy=mmd_test(same_HD, view.holdout_HD, seed=bench.seed) if bench.tests else skipped,
        returns=bench.round_trip
        if isinstance(bench.round_trip, Unmeasured)
        else bench.round_trip.measure_returns(z_BD),
    )


def _classifier_test(same_HD: np.ndarray, bench: TrialContext) -> Accuracy | Unmeasured:
    """The classifier also sees how far a point is from the training codes of its class: a fixed function of the point
    and its label, without which so small a network finds little in many dimensions."""
    view = bench.codes
    seen = [
        _with_support_distance(points_HD, view.holdout_labels_H, bench.support)
        for points_HD in (same_HD, view.holdout_HD)
    ]
    return classifier_test(*seen, seed=bench.seed)


def _with_support_distance(points_HD: np.ndarray, labels_H: np.ndarray, support: Support | Unmeasured) -> np.ndarray:
    if isinstance(support, Unmeasured):
        return points_HD
    ratio_H = np.nan_to_num(support.distance_ratios(points_HD, labels_H), nan=1.0)
    return np.concatenate([points_HD, np.log(np.maximum(ratio_H, 1e-9))[:, None]], axis=1)


def sample_like_holdout(fitted: LatentDistribution, labels_H: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(z_BD, labels_B): samples with the labels of the holdout, which is gone through as often as needed."""
    rows_B = np.arange(max(_SAMPLES, len(labels_H)))
    labels_B = labels_H[rows_B % len(labels_H)]
    return fitted.sample(noise(seed, rows_B, np.zeros_like(rows_B), fitted.dims), labels_B).z_BD, labels_B

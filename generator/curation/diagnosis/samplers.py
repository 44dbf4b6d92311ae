"""Sampler trials: fit each sampler, draw samples, and compare them with held-out codes."""

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
    TransportSettings,
)
from generator.models.latents.fitting.fit import fit
from generator.models.latents.transport_map import to_codes
from generator.spec.canonical import FrozenModel
from generator.spec.seeding import noise

MAX_TRIAL_DIMS = 256  # of codes; beyond, fitting mixtures and flows takes many minutes
_SAMPLES = 2_000
_TRIAL_FLOW = FlowSettings(epochs=40, patience=4)  # shorter than the default training, which takes minutes


@dataclass(frozen=True, eq=False)
class Candidate:
    """A fitted distribution, or why there is none. ``settings``: to fit the sampler again."""

    name: str
    settings: SamplerSettings | None
    fitted: LatentDistribution | Unmeasured


class SamplerFacts(FrozenModel):
    """The measures of one sampler on these codes.

    ``log_likelihood``: mean natural log-density of held-out codes, given their class. ``behind``: how many nats per
    code this is below the best sampler; ``behind_error``: its standard error over codes. ``off_support``,
    ``classifier``, ``discrepancy``, ``returns``: of samples.
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
    """What samplers are compared with. ``tests``: run the two-sample tests, which take most of the time."""

    codes: CodeSubset
    support: Support | Unmeasured
    round_trip: RoundTrip | Unmeasured
    seed: int
    tests: bool = True


def fit_candidates(codes: Codes, seed: int, *, ring: bool, flow: bool = True) -> list[Candidate]:
    """Fit all samplers, with their default settings, to at most ``code_subset.MAX_FIT`` of ``codes``.

    ``polar`` is fitted only for a ``ring`` in two dimensions. In more than ``MAX_TRIAL_DIMS`` dimensions, only the base
    of a ``transport`` is fitted. If a sampler cannot be fitted, the candidate says why.
    """
    some = limit_codes(codes, seed)
    wanted: list[SamplerSettings] = [GaussianSettings(), MixtureSettings()]
    wanted += [PolarSettings()] if ring and codes.dims == 2 else []
    wanted += [FlowSettings()] if flow else []
    trained = [settings for settings in wanted if settings.family in ("mixture", "flow")]
    if codes.dims > MAX_TRIAL_DIMS:
        why = Unmeasured(why=f"{codes.dims} dimensions, more than {MAX_TRIAL_DIMS}")
        untried = [Candidate(settings.family, settings, why) for settings in trained]
        gaussian = TransportSettings(map=None)
        return [Candidate(gaussian.family, gaussian, _try_fit(some, gaussian, seed)), *untried]
    settings_to_fit = [_TRIAL_FLOW if isinstance(settings, FlowSettings) else settings for settings in wanted]
    return [
        Candidate(settings.family, settings, _try_fit(some, tried, seed))
        for settings, tried in zip(wanted, settings_to_fit, strict=True)
    ]


def _try_fit(codes: Codes, settings: SamplerSettings, seed: int) -> LatentDistribution | Unmeasured:
    try:
        return fit(codes, settings, seed=seed).distribution
    except (SourceError, BuildError) as refused:
        return Unmeasured(why=str(refused))


def evaluate_candidates(tried: list[Candidate], context: TrialContext) -> tuple[SamplerFacts, ...]:
    """Measure each candidate; results in the same order."""
    log_density = {c.name: _log_density(c.fitted, context.codes) for c in tried}
    measured = {name: found_H for name, found_H in log_density.items() if isinstance(found_H, np.ndarray)}
    best_H = max(measured.values(), key=lambda found_H: float(found_H.mean()), default=np.zeros(0))
    facts = []
    for candidate in tried:
        found_H = measured.get(candidate.name)
        gap_H = np.zeros(1) if found_H is None else best_H - found_H
        log_density_H = log_density[candidate.name]
        facts.append(
            _measure_candidate(candidate, context).model_copy(
                update={
                    "log_likelihood": log_density_H
                    if isinstance(log_density_H, Unmeasured)
                    else float(log_density_H.mean()),
                    "behind": float(gap_H.mean()),
                    "behind_error": float(gap_H.std() / np.sqrt(len(gap_H))),
                }
            )
        )
    return tuple(facts)


def _log_density(fitted: LatentDistribution | Unmeasured, subset: CodeSubset) -> np.ndarray | Unmeasured:
    if isinstance(fitted, Unmeasured):
        return fitted
    if not len(subset.holdout_HD):
        return Unmeasured(why="no held-out codes")
    return fitted.log_prob(subset.holdout_HD, subset.holdout_labels_H)


def _measure_candidate(candidate: Candidate, context: TrialContext) -> SamplerFacts:
    fitted, subset = candidate.fitted, context.codes
    if isinstance(fitted, Unmeasured) or not len(subset.holdout_HD):
        why = fitted if isinstance(fitted, Unmeasured) else Unmeasured(why="no held-out codes")
        return SamplerFacts(
            name=candidate.name, log_likelihood=why, off_support=why, classifier=why, discrepancy=why, returns=why
        )
    z_BD, labels_B = sample_like_holdout(fitted, subset.holdout_labels_H, context.seed)
    same_HD = z_BD[: len(subset.holdout_HD)]  # as many as held-out codes, with the same labels
    skipped = Unmeasured(why="left out")
    return SamplerFacts(
        name=candidate.name,
        log_likelihood=0.0,
        off_support=context.support
        if isinstance(context.support, Unmeasured)
        else context.support.measure_off_support(z_BD, labels_B),
        classifier=_classifier_test(same_HD, context) if context.tests else skipped,
        discrepancy=mmd_test(same_HD, subset.holdout_HD, seed=context.seed) if context.tests else skipped,
        returns=context.round_trip
        if isinstance(context.round_trip, Unmeasured)
        else context.round_trip.measure_returns(z_BD),
    )


def _classifier_test(same_HD: np.ndarray, context: TrialContext) -> Accuracy | Unmeasured:
    """The classifier test with one more feature: the distance to the training codes of the class.

    It is a fixed function of the point and its label. Without it, so small a network finds little in many dimensions.
    """
    subset = context.codes
    points = [
        _with_support_distance(points_HD, subset.holdout_labels_H, context.support)
        for points_HD in (same_HD, subset.holdout_HD)
    ]
    return classifier_test(*points, seed=context.seed)


def _with_support_distance(points_HD: np.ndarray, labels_H: np.ndarray, support: Support | Unmeasured) -> np.ndarray:
    if isinstance(support, Unmeasured):
        return points_HD
    ratio_H = np.nan_to_num(support.distance_ratios(points_HD, labels_H), nan=1.0)
    return np.concatenate([points_HD, np.log(np.maximum(ratio_H, 1e-9))[:, None]], axis=1)


def sample_like_holdout(fitted: LatentDistribution, labels_H: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(z_BD, labels_B): at least 2,000 samples, with the labels of the holdout, repeated as often as needed."""
    rows_B = np.arange(max(_SAMPLES, len(labels_H)))
    labels_B = labels_H[rows_B % len(labels_H)]
    z_BD = fitted.sample(noise(seed, rows_B, np.zeros_like(rows_B), fitted.dims), labels_B).z_BD
    return to_codes(fitted, z_BD, labels_B), labels_B

"""Diagnose a latent space: take all measures, try samplers, and compare two diagnoses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from generator.curation.diagnosis.clustering import Hopkins, agreement, hopkins, silhouette
from generator.curation.diagnosis.code_subset import CodeSubset, choose_codes
from generator.curation.diagnosis.convexity import OffSupport, fit_support, midpoints
from generator.curation.diagnosis.dimension import Dimension, active_dimensions, two_nn
from generator.curation.diagnosis.round_trip import DECODE_BATCH, ReturnShare, RoundTrip, calibrate_round_trip
from generator.curation.diagnosis.samplers import (
    Candidate,
    SamplerFacts,
    TrialContext,
    evaluate_candidates,
    fit_candidates,
)
from generator.curation.diagnosis.topology import Loop, measure_loop, ring_classes
from generator.curation.diagnosis.unmeasured import Unmeasured
from generator.curation.diagnosis.verdict import LatentShape, Verdict, choose_sampler, has_hole, make_verdict
from generator.errors import BundleError, SourceError
from generator.models.autoencoders.config import limit_batch
from generator.models.autoencoders.factory import load_encoder
from generator.models.bundle import Bundle, load_codes, load_encoder_weights
from generator.models.bundle.format import CODES_FILE, ENCODER_FILE
from generator.models.latents.codes import Codes
from generator.models.latents.config import SamplerSettings, TransportSettings
from generator.production.decoding import ResidentDecoder
from generator.spec.canonical import FrozenModel
from generator.store.base import Store

OnStep = Callable[[str], None]
IN_BUNDLE = "in the bundle"
PROGRESS_STEPS = 4  # calls of ``say`` by ``diagnose``


class Diagnosis(FrozenModel):
    """All measures of one latent space, and the verdict. A measure that could not be taken says why.

    ``midpoints``: the off-support share of points between two codes of a class; ``midpoints_return``: the share of
    them that return after decoding.
    """

    seed: int
    training_codes: int
    holdout_codes: int
    shape_measured_on: str
    latent_dim: int
    active_dims: int
    intrinsic_dimension: Dimension | Unmeasured
    hopkins: Hopkins | Unmeasured
    agreement: float | Unmeasured
    class_silhouette: float | Unmeasured
    cluster_silhouette: float | Unmeasured
    loop: Loop | Unmeasured
    ring_classes: tuple[str, ...]
    midpoints: OffSupport | Unmeasured
    midpoints_return: ReturnShare | Unmeasured
    samplers: tuple[SamplerFacts, ...]
    verdict: Verdict


def diagnose(
    store: Store, bundle: Bundle, *, seed: int = 0, quick: bool = False, say: OnStep = lambda _: None
) -> Diagnosis:
    """Diagnose the bundle in ``store``. ``quick``: skip the flow, the two-sample tests and the round trip.

    ``say`` is called with the name of each step. Raises ``BundleError`` for a bundle without codes.
    """
    if CODES_FILE not in bundle.info.files:
        raise BundleError(CODES_FILE, "a bundle that carries its codes", "a bundle without codes", "use --no-diagnosis")
    codes = load_codes(store, bundle.info)
    subset, shape, context = _measure_codes(codes, seed, prior=bundle.info.autoencoder.family == "vae", say=say)
    say("round trip")
    round_trip = Unmeasured(why="left out") if quick else _round_trip(store, bundle, subset)
    context = TrialContext(subset, context.support, round_trip, seed, tests=not quick)
    say("fitting samplers")
    candidates = fit_candidates(codes, seed, ring=has_hole(shape), flow=not quick)
    say("trying samplers")
    own = Candidate(IN_BUNDLE, bundle.info.fitting.settings, bundle.latents)
    facts = evaluate_candidates([own, *candidates], context)
    midpoints_BD, _ = midpoints(subset.shape_SD, subset.shape_labels_S, seed=seed)
    return Diagnosis(
        seed=seed,
        training_codes=len(codes.codes_ND),
        holdout_codes=len(codes.holdout_HD),
        shape_measured_on=subset.shape_source,
        latent_dim=codes.dims,
        active_dims=shape.active_dims,
        intrinsic_dimension=two_nn(subset.shape_SD),
        hopkins=shape.hopkins,
        agreement=shape.agreement,
        class_silhouette=silhouette(subset.shape_SD, subset.shape_labels_S),
        cluster_silhouette=silhouette(subset.shape_SD, _cluster_labels(_find_mixture(bundle, candidates), subset)),
        loop=shape.loop,
        ring_classes=shape.ring_classes,
        midpoints=shape.midpoints,
        midpoints_return=round_trip if isinstance(round_trip, Unmeasured) else round_trip.measure_returns(midpoints_BD),
        samplers=facts,
        verdict=make_verdict(shape, tuple(f for f in facts if f.name != IN_BUNDLE)),
    )


def verdict_of_codes(codes: Codes, seed: int = 0, *, quick: bool = False, prior: bool = False) -> Verdict:
    """The verdict on codes without their networks.

    ``quick``: skip the flow. ``prior``: see ``active_dimensions``.
    """
    subset, shape, context = _measure_codes(codes, seed, prior=prior, say=lambda _: None)
    candidates = fit_candidates(codes, seed, ring=has_hole(shape), flow=not quick)
    return make_verdict(
        shape,
        evaluate_candidates(candidates, TrialContext(subset, context.support, context.round_trip, seed, tests=False)),
    )


def recommend_sampler(codes: Codes, seed: int = 0) -> SamplerSettings:
    """The recommended sampler for these codes; ``latentmill fit --sampler auto`` uses it.

    For codes that are grids, a transport. Otherwise chosen by the shape of the cloud of codes, the off-support share of
    each sampler's samples, and the likelihood of held-out codes. Raises ``SourceError`` if no sampler can be fitted.
    """
    if len(codes.shape) > 1:
        return TransportSettings()
    subset, shape, context = _measure_codes(codes, seed, prior=False, say=lambda _: None)
    candidates = fit_candidates(codes, seed, ring=has_hole(shape))
    name, _ = choose_sampler(
        shape,
        evaluate_candidates(candidates, TrialContext(subset, context.support, context.round_trip, seed, tests=False)),
    )
    found = next((candidate.settings for candidate in candidates if candidate.name == name), None)
    if found is None:
        why = next(c.fitted.why for c in candidates if isinstance(c.fitted, Unmeasured))
        raise SourceError("sampler", "codes that a sampler can be fitted to", why)
    return found


def _measure_codes(
    codes: Codes, seed: int, *, prior: bool, say: OnStep
) -> tuple[CodeSubset, LatentShape, TrialContext]:
    subset = choose_codes(codes, seed)
    shape_SD, labels_S = subset.shape_SD, subset.shape_labels_S
    say("clusters and holes")
    support = fit_support(subset)
    between = midpoints(shape_SD, labels_S, seed=seed)
    labelled = len(subset.class_names) > 1
    shape = LatentShape(
        active_dims=int(active_dimensions(subset.train_ND, prior=prior).sum()),
        dims=subset.dims,
        labelled=labelled,
        agreement=agreement(subset.train_ND, subset.train_labels_N, shape_SD, labels_S),
        hopkins=hopkins(shape_SD, seed=seed),
        loop=measure_loop(shape_SD, seed=seed),
        ring_classes=tuple(ring_classes(shape_SD, labels_S, subset.class_names, seed=seed)) if labelled else (),
        midpoints=support if isinstance(support, Unmeasured) else support.measure_off_support(*between),
    )
    return subset, shape, TrialContext(subset, support, Unmeasured(why="left out"), seed)


def _round_trip(store: Store, bundle: Bundle, subset: CodeSubset) -> RoundTrip | Unmeasured:
    if ENCODER_FILE not in bundle.info.files:
        return Unmeasured(why="the bundle carries no encoder")
    import torch

    config, weights = bundle.info.autoencoder, load_encoder_weights(store, bundle.info)
    try:
        encoder = load_encoder(config, {name: torch.from_numpy(array) for name, array in weights.items()})
    except RuntimeError as mismatch:
        raise BundleError(ENCODER_FILE, "the weights of the network in bundle.json", mismatch) from mismatch
    decoder = ResidentDecoder(
        bundle, batch=limit_batch(bundle.info.autoencoder, DECODE_BATCH), dtype="float32", device="cpu", mapped=False
    )
    return calibrate_round_trip(
        decoder, encoder, subset.holdout_HD, active_dimensions(subset.train_ND, prior=config.family == "vae")
    )


def _find_mixture(bundle: Bundle, candidates: list[Candidate]) -> Candidate:
    """The mixture whose clusters are measured: the bundle's own or, without one, the fitted candidate."""
    if bundle.info.fitting.settings.family == "mixture":
        return Candidate(IN_BUNDLE, None, bundle.latents)
    return next(candidate for candidate in candidates if candidate.name == "mixture")


def _cluster_labels(mixture: Candidate, subset: CodeSubset) -> np.ndarray:
    """int64 (S,): the cluster of each code, numbered over all classes; all 0 without a mixture."""
    if isinstance(mixture.fitted, Unmeasured):
        return np.zeros(len(subset.shape_SD), dtype=np.int64)
    noise = mixture.fitted.to_noise(subset.shape_SD, subset.shape_labels_S)
    cluster_S = mixture.fitted.sample(noise, subset.shape_labels_S).cluster_B.astype(np.int64)
    clusters_S: np.ndarray = subset.shape_labels_S * (1 + cluster_S.max(initial=0)) + cluster_S
    return clusters_S


class Comparison(FrozenModel):
    """Which of two latent spaces is better to sample: ``blue`` (the first), ``red`` (the second), or ``neither``."""

    better: Literal["blue", "red", "neither"]
    reasons: tuple[str, ...]


def compare(blue: Diagnosis, red: Diagnosis) -> Comparison:
    """Compare two latent spaces: by off-support, return and separability rates of midpoints and samples."""
    if (blue.active_dims == 0) != (red.active_dims == 0):
        better: Literal["blue", "red"] = "red" if blue.active_dims == 0 else "blue"
        return Comparison(better=better, reasons=("the other latent space has collapsed",))
    votes, reasons = 0, []
    for name, value_of, higher_is_better, minimum in _CRITERIA:
        first, second = value_of(blue), value_of(red)
        if first is None or second is None or abs(first - second) < minimum:
            continue
        red_wins = (second > first) == higher_is_better
        votes += 1 if red_wins else -1
        winner, value, other = ("red", second, first) if red_wins else ("blue", first, second)
        reasons.append(f"{name}: {winner} {value:.1%} against {other:.1%}")
    found: Literal["blue", "red", "neither"] = "neither" if votes == 0 else "red" if votes > 0 else "blue"
    return Comparison(better=found, reasons=tuple(reasons) or ("no measure differs enough",))


def _share_or_none(found: OffSupport | ReturnShare | Unmeasured) -> float | None:
    return None if isinstance(found, Unmeasured) else found.share


def _value_or_none(found: float | Unmeasured) -> float | None:
    return None if isinstance(found, Unmeasured) else found


def _own_sampler(diagnosis: Diagnosis) -> SamplerFacts:
    """The measures of the sampler in the bundle."""
    return next(facts for facts in diagnosis.samplers if facts.name == IN_BUNDLE)


def _classifier_accuracy(diagnosis: Diagnosis) -> float | None:
    found = _own_sampler(diagnosis).classifier
    return None if isinstance(found, Unmeasured) else found.accuracy


# name, value, whether higher is better, minimum difference that counts
_Criterion = tuple[str, Callable[[Diagnosis], float | None], bool, float]
_CRITERIA: tuple[_Criterion, ...] = (
    ("points between codes off support", lambda d: _share_or_none(d.midpoints), False, 0.02),
    ("points between codes that return after decoding", lambda d: _share_or_none(d.midpoints_return), True, 0.02),
    ("neighbours of the same class", lambda d: _value_or_none(d.agreement), True, 0.02),
    ("samples off support", lambda d: _share_or_none(_own_sampler(d).off_support), False, 0.02),
    ("samples that return after decoding", lambda d: _share_or_none(_own_sampler(d).returns), True, 0.02),
    ("samples told from held-out codes", _classifier_accuracy, False, 0.03),
)

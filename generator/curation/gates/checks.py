"""One function per gate. Each returns a ``Check``; ``None`` if the gate is switched off."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from generator.curation.gates.config import AutoShare, Gates
from generator.curation.gates.drift import MIN_IMAGES, Drift, confidence_drop, drift
from generator.curation.gates.image_subset import ImageSubset
from generator.curation.gates.verdict import Check
from generator.curation.quality.duplicates import duplicates
from generator.models.screening.config import NOVELTY_FLOOR, PassRates
from generator.models.screening.copy_index import CopyIndex, block_sums
from generator.production.provenance.manifest import Manifest
from generator.spec.canonical import short_repr

AUTO_COPIES, AUTO_DRIFT, AUTO_CONFIDENCE_DROP = 0.01, 0.1, 0.2  # thresholds of ``auto``
_SIGNIFICANCE = 0.01  # a drift with a larger p-value passes
_MAX_NEAR = 1000  # images of the near-duplicate check
_NO_PROMOTED_BUILD = "no build was promoted before"


def check_counts(manifest: Manifest) -> Check:
    """By the receipts, every class must have exactly the number of images in the recipe."""
    expected = [int(count) for count in manifest.recipe.get("counts", ())]
    actual = np.sum([receipt.counts for receipt in manifest.shards], axis=0).tolist() if manifest.shards else []
    holds = expected == actual == list(manifest.counts) and sum(expected) == manifest.samples
    words = (
        f"{manifest.samples:,} images, as in the recipe"
        if holds
        else f"images per class: {actual} instead of {expected}"
    )
    return Check(gate="counts", holds=holds, measured=sum(actual), threshold=sum(expected), words=words)


def check_images(manifest: Manifest, minimum: int) -> Check:
    words = f"{manifest.samples:,} images; at least {minimum:,}"
    return Check(
        gate="images", holds=manifest.samples >= minimum, measured=manifest.samples, threshold=minimum, words=words
    )


def check_balance(manifest: Manifest, minimum: float) -> Check:
    """The smallest class over the largest, of all classes of the bundle."""
    ratio = min(manifest.counts) / max(max(manifest.counts), 1)
    smallest = _class_name(manifest.classes, int(np.argmin(manifest.counts)))
    words = f"the smallest class, {smallest}, has {ratio:.0%} of the images of the largest; at least {minimum:.0%}"
    return Check(gate="balance", holds=ratio >= minimum, measured=ratio, threshold=minimum, words=words)


def check_copies(
    subset: ImageSubset, copy_index: CopyIndex | None, pass_rates: PassRates, allowed: AutoShare
) -> Check | None:
    """The share of images that may be nearer to a training image than the 0.1% quantile of held-out real images.

    ``auto`` allows 1% more than the share among the bundle's own samples at training. If most of those could not be
    told from copies, ``auto`` is not measured.
    """
    if allowed is None:
        return None
    default = 0.0 if pass_rates.novelty is None else 1.0 - pass_rates.novelty
    if copy_index is None:
        return _unmeasured("copies", allowed, "the bundle was not found, or has no copy index of its training images")
    if allowed == "auto" and pass_rates.novelty_floor is None and pass_rates.novelty is not None:
        return _unmeasured(
            "copies", allowed, f"by its copy index, {default:.0%} of the bundle's own samples could be copies"
        )
    share = float(copy_index.is_copy(subset.images_NHWC, NOVELTY_FLOOR).mean())
    description = f"{share:.2%} of {len(subset):,} images are as near to a training image as copies are"
    return _at_most_or_auto("copies", share, allowed, min(1.0, AUTO_COPIES + default), description)


def check_duplicates(subset: ImageSubset, allowed: float | None) -> Check | None:
    """The share of images that equal another image, among all images of the shards that were read."""
    if allowed is None:
        return None
    _, times = np.unique(subset.digests_M, return_counts=True)
    share = float(times[times > 1].sum() / len(subset.digests_M))
    description = f"{share:.2%} of {len(subset.digests_M):,} images equal another one"
    return _at_most_or_auto("duplicates", share, allowed, allowed, description)


def check_near_duplicates(subset: ImageSubset, copy_index: CopyIndex | None, allowed: float | None) -> Check | None:
    """The share of near duplicates among (at most) 1,000 images; the share grows with the number of images."""
    if allowed is None:
        return None
    if copy_index is None or len(subset) < 2:
        why = "the build has a single image" if copy_index else "the bundle was not found, or has no copy index"
        return _unmeasured("near_duplicates", allowed, why)
    count = min(len(subset), _MAX_NEAR)
    points_NP = (
        block_sums(subset.images_NHWC[np.arange(count) * len(subset) // count], copy_index.block) / copy_index.block
    )
    share = 1.0
    if (points_NP != points_NP[0]).any():
        share = duplicates(points_NP, threshold=copy_index.distance_floor(NOVELTY_FLOOR)).near / count
    description = f"{share:.2%} of {count:,} images are as near to another one as copies are"
    return _at_most_or_auto("near_duplicates", share, allowed, allowed, description)


def check_classes(current: Manifest, promoted: Manifest) -> Check:
    """Every class with images in the last promoted build must have images in the current one."""
    promoted_classes = [name for name, count in zip(promoted.classes, promoted.counts, strict=False) if count]
    current_classes = {name for name, count in zip(current.classes, current.counts, strict=False) if count}
    missing = [short_repr(name) for name in promoted_classes if name not in current_classes]
    words = "no class is missing"
    if missing:
        words = f"no image of {', '.join(missing[:10])}, which the last promoted build had"
    return Check(gate="classes", holds=not missing, measured=len(missing), threshold=0, words=words)


def check_against_promoted(
    current: ImageSubset | None, promoted: ImageSubset | None, gates: Gates, manifest: Manifest
) -> tuple[Check | None, ...]:
    """Drift and confidence drop against the last promoted build. Both subsets use the same label numbers."""
    if current is None or promoted is None:
        return (
            _unmeasured("drift", gates.drift, _NO_PROMOTED_BUILD),
            _unmeasured("confidence", gates.confidence_drop, _NO_PROMOTED_BUILD),
        )
    return (
        _check_drift(current, promoted, gates.drift, manifest),
        _check_confidence(current, promoted, gates.confidence_drop, manifest),
    )


def _check_drift(current: ImageSubset, promoted: ImageSubset, allowed: AutoShare, manifest: Manifest) -> Check | None:
    if allowed is None:
        return None
    if current.images_NHWC.shape[1:] != promoted.images_NHWC.shape[1:]:
        sizes = " instead of ".join("x".join(map(str, each.images_NHWC.shape[1:])) for each in (current, promoted))
        return Check(gate="drift", holds=False, measured=1.0, words=f"images of {sizes} pixels")
    found: Drift | None = drift(current, promoted, labelled=bool(manifest.classes))
    if found is None:
        return _unmeasured("drift", allowed, f"fewer than {MIN_IMAGES} images")
    description = (
        f"difference to the last promoted build {found.share:.3f} (0: same, 1: disjoint; p = {found.p_value:.3f})"
    )
    check = _at_most_or_auto("drift", found.share, allowed, AUTO_DRIFT, description, percent=False)
    assert check is not None
    return check.model_copy(update={"holds": check.holds or found.p_value > _SIGNIFICANCE})


def _check_confidence(
    current: ImageSubset, promoted: ImageSubset, allowed: AutoShare, manifest: Manifest
) -> Check | None:
    found = confidence_drop(current, promoted, len(manifest.classes))
    if found is None:
        return _unmeasured("confidence", allowed, "one of the builds has too few label confidences of the judge")
    drop, label = found
    description = (
        f"the judge's confidence in the labels of {_class_name(manifest.classes, label)} dropped by {drop:.3f}"
    )
    return _at_most_or_auto("confidence", drop, allowed, AUTO_CONFIDENCE_DROP, description, percent=False)


def at_most(gate: str, measured: float, allowed: float, description: str) -> Check:
    """A check that passes if ``measured`` is at most ``allowed``."""
    return Check(
        gate=gate,
        holds=measured <= allowed,
        measured=measured,
        threshold=allowed,
        words=f"{description}; at most {allowed:g}",
    )


def at_least(gate: str, measured: float, required: float, description: str) -> Check:
    """A check that passes if ``measured`` is at least ``required``."""
    return Check(
        gate=gate,
        holds=measured >= required,
        measured=measured,
        threshold=required,
        words=f"{description}; at least {required:g}",
    )


def _at_most_or_auto(
    gate: str, measured: float, allowed: AutoShare, default: float, description: str, *, percent: bool = True
) -> Check | None:
    if allowed is None:
        return None
    limit = default if isinstance(allowed, str) else allowed
    words = f"{description}; at most {limit:.2%}" if percent else f"{description}; at most {limit:g}"
    return Check(gate=gate, holds=measured <= limit, measured=measured, threshold=limit, words=words)


def _unmeasured(gate: str, allowed: AutoShare, why: str) -> Check | None:
    """A gate that cannot be measured: ``auto`` passes, an explicit threshold fails, except without a promoted build."""
    if allowed is None:
        return None
    holds = None if isinstance(allowed, str) or why == _NO_PROMOTED_BUILD else False
    return Check(gate=gate, holds=holds, words=f"not measured: {why}")


def _class_name(names: Sequence[str], label: int) -> str:
    return short_repr(names[label]) if names else "the only one"

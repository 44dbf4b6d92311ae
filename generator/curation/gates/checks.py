"""One function for each gate: what was measured, whether that holds, and the same in plain words."""

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

AUTO_COPIES, AUTO_DRIFT, AUTO_CONFIDENCE_DROP = 0.01, 0.1, 0.2  # ``auto``
_SIGNIFICANCE = 0.01  # a drift that is as likely as this between two builds of one distribution is none
_MAX_NEAR = 1000


def check_counts(manifest: Manifest) -> Check:
    """Every class has exactly the images that the recipe asks for, by the receipts."""
    asked = [int(count) for count in manifest.recipe.get("counts", ())]
    made = np.sum([receipt.counts for receipt in manifest.shards], axis=0).tolist() if manifest.shards else []
    holds = asked == made == list(manifest.counts) and sum(asked) == manifest.samples
    words = (
        f"{manifest.samples:,} images, as the recipe asks" if holds else f"{made} images by class instead of {asked}"
    )
    return Check(gate="counts", holds=holds, measured=sum(made), threshold=sum(asked), words=words)


def check_images(manifest: Manifest, least: int) -> Check:
    words = f"{manifest.samples:,} images; at least {least:,} are asked for"
    return Check(
        gate="images", holds=manifest.samples >= least, measured=manifest.samples, threshold=least, words=words
    )


def check_balance(manifest: Manifest, least: float) -> Check:
    """The smallest class over the largest, of all classes of the bundle."""
    ratio = min(manifest.counts) / max(max(manifest.counts), 1)
    rare = _class_name(manifest.classes, int(np.argmin(manifest.counts)))
    words = (
        f"the smallest class, {rare}, has {ratio:.0%} of the images of the largest; at least {least:.0%} is asked for"
    )
    return Check(gate="balance", holds=ratio >= least, measured=ratio, threshold=least, words=words)


def check_copies(looked: ImageSubset, sketch: CopyIndex | None, passing: PassRates, allowed: AutoShare) -> Check | None:
    """Images that may lie nearer to a training image than the 0.1% quantile of the held-out real ones.

    By itself the gate allows one in a hundred more than the bundle's own samples showed when it was trained; where most
    of those could not be told from copies, the sketch says nothing of this bundle.
    """
    if allowed is None:
        return None
    usual = 0.0 if passing.novelty is None else 1.0 - passing.novelty
    if sketch is None:
        return _unmeasured("copies", allowed, "the bundle was not found, or has no sketch of its training images")
    if allowed == "auto" and passing.novelty_floor is None and passing.novelty is not None:
        return _unmeasured("copies", allowed, f"of the bundle's own samples {usual:.0%} could be copies by its sketch")
    share = float(sketch.is_copy(looked.images_NHWC, NOVELTY_FLOOR).mean())
    what = f"{share:.2%} of {len(looked):,} images lie as near to a training image as copies do"
    return _at_most_or_auto("copies", share, allowed, min(1.0, AUTO_COPIES + usual), what)


def check_duplicates(looked: ImageSubset, allowed: float | None) -> Check | None:
    """Images that another one of the build equals, in all shards that were looked at."""
    if allowed is None:
        return None
    _, times = np.unique(looked.digests_M, return_counts=True)
    share = float(times[times > 1].sum() / len(looked.digests_M))
    what = f"{share:.2%} of {len(looked.digests_M):,} images equal another one"
    return _at_most_or_auto("duplicates", share, allowed, allowed, what)


def check_near_duplicates(looked: ImageSubset, sketch: CopyIndex | None, allowed: float | None) -> Check | None:
    """Of 1,000 images those that lie as near to another one as copies do: of more, more would."""
    if allowed is None:
        return None
    if sketch is None or len(looked) < 2:
        why = "the build has a single image" if sketch else "the bundle was not found, or has no sketch"
        return _unmeasured("near_duplicates", allowed, why)
    count = min(len(looked), _MAX_NEAR)
    points_NP = block_sums(looked.images_NHWC[np.arange(count) * len(looked) // count], sketch.block) / sketch.block
    share = 1.0
    if (points_NP != points_NP[0]).any():
        share = duplicates(points_NP, threshold=sketch.distance_floor(NOVELTY_FLOOR)).near / count
    what = f"{share:.2%} of {count:,} images lie as near to another one as copies do"
    return _at_most_or_auto("near_duplicates", share, allowed, allowed, what)


def check_classes(ours: Manifest, theirs: Manifest) -> Check:
    """Classes that the last promoted build had images of, and this one has not."""
    had = [name for name, count in zip(theirs.classes, theirs.counts, strict=False) if count]
    have = {name for name, count in zip(ours.classes, ours.counts, strict=False) if count}
    lost = [short_repr(name) for name in had if name not in have]
    words = f"no image of {', '.join(lost[:10])}, which the last promoted build had" if lost else "no class is missing"
    return Check(gate="classes", holds=not lost, measured=len(lost), threshold=0, words=words)


def check_against_promoted(
    ours: ImageSubset | None, theirs: ImageSubset | None, gates: Gates, manifest: Manifest
) -> tuple[Check | None, ...]:
    """Drift and confidence against the last promoted build; ``theirs`` has the label numbers of ``ours``."""
    none = "no build was promoted before"
    if ours is None or theirs is None:
        return _unmeasured("drift", gates.drift, none), _unmeasured("confidence", gates.confidence_drop, none)
    return _check_drift(ours, theirs, gates.drift, manifest), _check_confidence(
        ours, theirs, gates.confidence_drop, manifest
    )


def _check_drift(ours: ImageSubset, theirs: ImageSubset, allowed: AutoShare, manifest: Manifest) -> Check | None:
    if allowed is None:
        return None
    if ours.images_NHWC.shape[1:] != theirs.images_NHWC.shape[1:]:
        sizes = " instead of ".join("x".join(map(str, each.images_NHWC.shape[1:])) for each in (ours, theirs))
        return Check(gate="drift", holds=False, measured=1.0, words=f"images of {sizes} pixels")
    found: Drift | None = drift(ours, theirs, labelled=bool(manifest.classes))
    if found is None:
        return _unmeasured("drift", allowed, f"fewer than {MIN_IMAGES} images")
    what = f"{found.share:.3f} unlike the last promoted build (0 alike, 1 nothing in common; p = {found.p_value:.3f})"
    check = _at_most_or_auto("drift", found.share, allowed, AUTO_DRIFT, what, percent=False)
    assert check is not None
    return check.model_copy(update={"holds": check.holds or found.p_value > _SIGNIFICANCE})


def _check_confidence(ours: ImageSubset, theirs: ImageSubset, allowed: AutoShare, manifest: Manifest) -> Check | None:
    found = confidence_drop(ours, theirs, len(manifest.classes))
    if found is None:
        return _unmeasured("confidence", allowed, "no judge looked at both builds")
    fall, label = found
    what = f"the judge believes in the labels of {_class_name(manifest.classes, label)} by {fall:+.3f} less than before"
    return _at_most_or_auto("confidence", fall, allowed, AUTO_CONFIDENCE_DROP, what, percent=False)


def at_most(gate: str, measured: float, allowed: float, what: str) -> Check:
    """A check of a plain number."""
    return Check(
        gate=gate, holds=measured <= allowed, measured=measured, threshold=allowed, words=f"{what}; at most {allowed:g}"
    )


def at_least(gate: str, measured: float, asked: float, what: str) -> Check:
    """A check of a plain number."""
    return Check(
        gate=gate, holds=measured >= asked, measured=measured, threshold=asked, words=f"{what}; at least {asked:g}"
    )


def _at_most_or_auto(
    gate: str, measured: float, allowed: AutoShare, usual: float, what: str, *, percent: bool = True
) -> Check | None:
    if allowed is None:
        return None
    limit = usual if isinstance(allowed, str) else allowed
    words = f"{what}; at most {limit:.2%}" if percent else f"{what}; at most {limit:g}"
    return Check(gate=gate, holds=measured <= limit, measured=measured, threshold=limit, words=words)


def _unmeasured(gate: str, allowed: AutoShare, why: str) -> Check | None:
    """Nothing is held against a build for want of a measure, unless somebody asked for it with a number."""
    if allowed is None:
        return None
    first = why == "no build was promoted before"
    holds = None if isinstance(allowed, str) or first else False
    return Check(gate=gate, holds=holds, words=f"not measured: {why}")


def _class_name(names: Sequence[str], label: int) -> str:
    return short_repr(names[label]) if names else "the only one"

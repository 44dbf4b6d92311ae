"""The verdict on a latent space, and the choice of a sampler for ``latentmill fit --sampler auto``."""

from __future__ import annotations

from typing import Literal, final

from generator.curation.diagnosis.clustering import Hopkins
from generator.curation.diagnosis.convexity import OffSupport
from generator.curation.diagnosis.samplers import SamplerFacts
from generator.curation.diagnosis.topology import Loop
from generator.curation.diagnosis.unmeasured import Unmeasured
from generator.spec.canonical import FrozenModel

Kind = Literal[
    "collapsed",
    "ring-like",
    "clustered and convex",
    "one convex cloud",
    "clustered, not convex",
    "scattered",
    "undecided",
]


@final
class Thresholds(FrozenModel):
    """Thresholds of the verdict, with the reasons for their values."""

    convex: float = 0.15  # off-support share of midpoints: three times that of held-out codes (5%)
    agreement: float = 0.75  # share of neighbours of the same class: three of four; 1 / classes by chance
    blurred: float = 0.60  # agreement below which samples often look like another class: two of five neighbours differ
    scattered: float = 0.40  # agreement below which classes are mixed: most neighbours differ
    hopkins: float = 0.60  # against one Gaussian; single Gaussians stay within 0.5 +- 0.06 at 180 codes
    off_support: float = 0.10  # of samples: twice the 5% of the holdout; below it, samplers are equally safe
    off_support_slack: float = 0.05  # above the best sampler's share: about two standard errors of small holdouts
    nats: float = 0.05  # per code: smaller differences of held-out likelihood are ignored


THRESHOLDS = Thresholds()

_SENTENCES: dict[Kind, str] = {
    "collapsed": "the codes hardly differ, so every sample is the same image; train with a smaller beta or longer",
    "ring-like": "codes lie around a hole that a Gaussian would fill; use flow or polar",
    "clustered and convex": "a point between two codes of a class is among codes; mixture is safe",
    "one convex cloud": "a point between two codes is among codes, but clusters overlap; "
    "gaussian and mixture are safe, classes may look alike",
    "clustered, not convex": "clusters are bent or broken, so points between codes fall outside; "
    "use flow, or a mixture of many clusters",
    "scattered": "neighbours belong to different classes, or points between codes fall outside; "
    "no sampler corrects that: train vae or adversarial, or with more dimensions",
    "undecided": "whether points between codes are among codes could not be measured; hold out more images",
}


class Verdict(FrozenModel):
    """``kind``: the shape of the codes; ``sentence``: the kind and what follows from it.

    ``sampler``: the recommended one; ``None`` if none can be fitted. ``because``: why this sampler.
    """

    kind: Kind
    sentence: str
    sampler: str | None
    because: str
    remarks: tuple[str, ...] = ()


class LatentShape(FrozenModel):
    """The measures of the codes that the verdict uses. ``ring_classes``: classes whose own codes form a ring."""

    active_dims: int
    dims: int
    labelled: bool
    agreement: float | Unmeasured
    hopkins: Hopkins | Unmeasured
    loop: Loop | Unmeasured
    ring_classes: tuple[str, ...]
    midpoints: OffSupport | Unmeasured


def make_verdict(shape: LatentShape, samplers: tuple[SamplerFacts, ...]) -> Verdict:
    """The verdict on a latent space, from its shape and the measured samplers."""
    kind = kind_of(shape)
    sampler, because = choose_sampler(shape, samplers)
    return Verdict(
        kind=kind, sentence=f"{kind}: {_SENTENCES[kind]}", sampler=sampler, because=because, remarks=_remarks(shape)
    )


def kind_of(shape: LatentShape) -> Kind:
    """The kind of the shape of the codes."""
    if shape.active_dims == 0:
        return "collapsed"
    convex = _is_convex(shape)
    if shape.ring_classes or (_has_global_hole(shape) and not (shape.labelled and convex)):
        return "ring-like"
    if not isinstance(shape.agreement, Unmeasured) and shape.agreement < THRESHOLDS.scattered:
        return "scattered"
    if isinstance(shape.midpoints, Unmeasured):
        return "undecided"
    clustered = _is_clustered(shape)
    if convex:
        return "clustered and convex" if clustered else "one convex cloud"
    return "clustered, not convex" if clustered else "scattered"


def choose_sampler(shape: LatentShape, samplers: tuple[SamplerFacts, ...]) -> tuple[str | None, str]:
    """(name, why): among the samplers that stay on the codes' support, the one likeliest on held-out codes.

    Among several that are about as likely as the best, the preferred one: the simplest or, for a ring, one made for it.
    """
    fitted = [facts for facts in samplers if not isinstance(facts.log_likelihood, Unmeasured)]
    if not fitted:
        return None, "no sampler can be fitted to these codes"
    least = min((_off_support_share(facts) for facts in fitted), default=0.0)
    limit = max(THRESHOLDS.off_support, least + THRESHOLDS.off_support_slack)
    safe = [facts for facts in fitted if _off_support_share(facts) <= limit]
    likeliest = min(safe, key=lambda facts: facts.behind)
    tied = [f for f in safe if f.behind - likeliest.behind <= max(THRESHOLDS.nats, 2.0 * _gap_error(f, likeliest))]
    order = _preference(shape)
    chosen = min(tied, key=lambda facts: order.index(facts.name))
    return chosen.name, _choice_reason(chosen, likeliest, fitted, safe)


def _preference(shape: LatentShape) -> tuple[str, ...]:
    if shape.ring_classes or (_has_global_hole(shape) and not shape.labelled):
        return ("polar", "flow", "mixture", "gaussian", "transport")
    if _has_global_hole(shape):
        return ("polar", "mixture", "flow", "gaussian", "transport")
    return ("gaussian", "mixture", "flow", "polar", "transport")


def _choice_reason(
    chosen: SamplerFacts, likeliest: SamplerFacts, fitted: list[SamplerFacts], safe: list[SamplerFacts]
) -> str:
    parts = []
    if not isinstance(chosen.off_support, Unmeasured):
        parts.append(f"{chosen.off_support.share:.0%} of its samples lie off the codes' support")
    rejected = [facts for facts in fitted if facts not in safe]
    parts += [f"{facts.name} has {_off_support_share(facts):.0%} there" for facts in rejected]
    others = len(safe) - 1
    if others and chosen is likeliest:
        parts.append("held-out codes are likeliest under it")
    elif others:
        parts.append(f"held-out codes are not noticeably likelier under {likeliest.name}")
    return "; ".join(parts) or "the only sampler that can be fitted"


def _off_support_share(facts: SamplerFacts) -> float:
    return 0.0 if isinstance(facts.off_support, Unmeasured) else facts.off_support.share


def _gap_error(facts: SamplerFacts, likeliest: SamplerFacts) -> float:
    return 0.0 if facts is likeliest else facts.behind_error


def _is_convex(shape: LatentShape) -> bool:
    return isinstance(shape.midpoints, Unmeasured) or shape.midpoints.share <= THRESHOLDS.convex


def has_hole(shape: LatentShape) -> bool:
    """Whether all codes together, or the codes of one class, surround a hole."""
    return bool(shape.ring_classes) or _has_global_hole(shape)


def _has_global_hole(shape: LatentShape) -> bool:
    return isinstance(shape.loop, Loop) and shape.loop.ring


def _is_clustered(shape: LatentShape) -> bool:
    if not isinstance(shape.agreement, Unmeasured):
        return shape.agreement >= THRESHOLDS.agreement
    return isinstance(shape.hopkins, Hopkins) and shape.hopkins.against_gaussian >= THRESHOLDS.hopkins


def _remarks(shape: LatentShape) -> tuple[str, ...]:
    found = []
    if 0 < shape.active_dims < shape.dims:
        found.append(f"{shape.dims - shape.active_dims} of {shape.dims} dimensions carry no information")
    if _has_global_hole(shape) and shape.labelled and not shape.ring_classes:
        found.append("the classes lie around a hole: sampling within a class is safe, walking across it may not be")
    if shape.ring_classes:
        found.append(f"classes that form rings: {', '.join(shape.ring_classes)}")
    if not isinstance(shape.agreement, Unmeasured) and shape.agreement < THRESHOLDS.blurred:
        found.append(
            f"only {shape.agreement:.0%} of a code's neighbours are of its class: "
            "samples of a class will often look like another; more dimensions separate them"
        )
    if isinstance(shape.midpoints, Unmeasured):
        found.append(f"convexity was not measured: {shape.midpoints.why}")
    return tuple(found)

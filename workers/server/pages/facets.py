"""What a page offers for filtering: classes, clusters and histogram bars, each with the link that chooses it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar
from urllib.parse import urlencode

from generator.datasets.exploration.columns import BINS
from generator.datasets.exploration.summary import Counts, Histogram, Summary
from generator.datasets.exploration.view import Range, View

MAX_CHOICES = 60  # classes, or clusters, that a page lists
_BAR_WIDTH = 100
_BAR_HEIGHT = 100
COLOURS = 10  # that the style sheet has

T = TypeVar("T")


@dataclass(frozen=True)
class Choice:
    """A class or a cluster. ``width``: of its bar, for the selected samples, of 100; ``chosen``: whether it filters."""

    id: str
    name: str
    selected: int
    all: int
    width: float
    chosen: bool
    href: str
    colour: int


@dataclass(frozen=True)
class Choices:
    """``more``: how many others are not listed."""

    title: str
    choices: tuple[Choice, ...]
    more: int


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram, of 100 units height; ``shown`` for the selected samples, ``whole`` for all."""

    id: str
    text: str
    whole: float
    shown: float
    chosen: bool
    href: str


@dataclass(frozen=True)
class Bars:
    """A histogram."""

    name: str
    title: str
    low: str
    high: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Active:
    """A filter that applies, in words, and the link without it."""

    text: str
    href: str


def link(base: str, view: View) -> str:
    """The address of a view."""
    query = urlencode(view.query())
    return f"{base}?{query}" if query else base


def choices(base: str, view: View, summary: Summary, classes: tuple[str, ...]) -> list[Choices]:
    """Classes and clusters, those with most selected samples first where they are many."""
    found = []
    if summary.classes is not None:
        names = [str(name) for name in classes]
        hrefs = [link(base, replace(view, classes=_toggled(view.classes, name), page=1)) for name in classes]
        found.append(_choices("class", names, hrefs, {classes.index(name) for name in view.classes}, summary.classes))
    names = [f"cluster {number}" for number in range(len(summary.clusters.all_K))]
    if len(names) > 1:
        shown = range(len(names))
        hrefs = [link(base, replace(view, clusters=_toggled(view.clusters, number), page=1)) for number in shown]
        found.append(_choices("cluster", names, hrefs, set(view.clusters), summary.clusters))
    return found


def histograms(base: str, view: View, summary: Summary) -> list[Bars]:
    """The histograms of label confidence and log-density."""
    found = []
    if summary.confidence is not None:
        found.append(_bars(base, view, "confidence", "label confidence", summary.confidence, view.confidence))
    if summary.density is not None:
        found.append(_bars(base, view, "density", "log-density", summary.density, view.density))
    return found


def active(base: str, view: View) -> list[Active]:
    """The filters of a view, and how to be rid of each."""
    found = [
        Active(f"class {name}", link(base, replace(view, classes=_toggled(view.classes, name), page=1)))
        for name in view.classes
    ]
    found += [
        Active(f"cluster {number}", link(base, replace(view, clusters=_toggled(view.clusters, number), page=1)))
        for number in view.clusters
    ]
    if view.confidence is not None:
        text = f"label confidence {view.confidence.text}"
        found.append(Active(text, link(base, replace(view, confidence=None, page=1))))
    if view.density is not None:
        found.append(Active(f"log-density {view.density.text}", link(base, replace(view, density=None, page=1))))
    if view.region is not None:
        text = f"a region of {len(view.region.corners)} corners"
        found.append(Active(text, link(base, replace(view, region=None, page=1))))
    if view.refused != "all":
        text = {"before": "draws were refused before", "never": "the first draw was taken"}[view.refused]
        found.append(Active(text, link(base, replace(view, refused="all", page=1))))
    if view.where:
        found.append(Active(view.where, link(base, replace(view, where="", page=1))))
    return found


def _toggled(chosen: tuple[T, ...], one: T) -> tuple[T, ...]:
    return tuple(each for each in chosen if each != one) if one in chosen else (*chosen, one)


def _choices(title: str, names: list[str], hrefs: list[str], chosen: set[int], counts: Counts) -> Choices:
    selected, whole = counts.selected_K.tolist(), counts.all_K.tolist()
    top = max(1, *whole) if whole else 1
    places = range(len(names))
    if len(names) > MAX_CHOICES:
        ranked = sorted(places, key=lambda place: (place not in chosen, -selected[place], place))
        places = sorted(ranked[:MAX_CHOICES])  # type: ignore[assignment]
    listed = tuple(
        Choice(
            id=f"{title}-{place}",
            name=names[place],
            selected=selected[place],
            all=whole[place],
            width=round(_BAR_WIDTH * selected[place] / top, 2),
            chosen=place in chosen,
            href=hrefs[place],
            colour=place % COLOURS,
        )
        for place in places
    )
    return Choices(title, listed, len(names) - len(listed))


def _bars(base: str, view: View, name: str, title: str, histogram: Histogram, limits: Range | None) -> Bars:
    axis, top = histogram.axis, max(1, int(histogram.all_B.max()))
    bars = []
    for place, (whole, shown) in enumerate(zip(histogram.all_B.tolist(), histogram.selected_B.tolist(), strict=True)):
        low, high = axis.edge(place), axis.edge(place + 1)
        own = Range(float(f"{low:.7g}"), float(f"{high:.7g}"))
        chosen = limits is not None and limits.low <= own.low and own.high <= limits.high
        changed = replace(view, **{name: None if limits == own else own}, page=1)  # type: ignore[arg-type]
        bars.append(
            Bar(
                id=f"{name}-{place}",
                text=f"{title} {own.low:.4g} to {own.high:.4g}: {shown:,} of {whole:,}",
                whole=round(_BAR_HEIGHT * whole / top, 2),
                shown=round(_BAR_HEIGHT * shown / top, 2),
                chosen=chosen,
                href=link(base, changed),
            )
        )
    return Bars(name, title, f"{axis.low:.4g}", f"{axis.edge(BINS):.4g}", tuple(bars))

"""A view of a build: which samples are looked at, in which order, in which colours; and its text in a link."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar, get_args

from generator.datasets.exploration.regions import Region, parse_region
from generator.datasets.sample_filter import MAX_LENGTH
from generator.errors import SpecError
from generator.spec.canonical import short_repr

Refused = Literal["all", "never", "before"]
Order = Literal["index", "confidence", "-confidence", "density", "-density"]
Colour = Literal["class", "cluster", "confidence"]
REFUSED, ORDERS, COLOURS = get_args(Refused), get_args(Order), get_args(Colour)

MAX_CHOSEN = 200  # classes, or clusters
MAX_PAGE = 10_000_000
_RANGE = re.compile(r"(?P<low>[-+0-9.eE]*)\.\.(?P<high>[-+0-9.eE]*)")
_RANGE_FORM = "two numbers with .. between them, of which one may be missing, such as 0.5..0.9"
_NAMES = ("class", "cluster", "confidence", "density", "refused", "region", "where", "order", "colour", "page")

T = TypeVar("T", bound=str)


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included."""

    low: float = -math.inf
    high: float = math.inf

    @property
    def text(self) -> str:
        """As a link has it."""
        ends = ("" if math.isinf(end) else f"{end:.7g}" for end in (self.low, self.high))
        return "..".join(ends)


@dataclass(frozen=True)
class View:
    """Samples of some ``classes`` (by name; all if empty) and ``clusters``, within ranges of label confidence and
    log-density, in a region of the map, and selected by ``where``. ``refused``: ``never`` for samples whose first draw
    was taken, ``before`` for those of which draws were refused before."""

    classes: tuple[str, ...] = ()
    clusters: tuple[int, ...] = ()
    confidence: Range | None = None
    density: Range | None = None
    refused: Refused = "all"
    region: Region | None = None
    where: str = ""
    order: Order = "index"
    colour: Colour = "class"
    page: int = field(default=1)

    def query(self) -> list[tuple[str, str]]:
        """The parameters of a link that reopens the view; defaults are left out."""
        found = [("class", name) for name in self.classes] + [("cluster", str(number)) for number in self.clusters]
        found += [("confidence", self.confidence.text)] if self.confidence else []
        found += [("density", self.density.text)] if self.density else []
        found += [("region", self.region.text)] if self.region else []
        plain = {"refused": (self.refused, "all"), "where": (self.where, ""), "order": (self.order, "index")}
        plain |= {"colour": (self.colour, "class"), "page": (str(self.page), "1")}
        return found + [(name, value) for name, (value, default) in plain.items() if value != default]


def parse_view(query: Sequence[tuple[str, str]], classes: Sequence[str]) -> View:
    """The view of the parameters of a link to a build with these classes; empty values count as missing ones.

    Raises ``SpecError`` naming the parameter. Parameters with other names are left alone.
    """
    values = dict[str, list[str]]()
    for name, value in query:
        if name in _NAMES and value.strip():
            values.setdefault(name, []).append(value)
    for name, found in values.items():
        if len(found) > (MAX_CHOSEN if name in ("class", "cluster") else 1):
            raise SpecError(
                name, "one value" if name not in ("class", "cluster") else f"at most {MAX_CHOSEN}", len(found)
            )
    one = {name: found[0] for name, found in values.items()}
    where = one.get("where", "").strip()
    if len(where) > MAX_LENGTH:
        raise SpecError("where", f"a filter of at most {MAX_LENGTH} characters", f"{len(where)} characters")
    return View(
        classes=_known_classes(values.get("class", []), classes),
        clusters=tuple(dict.fromkeys(_whole("cluster", text, 0, 10**6) for text in values.get("cluster", []))),
        confidence=_range("confidence", one),
        density=_range("density", one),
        refused=_choice("refused", one, REFUSED, "all"),
        region=parse_region(one["region"]) if "region" in one else None,
        where=where,
        order=_choice("order", one, ORDERS, "index"),
        colour=_choice("colour", one, COLOURS, "class"),
        page=_whole("page", one.get("page", "1"), 1, MAX_PAGE),
    )


def _known_classes(names: Sequence[str], classes: Sequence[str]) -> tuple[str, ...]:
    known = set(classes)
    for name in names:
        if name not in known:
            raise SpecError("class", "a class of the build", short_repr(name))
    return tuple(dict.fromkeys(names))


def _range(name: str, one: Mapping[str, str]) -> Range | None:
    if name not in one:
        return None
    match = _RANGE.fullmatch(one[name].strip())
    try:
        low, high = (float(match[end]) if match and match[end] else None for end in ("low", "high"))
    except ValueError:
        match, low, high = None, None, None
    if match is None or any(end is not None and math.isnan(end) for end in (low, high)):
        raise SpecError(name, _RANGE_FORM, short_repr(one[name]))
    return Range(-math.inf if low is None else low, math.inf if high is None else high)


def _choice(name: str, one: Mapping[str, str], known: Sequence[T], default: T) -> T:
    found = next((each for each in known if each == one.get(name, default)), None)
    if found is None:
        raise SpecError(name, f"one of {', '.join(known)}", short_repr(one[name]))
    return found


def _whole(name: str, text: str, low: int, high: int) -> int:
    if not re.fullmatch(r"\d{1,9}", text.strip()) or not low <= int(text) <= high:
        raise SpecError(name, f"a whole number from {low} to {high}", short_repr(text))
    return int(text)

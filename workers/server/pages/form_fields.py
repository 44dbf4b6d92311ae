"""The fields of the form for new jobs. Limits, choices and defaults are those of the models of a spec."""

from __future__ import annotations

import types
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from generator.spec.publication import Creator
from generator.spec.recipe import (
    MAX_CLUSTERS,
    AroundDraw,
    JpegSettings,
    PngSettings,
    Recipe,
    RowCode,
)
from workers.server.specs import DraftBody

Kind = Literal["text", "whole", "number", "floor", "choice", "date", "lines", "flag"]
# Fields that the form has in another way: with the lists of the tenant, or by class.
OF_THEIR_OWN = ("bundle", "channel", "destination", "count", "counts", "label_floors")
NOT_ASKED = ("tenant",)  # it is that of the key
_ONLY_FOR: dict[str, tuple[str, ...]] = {
    "image.quality": ("jpeg",),
    "image.subsampling": ("jpeg",),
    "image.level": ("png",),
    "draw.cluster": ("cluster",),
    "draw.reference": ("around", "between"),
    "draw.end": ("between",),
    "draw.distance": ("around", "between"),
}
_NAME = "1 to 63 lower-case letters, digits, - and _, with a letter or digit at both ends"
_LINE = "one line of at most 300 characters"
_ADDRESS = "a web address: https://..."
_ENDLESS = 1e9  # a limit beyond it is no news


@dataclass(frozen=True)
class FormField:
    """A field of the form. ``name``: as in the draft, with a dot where it is nested. ``choices``: value and label, the
    default first.

    ``help``: what it means; ``allowed``: which values, in words; ``empty``: what holds if it is left empty.
    """

    name: str
    label: str
    kind: Kind
    help: str = ""
    allowed: str = ""
    empty: str = ""
    choices: tuple[tuple[str, str], ...] = ()

    @property
    def only_for(self) -> tuple[str, ...]:
        """The kinds of image files or of draws that it belongs to; none if to all."""
        return _ONLY_FOR.get(self.name, ())

    @property
    def id(self) -> str:
        """Its id in the page."""
        return field_id(self.name)

    @property
    def hint(self) -> str:
        """What stands below it."""
        allowed = f"{self.allowed[:1].upper()}{self.allowed[1:]}." if self.allowed else ""
        return " ".join(filter(None, (self.help, allowed, f"Empty: {self.empty}." if self.empty else "")))


def field_id(name: str) -> str:
    """The id in the page of the field ``name``."""
    return "f-" + name.replace(".", "-")


@cache
def common_fields() -> tuple[FormField, ...]:
    """Those that most jobs state, beside bundle, place and number."""
    shards = {"webdataset": "WebDataset (tar)", "parquet": "Parquet", "mds": "MDS"}
    return (
        FormField("name", "Name", "text", "Of the dataset.", _NAME),
        _whole("seed", "Seed", "Another seed gives other images.", Recipe),
        _choice("image.format", "Image files", ("png", "jpeg"), {"png": "PNG, lossless", "jpeg": "JPEG"}, "png"),
        _whole("image.quality", "JPEG quality", "", JpegSettings),
        _whole("image.level", "PNG level", "0 is fast and large, 9 slow and small.", PngSettings),
        _derived_choice("format", "Shards", DraftBody, shards),
    )


@cache
def more_fields() -> tuple[tuple[str, tuple[FormField, ...]], ...]:
    """All others, by title."""
    return (
        ("Which samples", _sample_fields()),
        ("How it is built", _build_fields()),
        ("What card and Croissant file say", _publication_fields()),
    )


def all_fields() -> tuple[FormField, ...]:
    """Every field, in the order of the page."""
    return common_fields() + tuple(field for _, fields in more_fields() for field in fields)


def _sample_fields() -> tuple[FormField, ...]:
    modes = {
        "distribution": "the whole latent distribution",
        "cluster": "one cluster of each class",
        "around": "near a training image",
        "between": "between two training images",
    }
    less_likely = "Samples less likely than this share of held-out images are drawn again."
    wrong_class = "Images in which the judge sees less of their class are drawn again."
    too_near = "Images nearer to a training image than this share of held-out images are drawn again."
    near_centres = "Below 1, samples are more alike, and nearer to the centres of clusters."
    clusters = f"a whole number from 0 to {MAX_CLUSTERS - 1:,}"
    distance = "How far from the image; between two: how far from the line."
    return (
        _number("temperature", "Temperature", near_centres, Recipe),
        _number("density_floor", "Density floor", less_likely, Recipe),
        _floor("label_floor", "Label floor", wrong_class, Recipe),
        _floor("novelty_floor", "Novelty floor", too_near, Recipe),
        _whole("max_attempts", "Draws of a sample", "At most, before the job fails.", Recipe),
        _choice("draw.mode", "Drawn from", tuple(modes), modes, "distribution"),
        FormField("draw.cluster", "Cluster", "whole", "Numbered from 0 in each class.", clusters),
        _whole("draw.reference", "Training image", "Its row among the bundle's codes.", RowCode, "row"),
        _whole("draw.end", "Other training image", "Its row among the bundle's codes.", RowCode, "row"),
        _number("draw.distance", "Distance", distance, AroundDraw),
    )


def _build_fields() -> tuple[FormField, ...]:
    usual = {"auto": "as usual", "true": "yes", "false": "no"}
    return (
        _whole("shard_size", "Images of a shard", "", Recipe),
        _whole("batch", "Images decoded at a time", "", Recipe),
        _derived_choice("dtype", "Precision", Recipe, {}),
        _choice("latents", "Latent points in the tables", tuple(usual), usual, "auto"),
        _choice("page", "Page in the build", tuple(usual), usual, "auto"),
        _choice("sidecars", "Index for DALI beside shards", ("", "dali"), {"": "no", "dali": "yes"}, ""),
        _derived_choice("image.subsampling", "JPEG chroma", JpegSettings, {}),
        _whole("priority", "Priority", "Among your jobs; higher ones first.", DraftBody),
        _whole("revision", "Revision", "Tells builds of the same recipe apart.", Recipe),
        _derived_choice("recipe_version", "Recipe version", DraftBody, {"1": "1, of earlier releases", "2": "2"}),
    )


def _publication_fields() -> tuple[FormField, ...]:
    kinds = {"organization": "an organization", "person": "a person"}
    return (
        FormField("published", "Day of publication", "date", "", "auto, none, or a day as YYYY-MM-DD", "auto"),
        FormField("license", "License", "text", "An identifier such as cc-by-4.0, a URL, or a name.", _LINE),
        FormField("creator.name", "Creator", "text", "An organization or a person.", _LINE),
        _derived_choice("creator.kind", "Creator is", Creator, kinds),
        FormField("creator.url", "Creator's page", "text", "", _ADDRESS),
        FormField("citation", "How to cite it", "lines", "BibTeX or plain text."),
    )


def _whole(name: str, label: str, meaning: str, model: type[BaseModel], source: str = "") -> FormField:
    return _derived(name, label, "whole", meaning, model, source)


def _number(name: str, label: str, meaning: str, model: type[BaseModel]) -> FormField:
    return _derived(name, label, "number", meaning, model)


def _floor(name: str, label: str, meaning: str, model: type[BaseModel]) -> FormField:
    return _derived(name, label, "floor", meaning, model)


def _derived(name: str, label: str, kind: Kind, meaning: str, model: type[BaseModel], source: str = "") -> FormField:
    """A field whose limits are those of ``model`` (its field ``source``, by default of the same name); the default is
    that of the draft, or of ``model`` for nested fields."""
    inner = name.rpartition(".")[2]
    allowed = _words(_limits(model.model_fields[source or inner]), whole=kind == "whole")
    if kind == "floor":
        allowed = f"auto, none, or {allowed}"
    owner = DraftBody if name in DraftBody.model_fields else model
    value = None if source else owner.model_fields[inner].default
    return FormField(name, label, kind, meaning, allowed, _shown(value))


def _shown(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else ""


def _choice(name: str, label: str, values: tuple[str, ...], labels: dict[str, str], default: str) -> FormField:
    ordered = (default, *(value for value in values if value != default))
    return FormField(name, label, "choice", choices=tuple((value, labels.get(value, value)) for value in ordered))


def _derived_choice(name: str, label: str, model: type[BaseModel], labels: dict[str, str]) -> FormField:
    """A choice among the values of a ``Literal``; the default comes first."""
    field = model.model_fields[name.rpartition(".")[2]]
    return _choice(name, label, tuple(str(value) for value in get_args(field.annotation)), labels, str(field.default))


def _limits(field: FieldInfo) -> tuple[float | None, bool, float | None, bool]:
    """Lowest value and whether it is allowed itself, highest value likewise."""
    low: float | None = None
    high: float | None = None
    low_itself = high_itself = True
    for mark in _marks(field.annotation, list(field.metadata)):
        if isinstance(mark, Ge | Gt):
            low, low_itself = float(str(mark.ge if isinstance(mark, Ge) else mark.gt)), isinstance(mark, Ge)
        elif isinstance(mark, Le | Lt):
            high, high_itself = float(str(mark.le if isinstance(mark, Le) else mark.lt)), isinstance(mark, Le)
    return low, low_itself, high, high_itself


def _marks(annotation: Any, found: list[Any]) -> list[Any]:
    """The metadata of an annotation, also of the members of a union."""
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        flat = [each for mark in marks for each in (mark.metadata if isinstance(mark, FieldInfo) else [mark])]
        return _marks(inner, found + flat)
    if get_origin(annotation) in (Union, types.UnionType):
        return [mark for each in get_args(annotation) for mark in _marks(each, [])] + found
    return found


def _words(limits: tuple[float | None, bool, float | None, bool], *, whole: bool) -> str:
    low, low_itself, high, high_itself = limits
    kind = "a whole number" if whole else "a number"
    if low is None:
        return kind
    if high is None or high > _ENDLESS:
        return f"{kind} of at least {low:,.10g}"
    if low_itself and high_itself:
        return f"{kind} from {low:,.10g} to {high:,.10g}"
    start = f"of at least {low:,.10g}" if low_itself else f"above {low:,.10g}"
    return f"{kind} {start} and {'at most' if high_itself else 'below'} {high:,.10g}"

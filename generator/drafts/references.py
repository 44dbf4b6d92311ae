"""References to codes in a draft: the numbers themselves, an image file, or the row of a training image.

Importing this file does not import torch; resolving an ``image`` does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from generator.errors import SpecError
from generator.models.bundle import BundleInfo, load_codes
from generator.models.latents.codes import Codes
from generator.spec.canonical import FrozenModel, digest_of, short_repr
from generator.spec.code_object import code_object_bytes, parse_code_object
from generator.spec.recipe import (
    MAX_CODE_NUMBERS,
    MAX_INLINE_NUMBERS,
    ClusterDraw,
    Coordinate,
    Distance,
    DistributionDraw,
    JobSpec,
    RowCode,
    named_codes,
)
from generator.store.base import Store


class CodeReference(FrozenModel):
    """One code: exactly one of ``code`` (its numbers), ``image`` (a file that the bundle's encoder encodes) and
    ``reference`` (a row, from 0, of the training codes in the bundle)."""

    code: Annotated[tuple[Coordinate, ...], Field(min_length=1, max_length=MAX_CODE_NUMBERS)] | None = None
    image: str | None = Field(default=None, min_length=1, max_length=1000)
    reference: int | None = Field(default=None, ge=0, strict=True)

    @model_validator(mode="after")
    def _check_exactly_one(self) -> CodeReference:
        given = [name for name in ("code", "image", "reference") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"one of code, image and reference, not {' and '.join(given) or 'none of them'}")
        return self


class AroundDraft(CodeReference):
    """``AroundDraw`` with a reference instead of a code."""

    mode: Literal["around"] = "around"
    distance: Distance


class BetweenDraft(FrozenModel):
    """``BetweenDraw`` with references instead of codes."""

    mode: Literal["between"] = "between"
    start: CodeReference
    end: CodeReference
    distance: Distance | None = None


DrawDraft = Annotated[DistributionDraw | ClusterDraw | AroundDraft | BetweenDraft, Field(discriminator="mode")]


def has_map(info: BundleInfo) -> bool:
    """Whether the bundle's latent distribution has a map, so that draws name base points instead of codes."""
    return info.latents.get("map") is not None


def check_named_codes(spec: JobSpec, bundle: Store, info: BundleInfo) -> None:
    """Raise ``SpecError`` unless the bundle holds every row that the draw names, and the objects at hand fit it.

    Raises ``BundleError`` if the bundle holds no codes.
    """
    for name, code in named_codes(spec.recipe.draw).items():
        if isinstance(code, RowCode):
            if has_map(info):
                raise SpecError(f"draw.{name}.row", "an object with a base point, as this bundle has a map", code.row)
            rows = len(load_codes(bundle, info).codes_ND)
            if code.row >= rows:
                raise SpecError(f"draw.{name}.row", f"0 .. {rows - 1}, a row of the bundle's training codes", code.row)
        elif code.object in spec.code_objects:
            parse_code_object(spec.code_objects[code.object], info.latent_dim, field=f"draw.{name}.object")


@dataclass(frozen=True)
class CodeResolver:
    """Resolves references to codes of one bundle, for a job with ``counts[c]`` images of class c.

    If the bundle's distribution has a map, the base point takes the place of the code: the map carries it to the code.
    A code of at most 512 numbers becomes its numbers. A longer one becomes the row that the draft refers to, or else an
    object, which is added to ``objects`` by its digest.
    """

    bundle: Store
    info: BundleInfo
    counts: tuple[int, ...]
    objects: dict[str, bytes] = field(default_factory=dict)

    def resolve_draw(self, draft: DrawDraft) -> dict[str, Any]:
        """The fields of the recipe's ``draw``, with codes. Raises ``SpecError`` and ``BundleError``."""
        if isinstance(draft, AroundDraft):
            self._check_class(draft.reference)
            return {"mode": draft.mode, "code": self._resolve_code(draft, "draw"), "distance": draft.distance}
        if isinstance(draft, BetweenDraft):
            ends = {name: self._resolve_code(getattr(draft, name), f"draw.{name}") for name in ("start", "end")}
            return {"mode": draft.mode, **ends, "distance": draft.distance}
        return draft.model_dump()

    def _resolve_code(self, wanted: CodeReference, field: str) -> Any:
        code = self._read_code(wanted, field)
        if self._has_map:  # draws act on base points; imported by name, as it imports torch
            carry_back = import_module("generator.drafts.base_point").base_point
            code = carry_back(code, self.bundle, self._only_label(), field=field)
        if len(code) <= MAX_INLINE_NUMBERS:
            return code
        if wanted.reference is not None and not self._has_map:
            return {"row": wanted.reference}
        data = code_object_bytes(code)
        self.objects[digest_of(data)] = data
        return {"object": digest_of(data)}

    def _read_code(self, wanted: CodeReference, field: str) -> tuple[float, ...]:
        if wanted.code is not None:
            return self._check_length(wanted.code, f"{field}.code")
        if wanted.reference is not None:
            return self._training_code(wanted.reference, f"{field}.reference")
        # Imported by name, so that torch is only imported if a draft names an image.
        encoded: tuple[float, ...] = import_module("generator.drafts.encode_image").encode_image(
            wanted.image, self.bundle, self.info, field=f"{field}.image"
        )
        return encoded

    def _check_length(self, code: tuple[float, ...], field: str) -> tuple[float, ...]:
        if len(code) != self.info.latent_dim:
            expected = f"{self.info.latent_dim} numbers, one for each latent dimension"
            raise SpecError(field, expected, len(code))
        return code

    def _training_code(self, row: int, field: str) -> tuple[float, ...]:
        rows = len(self._training_codes.codes_ND)
        if row >= rows:
            raise SpecError(field, f"0 .. {rows - 1}, a row of the bundle's training codes", row)
        return tuple(self._training_codes.codes_ND[row].tolist())

    def _check_class(self, row: int | None) -> None:
        """Refuse counts for other classes than the row's: images near it would get a wrong label."""
        if row is None or self._training_codes.labels_N is None or row >= len(self._training_codes.labels_N):
            return
        label, classes = int(self._training_codes.labels_N[row]), self.info.classes
        others = [name for name, count in zip(classes, self.counts, strict=True) if count and name != classes[label]]
        if others:
            got = f"row {row}, which is of {short_repr(classes[label])}"
            hint = f"Give counts for {short_repr(classes[label])} alone, or the code itself."
            raise SpecError("draw.reference", f"an image of the class asked for ({short_repr(others[0])})", got, hint)

    @property
    def _has_map(self) -> bool:
        return has_map(self.info)

    def _only_label(self) -> int:
        """The only class that images are asked of: the map carries each class in its own way."""
        labels = [label for label, count in enumerate(self.counts) if count]
        if len(labels) != 1:
            expected = "counts for one class, as this bundle's map is another one for each class"
            raise SpecError("draw", expected, f"counts for {len(labels)} classes")
        return labels[0]

    @cached_property
    def _training_codes(self) -> Codes:
        return load_codes(self.bundle, self.info)

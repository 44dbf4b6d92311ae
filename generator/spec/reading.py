"""How a source is read, beyond size and channels. A bundle keeps it, so that later sources are read in the same way."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_serializer, model_validator

from generator.spec.canonical import FrozenModel
from generator.spec.recipe import ClassName

Resize = Literal["crop", "pad", "stretch"]
Rules = Literal[1, 2]

UNLABELLED = "none"
MAX_CLASSES = 10_000

Name = Annotated[str, Field(min_length=1, max_length=200)]
Level = Annotated[float, Field(allow_inf_nan=False)]


class Reading(FrozenModel):
    """Which part of each record is the image and the label, which classes are wanted, and what becomes of pixels.

    ``image``, ``label``: a column (Parquet, metadata), an array (.npz) or an extension (tar); found by type if not
    given; the label ``none`` reads a labelled source without labels. ``classes``: the classes to be read, in the order
    of their labels. ``black``, ``white``: the pixel values that become 0 and 255, for images with more than 8 bits.
    ``resize``: ``crop`` the middle, ``pad`` with white, or ``stretch``.

    Fields with their default are left out of the JSON.
    """

    image: Name | None = None
    label: Name | None = None
    classes: tuple[ClassName, ...] | None = Field(default=None, min_length=1, max_length=MAX_CLASSES)
    black: Level | None = None
    white: Level | None = None
    resize: Resize = "crop"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.classes is not None and len(set(self.classes)) != len(self.classes):
            raise ValueError("classes that are named once")
        if self.black is not None and self.white is None:
            raise ValueError("white beside black")
        if self.white is not None and self.white <= (self.black or 0.0):
            raise ValueError(f"white above black, which is {self.black or 0:g}")
        return self

    @model_serializer(mode="wrap")
    def _leave_out_defaults(self, write: Any) -> dict[str, Any]:
        defaults = type(self).model_fields
        return {name: value for name, value in write(self).items() if getattr(self, name) != defaults[name].default}

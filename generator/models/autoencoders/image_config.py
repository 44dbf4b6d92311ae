"""What all configurations of autoencoders say about images: two sides in pixels. Importing this file does not import
torch."""

from __future__ import annotations

from typing import Any

from pydantic import SerializerFunctionWrapHandler, ValidationInfo, field_validator, model_serializer

from generator.spec.canonical import FrozenModel, without_later_defaults
from generator.spec.image_size import AnySize, ImageSize, as_size


class ImageConfig(FrozenModel):
    """``size``: height of the images, and their width unless ``image_width`` says another one, which is left out of the
    canonical JSON of squares: theirs is that of configurations that had one side only."""

    size: int
    image_width: int | None = None

    @property
    def image_size(self) -> ImageSize:
        """Width and height in pixels."""
        return ImageSize(self.size if self.image_width is None else self.image_width, self.size)

    @field_validator("image_width")
    @classmethod
    def _leave_out_equal(cls, image_width: int | None, info: ValidationInfo) -> int | None:
        return None if image_width == info.data.get("size") else image_width

    @model_serializer(mode="wrap")
    def _leave_out_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = without_later_defaults(self, handler(self))
        if fields.get("image_width") is None:
            fields.pop("image_width", None)
        return fields


def size_fields(size: AnySize) -> dict[str, int]:
    """The fields of an ``ImageConfig`` for a side, or for (width, height)."""
    width, height = as_size(size)
    return {"size": height} if width == height else {"size": height, "image_width": width}

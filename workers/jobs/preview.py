"""A preview of a spec: some images that a worker made at once. Imports no Redis, as clients over HTTP have none."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from generator.errors import IntegrityError
from generator.spec.canonical import FrozenModel
from generator.spec.recipe import RecipeVersion

MAX_PREVIEW = 256
MAX_IMAGES_BYTES = 16 * 2**20  # of the images of one answer: as many as fit are given


def _decode(value: Any) -> Any:
    return base64.b64decode(value, validate=True) if isinstance(value, str) else value


Base64Bytes = Annotated[
    bytes,
    Field(max_length=MAX_IMAGES_BYTES),
    BeforeValidator(_decode),
    PlainSerializer(lambda data: base64.b64encode(data).decode(), return_type=str, when_used="json"),
]


class PreviewImage(FrozenModel):
    """One image of a preview: its row, as the table of the build would have it, and ``data``, its file.

    ``label``, ``class_name``: ``None`` without labels; ``label_confidence``: ``None`` without a label check.
    """

    index: int
    attempt: int
    label: int | None = None
    class_name: str | None = None
    cluster: int | None = None
    log_density: float | None = None
    label_confidence: float | None = None
    data: Base64Bytes


class Preview(FrozenModel):
    """The first images of a spec, in the order of its first shard; in JSON, files are base64.

    They are those of the dataset, byte for byte where a worker with the same environment makes it without compiling.
    ``refused``: samples that were refused while they were made.
    """

    format: Literal["png", "jpeg"]
    classes: tuple[str, ...]
    recipe_version: RecipeVersion
    images: tuple[PreviewImage, ...]
    refused: int

    def sheet(self) -> bytes:
        """A contact sheet (marked JPEG) of the images, a row for each class. Raises ``IntegrityError``."""
        from generator.production.images import decode_image
        from generator.production.provenance.preview import preview_bytes

        if not self.images:
            raise IntegrityError("preview", "at least one image", "none")
        pairs = ((decode_image(image.data, field="preview"), image.label) for image in self.images)
        return preview_bytes(pairs, self.classes, self.recipe_version)

"""Image files in answers: inside a page as ``data:``, or by their address where they are large."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from generator.datasets.exploration.columns import Columns
from generator.datasets.exploration.images import (
    ImagePlace,
    first_places,
    image_places,
    read_images,
    read_whole_samples,
)
from workers.server.builds import CommittedBuild

MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg"}
_MAX_INLINE = 24 * 1024  # bytes of a file inside a page


@dataclass(frozen=True)
class Picture:
    """A sample in a gallery; ``src``: its image as ``data:``, or the address of its file."""

    index: int
    src: str
    href: str


def data_url(data: bytes, media_type: str) -> str:
    """``data`` as the address of an image inside a page."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def sample_address(base: str, index: int) -> str:
    """The page of one sample of the build at ``base``."""
    return f"{base}/samples/{index}"


def pictures_of(build: CommittedBuild, base: str, columns: Columns | None, indices: Sequence[int]) -> list[Picture]:
    """The pictures of samples in their order. Without ``columns``, of the first ``len(indices)`` samples of the build.

    Raises ``IntegrityError``, ``StoreError``.
    """
    if columns is None:
        places = first_places(build.reader, build.manifest, len(indices))
        indices = indices if places is None else [place.index for place in places]
    else:
        places = image_places(columns, build.manifest, indices)
    if places is None:
        found = read_whole_samples(build.reader, build.manifest, indices)
    else:
        found = read_images(build.store, build.manifest, [place for place in places if place.size <= _MAX_INLINE])
    media_type = MEDIA_TYPES[build.manifest.image.format]
    return [
        Picture(
            index,
            data_url(found[index], media_type) if index in found else f"{sample_address(base, index)}/image",
            sample_address(base, index),
        )
        for index in indices
    ]


def image_of(build: CommittedBuild, columns: Columns | None, index: int) -> bytes:
    """The image file of one sample. Raises ``DatasetError``, ``IntegrityError``, ``StoreError``."""
    build.place_of(index)
    places: list[ImagePlace] | None = None if columns is None else image_places(columns, build.manifest, [index])
    if places is None:
        return read_whole_samples(build.reader, build.manifest, [index])[index]
    return read_images(build.store, build.manifest, places)[index]

"""What lies at a location, found without decoding a pixel: images in order, labels, and how they were found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from generator.sources.files.file_set import SourceFile
from generator.sources.labels import UNLABELLED_SOURCE, Labels, select_classes
from generator.sources.pixels.arrays import ArrayImages
from generator.sources.pixels.decode import CHUNK, EncodedImage, EncodedImages
from generator.spec.image_size import ImageSize
from generator.spec.reading import Reading, Rules

EMPTY_FOLDERS = "folders without images"  # a kind of what is passed over


@dataclass(frozen=True)
class ListOptions:
    """What a kind of source must know to list it. ``split``: train, validation, test, or ``None`` for the usual one."""

    reading: Reading
    split: str | None = None
    allow_empty: bool = False
    rules: Rules = 2


@dataclass(frozen=True)
class Listing:
    """The images of a source, encoded or as numbers, and everything that was found beside them."""

    kind: str
    images: EncodedImages | ArrayImages
    labels: Labels = UNLABELLED_SOURCE
    default_size: ImageSize | None = None  # of kinds whose images usually differ in size
    split: str | None = None
    splits: tuple[str, ...] = ()
    image_column: str | None = None
    label_column: str | None = None
    passed_over: Counter[str] = field(default_factory=Counter)
    notices: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """The number of images, also of those that will turn out to be unreadable."""
        return self.images.total if isinstance(self.images, EncodedImages) else self.images.shape[0]


def select_listed(listing: Listing, classes: tuple[str, ...] | None, *, name: str) -> Listing:
    """Only the images of ``classes``, if they are given. Raises ``SourceError``."""
    rows, labels = select_classes(listing.labels, classes, field=name)
    if rows is None:
        return listing
    if isinstance(listing.images, EncodedImages):
        return replace(listing, images=select_encoded(listing.images, rows), labels=labels)
    return replace(listing, images=_select_rows(listing.images, rows), labels=labels)


def chunked(
    files: Sequence[SourceFile], label: Callable[[SourceFile], str]
) -> Callable[[], Iterator[list[EncodedImage]]]:
    """``chunks`` of ``EncodedImages`` for files. ``label``: how messages name a file."""

    def chunks() -> Iterator[list[EncodedImage]]:
        for begin in range(0, len(files), CHUNK):
            yield [EncodedImage(label(file), file.content) for file in files[begin : begin + CHUNK]]

    return chunks


def select_encoded(images: EncodedImages, rows: np.ndarray) -> EncodedImages:
    """Only the images at ``rows`` (int64, ascending)."""

    def chunks() -> Iterator[list[EncodedImage]]:
        position, waiting = 0, list[EncodedImage]()
        for chunk in images.chunks():
            end = position + len(chunk)
            first, last = np.searchsorted(rows, (position, end))
            waiting += [chunk[row - position] for row in rows[first:last].tolist()]
            while len(waiting) >= CHUNK:
                yield waiting[:CHUNK]
                waiting = waiting[CHUNK:]
            position = end
        if waiting:
            yield waiting

    return EncodedImages(images.name, len(rows), chunks, images.remote)


def _select_rows(images: ArrayImages, rows: np.ndarray) -> ArrayImages:
    def blocks() -> Iterator[np.ndarray]:
        position = 0
        for block in images.blocks():
            end = position + len(block)
            first, last = np.searchsorted(rows, (position, end))
            if last > first:
                yield block[rows[first:last] - position]
            position = end

    return ArrayImages(images.name, (len(rows), *images.shape[1:]), images.dtype, blocks)

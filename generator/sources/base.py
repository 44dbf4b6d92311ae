"""A source: images, optional labels, class names, and a fingerprint of all three; and common checks.

Shape suffixes: N images, H rows, W columns, C channels.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import TypeAdapter, ValidationError

from generator.errors import SourceError
from generator.spec.canonical import FrozenModel, canonical_json
from generator.spec.image_size import MAX_SIDE, MIN_SIDE, AnySize, ImageSize, as_size, check_sides, size_of
from generator.spec.reading import MAX_CLASSES, Reading, Rules
from generator.spec.recipe import ClassName

SIZE_HINT = "Give a size: images are then resized and cropped."
DEFAULT_SIZE = ImageSize(64, 64)
FIRST_RULES: Rules = 1  # how releases before recipe version 2 read sources
_HASHED_AT_ONCE = 4096  # images

ProgressCallback = Callable[[int, int], None]  # (images done, total)

_CLASS_NAME: TypeAdapter[str] = TypeAdapter(ClassName)


@dataclass(frozen=True)
class SkippedImage:
    """An image that could not be read and was left out because of ``skip_bad``."""

    file: str  # relative to the source's name, never an absolute path
    reason: str


class SourceFacts(FrozenModel):
    """What was found where the source lies, for people and for later sources of the same bundle.

    ``reading``: how it was read, with the scale of deep pixels that was found. ``notices``: sentences that a person
    should know before training.
    """

    kind: str = "array"
    reading: Reading = Reading()
    rules: Rules = 2
    split: str | None = None  # the split that was read, if there is more than one
    splits: tuple[str, ...] = ()
    image_column: str | None = None
    label_column: str | None = None
    sizes: tuple[tuple[int, int, int], ...] = ()  # width, height, images; the most frequent ones first
    other_sizes: int = 0  # images of sizes that are not listed
    modes: tuple[tuple[str, int], ...] = ()  # Pillow's mode, images
    duplicates: int = 0  # images whose pixels, as read, are those of an image before them
    passed_over: tuple[tuple[str, int], ...] = ()  # kind of file, files
    notices: tuple[str, ...] = ()


_NO_FACTS = SourceFacts()


@dataclass(frozen=True, eq=False)
class Source:
    """At least two real images of one size, with or without labels.

    With labels, every class has a name and at least one image. ``fingerprint`` covers size, channels, class names,
    pixels and labels as loaded, and nothing else: the same images under another path have the same fingerprint.
    """

    images_NHWC: np.ndarray  # uint8, H and W in 8 .. 512, C in {1, 3}; read-only or on disk for large sources
    labels_N: np.ndarray | None  # int64, 0 .. classes - 1
    class_names: tuple[str, ...]  # () if unlabelled
    fingerprint: str  # "sha256:<64 hex digits>"
    name: str  # for display: the name of the file or folder, never an absolute path
    skipped: tuple[SkippedImage, ...] = ()
    facts: SourceFacts = _NO_FACTS

    def __len__(self) -> int:
        return len(self.images_NHWC)

    @property
    def size(self) -> ImageSize:
        """Width and height of the images, in pixels."""
        return size_of(self.images_NHWC.shape)

    def class_counts(self) -> dict[str, int]:
        """The number of images of each class, in the order of the labels; empty if unlabelled."""
        if self.labels_N is None:
            return {}
        counts_K = np.bincount(self.labels_N, minlength=len(self.class_names))
        return dict(zip(self.class_names, counts_K.tolist(), strict=True))

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (RGB)."""
        return int(self.images_NHWC.shape[3])


def make_source(
    images_NHWC: np.ndarray,
    labels_N: np.ndarray | None,
    class_names: Sequence[str],
    *,
    name: str,
    skipped: tuple[SkippedImage, ...] = (),
    facts: SourceFacts | None = None,
) -> Source:
    """Check what all kinds of sources have in common, and compute the fingerprint.

    ``images_NHWC``: uint8. ``labels_N``: any integer type. Class names are converted to Unicode NFC, so that a
    tree copied between file systems keeps its fingerprint. Raises ``SourceError``.
    """
    check_count(len(images_NHWC), name=name, skipped=len(skipped))
    names = check_names(class_names, field=f"{name}:class_names")
    if labels_N is not None:
        labels_N = check_labels(labels_N, names, count=len(images_NHWC), field=f"{name}:labels")
    stated = fingerprint(images_NHWC, labels_N, names)
    return Source(images_NHWC, labels_N, names, stated, name, skipped, facts or _NO_FACTS)


def fingerprint(images_NHWC: np.ndarray, labels_N: np.ndarray | None, class_names: tuple[str, ...]) -> str:
    """``sha256:<64 hex digits>`` over a canonical header, the pixels, and the labels as little-endian int64."""
    count, height, width, channels = images_NHWC.shape
    header = {
        "latentmill_source": 1,
        "shape": [count, height, width, channels],
        "class_names": list(class_names),
        "labelled": labels_N is not None,
    }
    digest = hashlib.sha256(canonical_json(header) + b"\n")
    for begin in range(0, count, _HASHED_AT_ONCE):
        digest.update(np.ascontiguousarray(images_NHWC[begin : begin + _HASHED_AT_ONCE]).data)
    if labels_N is not None:
        digest.update(labels_N.astype("<i8").data)
    return f"sha256:{digest.hexdigest()}"


def check_names(class_names: Sequence[str], *, field: str) -> tuple[str, ...]:
    """The names in NFC; ``SourceError`` for a name that a recipe does not allow, or that occurs twice."""
    names = tuple(unicodedata.normalize("NFC", name) for name in class_names)
    if len(names) > MAX_CLASSES:
        raise SourceError(field, f"at most {MAX_CLASSES} classes", len(names))
    for name in names:
        try:
            _CLASS_NAME.validate_python(name)
        except ValidationError as invalid:
            expected = "class names of 1 to 200 characters, none of them a control character"
            raise SourceError(field, expected, repr(name[:100])) from invalid
    duplicates = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if duplicates:
        raise SourceError(field, "distinct class names", f"{duplicates[0]!r} more than once")
    return names


def check_labels(labels_N: np.ndarray, names: tuple[str, ...], *, count: int, field: str) -> np.ndarray:
    """Labels of any integer type as int64; ``SourceError`` unless there is one per image and an image per class."""
    if labels_N.shape != (count,):
        shape = "x".join(str(length) for length in labels_N.shape)
        raise SourceError(field, f"{count} labels, one per image", f"{shape} labels")
    labels_N = check_numbers(labels_N, names, field=field)
    empty = np.flatnonzero(np.bincount(labels_N, minlength=len(names)) == 0)
    if len(empty):
        got = f"none of {names[empty[0]]!r}" + (f" and {len(empty) - 1} more classes" if len(empty) > 1 else "")
        hint = "Give --allow-empty to leave out classes without images."
        raise SourceError(field, "at least one readable image of every class", got, hint)
    return labels_N


def check_numbers(labels_N: np.ndarray, names: tuple[str, ...], *, field: str) -> np.ndarray:
    """Labels of any integer type as int64; ``SourceError`` for one that is no position among ``names``."""
    _check_integers(labels_N, field)
    low, high = (int(labels_N.min()), int(labels_N.max())) if len(labels_N) else (0, -1)
    if low < 0 or high >= len(names):
        outside = low if low < 0 else high
        hint = "--label none reads the images alone." if low == -1 else ""
        raise SourceError(field, f"0 .. {len(names) - 1}, as there are {len(names)} class names", outside, hint)
    return labels_N.astype(np.int64)


def check_count(count: int, *, name: str, skipped: int = 0) -> None:
    """``SourceError`` for fewer than two images: training and holdout need at least one each."""
    if count < 2:
        got = f"{count} and {skipped} skipped" if skipped else count
        raise SourceError(f"{name}:images", "at least 2 readable images", got)


def check_size(size: AnySize | None) -> ImageSize | None:
    """``size`` as width and height. ``SourceError`` for a side outside 8 .. 512 pixels."""
    return None if size is None else check_sides(as_size(size), error=SourceError)


def check_channels(channels: int | None) -> None:
    """``SourceError`` unless ``channels`` is ``None``, 1 (grey) or 3 (RGB)."""
    if channels not in (None, 1, 3):
        raise SourceError("channels", "1 (grey) or 3 (colour)", channels)


def native_size(width: int, height: int, *, field: str) -> ImageSize:
    """The size of images that are not resized; ``SourceError`` unless their sides are 8 .. 512 pixels."""
    if not all(MIN_SIDE <= side <= MAX_SIDE for side in (width, height)):
        expected = f"images of {MIN_SIDE} to {MAX_SIDE} pixels a side, or a size to resize them to"
        raise SourceError(field, expected, f"{width}x{height}", SIZE_HINT)
    return ImageSize(width, height)


def _check_integers(labels_N: np.ndarray, field: str) -> None:
    if labels_N.dtype.kind not in "iu":
        raise SourceError(field, "integers", f"{labels_N.dtype} values")

"""A source in memory: images, optional labels, class names, and a fingerprint of all three; and common checks.

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
from generator.spec.canonical import canonical_json
from generator.spec.recipe import ClassName

MIN_SIZE, MAX_SIZE = 8, 512
DEFAULT_SIZE = 64

ProgressCallback = Callable[[int, int], None]  # (images done, total)

_CLASS_NAME: TypeAdapter[str] = TypeAdapter(ClassName)


@dataclass(frozen=True)
class SkippedImage:
    """An image that could not be read and was left out because of ``skip_bad``."""

    file: str  # relative to the source's name, never an absolute path
    reason: str


@dataclass(frozen=True, eq=False)
class Source:
    """At least two real images of one size, with or without labels.

    With labels, every class has a name and at least one image. ``fingerprint`` covers size, channels, class names,
    pixels and labels as loaded, and nothing else: the same images under another path have the same fingerprint.
    """

    images_NHWC: np.ndarray  # uint8, H == W in 8 .. 512, C in {1, 3}
    labels_N: np.ndarray | None  # int64, 0 .. classes - 1
    class_names: tuple[str, ...]  # () if unlabelled
    fingerprint: str  # "sha256:<64 hex digits>"
    name: str  # for display: the name of the file or folder, never an absolute path
    skipped: tuple[SkippedImage, ...] = ()

    def __len__(self) -> int:
        return len(self.images_NHWC)

    @property
    def size(self) -> int:
        """Side of the square images, in pixels."""
        return int(self.images_NHWC.shape[1])

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
) -> Source:
    """Check what all kinds of sources have in common, and compute the fingerprint.

    ``images_NHWC``: uint8, square. ``labels_N``: any integer type. Class names are converted to Unicode NFC, so that a
    tree copied between file systems keeps its fingerprint. Raises ``SourceError``.
    """
    check_count(len(images_NHWC), name=name, skipped=len(skipped))
    names = check_names(class_names, field=f"{name}:class_names")
    if labels_N is not None:
        labels_N = check_labels(labels_N, names, count=len(images_NHWC), field=f"{name}:labels")
    images_NHWC = np.ascontiguousarray(images_NHWC)
    return Source(images_NHWC, labels_N, names, fingerprint(images_NHWC, labels_N, names), name, skipped)


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
    digest.update(images_NHWC.data)
    if labels_N is not None:
        digest.update(labels_N.astype("<i8").data)
    return f"sha256:{digest.hexdigest()}"


def check_names(class_names: Sequence[str], *, field: str) -> tuple[str, ...]:
    """The names in NFC; ``SourceError`` for a name that a recipe does not allow, or that occurs twice."""
    names = tuple(unicodedata.normalize("NFC", name) for name in class_names)
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
    _check_integers(labels_N, field)
    low, high = int(labels_N.min()), int(labels_N.max())
    if low < 0 or high >= len(names):
        outside = low if low < 0 else high
        raise SourceError(field, f"0 .. {len(names) - 1}, as there are {len(names)} class names", outside)
    labels_N = labels_N.astype(np.int64)
    empty = np.flatnonzero(np.bincount(labels_N, minlength=len(names)) == 0)
    if len(empty):
        got = f"none of {names[empty[0]]!r}" + (f" and {len(empty) - 1} more classes" if len(empty) > 1 else "")
        raise SourceError(field, "at least one readable image of every class", got)
    return labels_N


def numbered_names(labels_N: np.ndarray, *, field: str) -> tuple[str, ...]:
    """Names '0' .. 'k-1' for labels without class names; labels must use every number from 0 to k-1."""
    _check_integers(labels_N, field)
    used = np.unique(labels_N).tolist()
    if used != list(range(len(used))):
        got = ", ".join(str(label) for label in used[:8]) + (", ..." if len(used) > 8 else "")
        raise SourceError(
            field, "labels 0 .. k-1, each used at least once", got, "Or give class names with the labels."
        )
    return tuple(str(label) for label in used)


def check_count(count: int, *, name: str, skipped: int = 0) -> None:
    """``SourceError`` for fewer than two images: training and holdout need at least one each."""
    if count < 2:
        got = f"{count} and {skipped} skipped" if skipped else count
        raise SourceError(f"{name}:images", "at least 2 readable images", got)


def check_size(size: int | None) -> None:
    """``SourceError`` unless ``size`` is ``None`` or a supported side (8 .. 512 pixels)."""
    if size is not None and not MIN_SIZE <= size <= MAX_SIZE:
        raise SourceError("size", f"{MIN_SIZE} to {MAX_SIZE} pixels", size)


def check_channels(channels: int | None) -> None:
    """``SourceError`` unless ``channels`` is ``None``, 1 (grey) or 3 (RGB)."""
    if channels not in (None, 1, 3):
        raise SourceError("channels", "1 (grey) or 3 (colour)", channels)


def native_side(width: int, height: int, *, field: str) -> int:
    """The side of images that are not resized; ``SourceError`` unless they are squares of 8 .. 512 pixels."""
    if width != height or not MIN_SIZE <= width <= MAX_SIZE:
        expected = f"square images of {MIN_SIZE} to {MAX_SIZE} pixels, or a size to resize them to"
        raise SourceError(field, expected, f"{width}x{height}", "Give a size: images are then resized and cropped.")
    return width


def _check_integers(labels_N: np.ndarray, field: str) -> None:
    if labels_N.dtype.kind not in "iu":
        raise SourceError(field, "integers", f"{labels_N.dtype} values")

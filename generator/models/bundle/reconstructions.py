"""Held-out images in a bundle beside what its decoder makes of their codes. Only where thumbnails were asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from generator.errors import BundleError
from generator.models.bundle.thumbnails import Thumbnails, make_thumbnails, parse_thumbnails

MAX_PAIRS = 48
_FIELD = "reconstructions.safetensors"
_PARTS = ("real", "decoded")


@dataclass(frozen=True, eq=False)
class Reconstructions:
    """Pairs of pictures. ``real``, ``decoded``: the held-out image and its reconstruction, rows 0 .. P - 1 of both.

    ``labels_P``: the class of each, int64, -1 without labels; ``errors_P``: mean squared error of the images in full
    size, for pixels in [0, 1], float32.
    """

    real: Thumbnails
    decoded: Thumbnails
    labels_P: np.ndarray
    errors_P: np.ndarray

    def __len__(self) -> int:
        return len(self.labels_P)

    def pair(self, number: int) -> tuple[bytes, bytes]:
        """The JPEG files of a held-out image and of its reconstruction. ``number``: 0 .. P - 1."""
        real, decoded = self.real.find(number), self.decoded.find(number)
        assert real is not None
        assert decoded is not None
        return real, decoded

    def tensors(self) -> dict[str, np.ndarray]:
        """The arrays of ``reconstructions.safetensors``."""
        parts = {f"{part}.{name}": array for part in _PARTS for name, array in getattr(self, part).tensors().items()}
        return parts | {"labels": self.labels_P, "errors": self.errors_P}


def choose_pairs(labels_H: np.ndarray | None, count: int) -> np.ndarray:
    """int64: which of ``count`` held-out images to keep, at most ``MAX_PAIRS``: the first ones of every class in turn,
    ordered by class; without labels the first ones."""
    if labels_H is None:
        return np.arange(min(count, MAX_PAIRS), dtype=np.int64)
    turn_H = np.zeros(count, dtype=np.int64)
    for label in np.unique(labels_H):
        of_class = np.flatnonzero(labels_H == label)
        turn_H[of_class] = np.arange(len(of_class))
    first = np.lexsort((labels_H, turn_H))[:MAX_PAIRS]
    chosen: np.ndarray = first[np.lexsort((first, labels_H[first]))].astype(np.int64)
    return chosen


def make_reconstructions(
    real_PHWC: np.ndarray, decoded_PHWC: np.ndarray, labels_P: np.ndarray | None
) -> Reconstructions:
    """Of uint8 images and their reconstructions, at most ``MAX_PAIRS``."""
    difference = (real_PHWC.astype(np.float64) - decoded_PHWC) / 255.0
    return Reconstructions(
        make_thumbnails(real_PHWC),
        make_thumbnails(decoded_PHWC),
        np.full(len(real_PHWC), -1, dtype=np.int64) if labels_P is None else labels_P.astype(np.int64),
        (difference**2).mean(axis=(1, 2, 3)).astype(np.float32),
    )


def parse_reconstructions(tensors: Mapping[str, np.ndarray], classes: int) -> Reconstructions:
    """The stored pairs of a bundle with this number of classes (0: no labels). Raises ``BundleError``."""
    real, decoded = (
        parse_thumbnails(
            {name.removeprefix(f"{part}."): array for name, array in tensors.items() if name.startswith(f"{part}.")},
            _FIELD,
        )
        for part in _PARTS
    )
    labels_P, errors_P = tensors.get("labels"), tensors.get("errors")
    pairs = len(real.rows_T)
    if (
        labels_P is None
        or errors_P is None
        or (labels_P.dtype.str, labels_P.shape) != ("<i8", (pairs,))
        or (errors_P.dtype.str, errors_P.shape) != ("<f4", (pairs,))
        or len(tensors) != 2 + 3 * len(_PARTS)
    ):
        raise BundleError(_FIELD, "a label and an error for each pair", sorted(tensors))
    rows_P = np.arange(pairs)
    if pairs > MAX_PAIRS or not all(np.array_equal(each.rows_T, rows_P) for each in (real, decoded)):
        raise BundleError(_FIELD, f"at most {MAX_PAIRS} pairs, numbered from 0", "others")
    known = range(classes) if classes else (-1,)
    if not np.isin(labels_P, known).all():
        raise BundleError(_FIELD, f"labels 0 .. {classes - 1}" if classes else "no labels", "others")
    return Reconstructions(real, decoded, labels_P, errors_P)

"""Checks of the codes before a fit, and warnings about the fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from generator.errors import SourceError
from generator.models.latents.codes import ClassCodes, Codes
from generator.models.latents.quantiles import has_enough_holdout

MIN_CODES_PER_CLUSTER = 10


@dataclass(frozen=True)
class FitWarning:
    """Why the fit of one class is smaller or less reliable than asked for."""

    class_name: str
    message: str

    def __str__(self) -> str:
        return f"{self.class_name}: {self.message}"


def check_codes(codes: Codes) -> list[ClassCodes]:
    """The codes of each class. Raises ``SourceError`` for a class with fewer than two codes, with NaN or infinity, or
    with codes that are all equal."""
    classes = codes.by_class()
    for class_codes in classes:
        _check(class_codes)
    return classes


def max_clusters(class_codes: ClassCodes) -> int:
    """The largest number of clusters that this many codes of a class allow."""
    return max(1, class_codes.count // MIN_CODES_PER_CLUSTER)


def cluster_warnings(class_codes: ClassCodes, clusters: int | None) -> list[FitWarning]:
    """Warns if fewer clusters are fitted than were asked for."""
    count, limit = class_codes.count, max_clusters(class_codes)
    if clusters is None or clusters <= limit:
        return []
    return [FitWarning(class_codes.name, f"{count} codes allow at most {limit} clusters, not {clusters}")]


def covariance_warnings(class_codes: ClassCodes) -> list[FitWarning]:
    """Warns if there are too few codes to estimate covariance matrices."""
    count, dims = class_codes.count, class_codes.codes.dims
    if count >= 2 * dims:
        return []
    return [
        FitWarning(
            class_codes.name,
            f"{count} codes are too few to estimate covariances in {dims} dimensions; the prior dominates",
        )
    ]


def holdout_warnings(class_codes: ClassCodes, chosen: str = "") -> list[FitWarning]:
    """Warns if there are too few held-out codes; ``chosen``: what is then chosen on training codes."""
    if has_enough_holdout(class_codes):
        return []
    count = class_codes.held_out
    message = f"{count} held-out codes are too few; {chosen}the density floor is computed from samples only"
    return [FitWarning(class_codes.name, message)]


def _check(class_codes: ClassCodes) -> None:
    field, codes_ND = f"codes of {class_codes.name!r}", class_codes.codes_ND
    if len(codes_ND) < 2:
        raise SourceError(field, "at least 2 images", len(codes_ND))
    if not (np.isfinite(codes_ND).all() and np.isfinite(class_codes.holdout_HD).all()):
        raise SourceError(field, "finite numbers", "NaN or infinity")
    if not np.ptp(codes_ND, axis=0).any():
        hint = "the encoder has collapsed, or all images are equal; try a smaller beta"
        raise SourceError(field, "codes that differ", f"{len(codes_ND)} equal ones", hint)

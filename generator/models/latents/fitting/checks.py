"""What codes must be for any distribution to be fitted to them, and what a person should know of a fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from generator.errors import SourceError
from generator.models.latents.codes import ClassCodes, Codes
from generator.models.latents.quantiles import has_enough_holdout

MIN_CODES_PER_CLUSTER = 10


@dataclass(frozen=True)
class FitWarning:
    """Something about one class that made the fit smaller or weaker than asked for."""

    class_name: str
    message: str

    def __str__(self) -> str:
        return f"{self.class_name}: {self.message}"


def check_codes(codes: Codes) -> list[ClassCodes]:
    """The codes class by class. Raises ``SourceError`` for a class with fewer than two codes, with equal codes, or with
    codes that are no numbers."""
    classes = codes.by_class()
    for of_class in classes:
        _check(of_class)
    return classes


def max_clusters(of_class: ClassCodes) -> int:
    """How many clusters the codes of a class carry at most."""
    return max(1, len(of_class.codes_ND) // MIN_CODES_PER_CLUSTER)


def cluster_warnings(of_class: ClassCodes, clusters: int | None) -> list[FitWarning]:
    """Said where fewer clusters are fitted than asked for."""
    count, most = len(of_class.codes_ND), max_clusters(of_class)
    if clusters is None or clusters <= most:
        return []
    return [FitWarning(of_class.name, f"{count} codes carry {most} clusters at most, not {clusters}")]


def covariance_warnings(of_class: ClassCodes) -> list[FitWarning]:
    """Said where covariance matrices are guessed more than measured."""
    count, dims = of_class.codes_ND.shape
    if count >= 2 * dims:
        return []
    return [FitWarning(of_class.name, f"{count} codes are few for {dims} dimensions; covariances are mostly prior")]


def holdout_warnings(of_class: ClassCodes, chosen: str = "") -> list[FitWarning]:
    """Said where held-out codes are too few to measure on; ``chosen``: what then rests on other codes."""
    if has_enough_holdout(of_class):
        return []
    message = f"{len(of_class.holdout_HD)} held-out codes are few; {chosen}the density floor on the fit's own samples"
    return [FitWarning(of_class.name, message)]


def _check(of_class: ClassCodes) -> None:
    field, codes_ND = f"codes of {of_class.name!r}", of_class.codes_ND
    if len(codes_ND) < 2:
        raise SourceError(field, "at least 2 images to learn from", len(codes_ND))
    if not (np.isfinite(codes_ND).all() and np.isfinite(of_class.holdout_HD).all()):
        raise SourceError(field, "finite numbers", "NaN or infinity")
    if not np.ptp(codes_ND, axis=0).any():
        hint = "the encoder has collapsed, or the images are copies; try a smaller beta"
        raise SourceError(field, "codes that differ", f"{len(codes_ND)} equal ones", hint)

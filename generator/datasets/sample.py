"""One sample of a build, as readers get it. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from generator.errors import IntegrityError
from generator.models.screening.soft_labels import soft_label
from generator.production.images import decode_image, extension
from generator.production.provenance.manifest import Manifest

NO_LABEL = -1


class Sample(NamedTuple):
    """One image of a build. PyTorch's default collate function makes batches of samples.

    ``image`` is uint8 HWC with 1 (grey) or 3 (RGB) channels, or the result of ``transform``. ``label`` is ``NO_LABEL``
    (-1) in a dataset without labels; with ``soft_labels`` it is the probability of each class, float32 (C,).
    ``provenance`` says how to regenerate the image: ``key``, ``index``, ``attempt``, ``cluster``, ``log_density``,
    ``label_confidence``, ``recipe`` (digest), ``synthetic`` and, in a labelled dataset, ``label`` and ``class``; it is
    empty for readers that were opened with ``provenance=False``.
    """

    image: Any
    label: Any
    provenance: dict[str, Any]


@dataclass(frozen=True)
class SampleParser:
    """Makes samples of the files of an archive."""

    manifest: Manifest
    transform: Callable[[np.ndarray], Any] | None = None
    soft_labels: bool = False
    provenance: bool = True

    def __call__(self, key: str, files: dict[str, bytes], field: str) -> Sample:
        """The sample of the files of one key. Raises ``IntegrityError`` that names ``field``."""
        name = extension(self.manifest.image.format)
        try:
            data, label, stated = files[name], int(files.get("cls", NO_LABEL)), files["json"]
            facts = dict(json.loads(stated)) if self.provenance or self.soft_labels else {}
        except (KeyError, ValueError, TypeError, RecursionError) as broken:
            raise IntegrityError(field, f"{name}, json and cls", f"{sorted(files)} ({broken!r:.100})") from broken
        image: Any = decode_image(data, field=field)
        if self.transform is not None:
            image = self.transform(image)
        # Default collate rejects None. In a dataset without labels, some fields are None in every sample.
        provenance = {"key": key} | {name: value for name, value in facts.items() if value is not None}
        labels, probabilities = (provenance.pop(name, None) for name in ("likely_labels", "likely_probabilities"))
        wanted = self._soft_label(labels, probabilities, field) if self.soft_labels else label
        return Sample(image, wanted, provenance if self.provenance else {})

    def _soft_label(self, labels: Any, probabilities: Any, field: str) -> np.ndarray:
        try:
            return soft_label(labels, probabilities, len(self.manifest.classes))
        except (ValueError, TypeError, IndexError, OverflowError) as broken:
            expected = "the most likely classes of an image, with probabilities"
            raise IntegrityError(field, expected, f"{broken!r:.200}") from broken

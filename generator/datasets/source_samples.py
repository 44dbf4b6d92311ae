"""A source of real images by index, with samples like those of a build."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
from torch.utils.data import Dataset as TorchDataset

from generator.datasets.sample import NO_LABEL, Sample
from generator.errors import SpecError
from generator.sources.base import Source


@final
class SourceSamples(TorchDataset[Sample]):
    """Sample ``i`` of a source: image, label in the numbering of ``classes``, no provenance. Made by
    ``source_samples``."""

    def __init__(self, source: Source, classes: tuple[str, ...], transform: Callable[[np.ndarray], Any] | None) -> None:
        self.classes, self._images_NHWC, self._transform = classes, source.images_NHWC, transform
        numbers = np.array([classes.index(name) for name in source.class_names], dtype=np.int64)
        self._labels_N = None if source.labels_N is None else numbers[source.labels_N]

    def __len__(self) -> int:
        return len(self._images_NHWC)

    def __getitem__(self, index: int) -> Sample:
        """Raises ``IndexError``."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        image: Any = np.array(self._images_NHWC[index % len(self)])
        label = NO_LABEL if self._labels_N is None else int(self._labels_N[index])
        return Sample(image if self._transform is None else self._transform(image), label, {})


def source_samples(
    source: Source, classes: Sequence[str] | None = None, *, transform: Callable[[np.ndarray], Any] | None = None
) -> SourceSamples:
    """The images of ``source`` for ``mix`` and for PyTorch's loaders.

    ``classes``: class names in the order of the labels wanted, such as those of a build; by default the source's own.
    Raises ``SpecError`` for a class of the source that is not among them.
    """
    names = tuple(source.class_names if classes is None else classes)
    unknown = [name for name in source.class_names if name not in names]
    if unknown:
        raise SpecError("classes", f"all classes of the source, also {unknown[0]!r}", ", ".join(names[:12]) or "none")
    return SourceSamples(source, names, transform)

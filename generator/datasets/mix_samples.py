"""The samples of a mixture in one form, whatever dataset they come from."""

from __future__ import annotations

from typing import Any

import numpy as np

from generator.datasets.sample import Sample


def as_sample(found: Any) -> Any:
    """A pair ``(image, label)``, as datasets of torchvision have, as a ``Sample`` without provenance; an image of
    Pillow as uint8 HWC; a label of NumPy or PyTorch as an integer. Other samples stay as they are."""
    if not isinstance(found, tuple | list) or len(found) not in (2, 3):
        return found
    image, label, *rest = found
    if not (hasattr(image, "shape") or hasattr(image, "getbands")):
        return found
    if hasattr(image, "getbands"):  # Pillow
        pixels = np.array(image)
        image = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if getattr(label, "ndim", None) == 0:
        label = label.item()
    return Sample(image, label, rest[0] if rest else {})


def describe(sample: Any) -> str:
    """The form of a sample, for messages: ``uint8 (32, 32, 3), label int, 9 fields of provenance``."""
    if not isinstance(sample, Sample):
        return f"a {type(sample).__name__}"
    shape, dtype = getattr(sample.image, "shape", None), getattr(sample.image, "dtype", None)
    image = f"{dtype} {tuple(shape)}" if shape is not None else f"a {type(sample.image).__name__}"
    fields = len(sample.provenance) if isinstance(sample.provenance, dict) else 0
    return f"{image}, label {type(sample.label).__name__}, {fields or 'no'} fields of provenance"

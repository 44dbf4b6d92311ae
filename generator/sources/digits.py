"""The bundled source: 1,797 grey 8x8 digits of scikit-learn (Alpaydin and Kaynak, UCI 1998), CC BY 4.0."""

from __future__ import annotations

import numpy as np

from generator.sources.arrays import resize_array
from generator.sources.base import ProgressCallback, Source, make_source


def load_digits(*, size: int | None, channels: int | None, progress: ProgressCallback | None) -> Source:
    """The digits, with their 17 levels scaled to 0 .. 255; 8x8 unless ``size`` is given."""
    from sklearn import datasets

    bunch = datasets.load_digits()
    images_NHWC = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    images_NHWC = resize_array(images_NHWC, size=size, channels=channels, field="digits:images", progress=progress)
    names = [str(name) for name in bunch.target_names]
    return make_source(images_NHWC, bunch.target, names, name="digits")

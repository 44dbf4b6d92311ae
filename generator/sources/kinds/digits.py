"""The bundled source: 1,797 grey 8x8 digits of scikit-learn (Alpaydin and Kaynak, UCI 1998), CC BY 4.0."""

from __future__ import annotations

import numpy as np

from generator.sources.labels import read_labels
from generator.sources.listing import Listing
from generator.sources.pixels.arrays import ArrayImages


def list_digits() -> Listing:
    """The digits, with their 17 levels scaled to 0 .. 255."""
    from sklearn import datasets

    bunch = datasets.load_digits()
    images_NHWC = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    names = [str(name) for name in bunch.target_names]
    images = ArrayImages("digits", images_NHWC.shape, images_NHWC.dtype, lambda: iter([images_NHWC]))
    return Listing("digits", images, read_labels(bunch.target, names, field="digits:labels"))

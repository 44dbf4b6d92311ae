"""Samples of an autoencoder that is still in training, to look at: its latent distribution is fitted only afterwards.

Each class has a Gaussian with mean and covariance of a few of its codes: their mean, plus a random combination of their
deviations. The images and the noise are always the same, so that pictures of later epochs can be compared with earlier
ones. Legend: S samples, K codes of a class, D latent dimensions.
"""

from __future__ import annotations

from typing import final

import numpy as np
from torch import nn

from generator.models.autoencoders.inference import decode, encode
from generator.production.provenance.preview import GRID_SIDE, PER_ROW, ROWS, preview_bytes
from generator.sources import Source
from generator.sources.pixels.storage import image_rows
from generator.spec.recipe import RECIPE_VERSION

_CODES = 64  # of a class, at most


@final
class EarlySamples:
    """Sheets of samples for the first classes of ``source``, of which a few images are read for each sheet."""

    def __init__(self, source: Source) -> None:
        self._classes, self._images_NHWC = source.class_names, source.images_NHWC
        labels_N = np.zeros(len(source), dtype=np.int64) if source.labels_N is None else source.labels_N
        shown = np.unique(labels_N)[:ROWS].tolist()
        self._rows = {label: np.flatnonzero(labels_N == label)[:_CODES] for label in shown}

    def sheet(self, encoder: nn.Module, decoder: nn.Module) -> bytes:
        """A JPEG with a row for each class, or a grid without classes. The networks are in evaluation mode."""
        random = np.random.default_rng(0)
        count = PER_ROW if self._classes else GRID_SIDE * GRID_SIDE
        samples: list[tuple[np.ndarray, int | None]] = []
        for label, rows_K in self._rows.items():
            codes_KD = encode(encoder, image_rows(self._images_NHWC, rows_K))
            deviations_KD = (codes_KD - codes_KD.mean(axis=0)) / np.sqrt(max(1, len(codes_KD) - 1))
            z_SD = codes_KD.mean(axis=0) + random.standard_normal((count, len(codes_KD))) @ deviations_KD
            samples += [(image_HWC, label) for image_HWC in decode(decoder, z_SD)]
        return preview_bytes(samples, self._classes, RECIPE_VERSION)

"""Round trip: decode a sample, encode the image, compare the two codes: z -> decoder -> image -> encoder -> z'.

A sample *returns* if the distance from z to z' is at most the 95% quantile of held-out codes, with each dimension in
units of the codes' spread. Outside its training distribution, a decoder gives images that the encoder maps to other
codes: reconstruction as a test of the manifold, as in Alain & Bengio ("What regularized auto-encoders learn from the
data-generating distribution", JMLR 2014).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import nn

from generator.curation.diagnosis.unmeasured import Unmeasured
from generator.errors import InvalidOutput
from generator.models.autoencoders.inference import encode
from generator.production.decoding import ResidentDecoder
from generator.spec.canonical import FrozenModel

HOLDOUT_QUANTILE = 0.95
MIN_CODES = 20
MAX_POINTS = 500
DECODE_BATCH = 128


class ReturnShare(FrozenModel):
    """The share of points that return, and its standard error."""

    share: float
    error: float


@dataclass(frozen=True, eq=False)
class RoundTrip:
    """A bundle's decoder and encoder, the codes' spread in each dimension, and the distance limit for a return."""

    decoder: ResidentDecoder
    encoder: nn.Module
    spread_D: np.ndarray  # 0 for inactive dimensions, which are ignored
    limit: float

    def measure_returns(self, points_BD: np.ndarray) -> ReturnShare | Unmeasured:
        """The share of (at most ``MAX_POINTS`` of) ``points_BD`` that returns."""
        try:
            distance_B = self.return_distances(points_BD[:MAX_POINTS])
        except InvalidOutput as invalid:
            return Unmeasured(why=f"the decoder gave {invalid.got} for some points")
        if not len(distance_B):
            return Unmeasured(why="no points")
        share = float((distance_B <= self.limit).mean())
        return ReturnShare(share=share, error=float(np.sqrt(share * (1.0 - share) / len(distance_B))))

    def return_distances(self, points_BD: np.ndarray) -> np.ndarray:
        """float64 (B,): root mean square distance from z to z' over the active dimensions, in units of their spread."""
        used = self.spread_D > 0.0
        reencoded_BD = (
            encode(self.encoder, decode_in_batches(self.decoder, points_BD), self.decoder.batch)
            if len(points_BD)
            else points_BD
        )
        error_BU = (reencoded_BD - points_BD)[:, used] / self.spread_D[used]
        distance_B: np.ndarray = np.sqrt((error_BU**2).mean(axis=1))
        return distance_B


def calibrate_round_trip(
    decoder: ResidentDecoder, encoder: nn.Module, holdout_HD: np.ndarray, active_D: np.ndarray
) -> RoundTrip | Unmeasured:
    """Calibrate the distance limit on held-out codes. ``active_D``: bool, the active dimensions."""
    if len(holdout_HD) < MIN_CODES:
        return Unmeasured(why=f"{len(holdout_HD)} held-out codes, fewer than {MIN_CODES}")
    if not active_D.any():
        return Unmeasured(why="no dimension is active")
    spread_D = np.where(active_D, holdout_HD.std(axis=0), 0.0)
    unlimited = RoundTrip(decoder, encoder, spread_D, np.inf)
    try:
        distance_H = unlimited.return_distances(holdout_HD[:MAX_POINTS])
    except InvalidOutput as invalid:
        return Unmeasured(why=f"the decoder gave {invalid.got} for held-out codes")
    return RoundTrip(decoder, encoder, spread_D, float(np.quantile(distance_H, HOLDOUT_QUANTILE)))


def decode_in_batches(
    decoder: ResidentDecoder, points_BD: np.ndarray, labels_B: np.ndarray | None = None
) -> np.ndarray:
    """Decode any number of points: uint8 images_BHWC. ``labels_B`` (int64): for a decoder of classes."""
    z_BD = points_BD.astype(np.float32)
    batches = (slice(begin, begin + decoder.batch) for begin in range(0, len(z_BD), decoder.batch))
    return np.concatenate(
        [decoder.decode(z_BD[rows], None if labels_B is None else labels_B[rows]) for rows in batches]
    )

"""Do images of samples lead back to the samples? z -> decoder -> image -> encoder -> z'.

A sample *returns* when the way from z to z' is no longer than what 95% of held-out codes make of it, each dimension in
units of the codes' own spread. A decoder asked outside what it was trained on gives images that the encoder places
elsewhere: the reading of reconstruction as a test of the manifold in Alain & Bengio ("What regularized auto-encoders
learn from the data-generating distribution", JMLR 2014).
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
    """The share of points that return, and the standard error of that share."""

    share: float
    error: float


@dataclass(frozen=True, eq=False)
class RoundTrip:
    """A bundle's two networks, the codes' spread in each dimension that is in use, and the longest way that returns."""

    decoder: ResidentDecoder
    encoder: nn.Module
    spread_D: np.ndarray  # 0 where a dimension carries nothing: it is not asked to return
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
        """float64 (B,): root mean square way over the dimensions in use, in units of their spread."""
        used = self.spread_D > 0.0
        back_BD = encode(self.encoder, decode_in_batches(self.decoder, points_BD)) if len(points_BD) else points_BD
        way_BU = (back_BD - points_BD)[:, used] / self.spread_D[used]
        distance_B: np.ndarray = np.sqrt((way_BU**2).mean(axis=1))
        return distance_B


def calibrate_round_trip(
    decoder: ResidentDecoder, encoder: nn.Module, holdout_HD: np.ndarray, active_D: np.ndarray
) -> RoundTrip | Unmeasured:
    """The way of held-out codes as the measure of all others. ``active_D``: bool, dimensions in use."""
    if len(holdout_HD) < MIN_CODES:
        return Unmeasured(why=f"{len(holdout_HD)} held-out codes, fewer than {MIN_CODES}")
    if not active_D.any():
        return Unmeasured(why="no dimension is in use")
    spread_D = np.where(active_D, holdout_HD.std(axis=0), 0.0)
    whole = RoundTrip(decoder, encoder, spread_D, np.inf)
    try:
        distance_H = whole.return_distances(holdout_HD[:MAX_POINTS])
    except InvalidOutput as invalid:
        return Unmeasured(why=f"the decoder gave {invalid.got} for held-out codes")
    return RoundTrip(decoder, encoder, spread_D, float(np.quantile(distance_H, HOLDOUT_QUANTILE)))


def decode_in_batches(decoder: ResidentDecoder, points_BD: np.ndarray) -> np.ndarray:
    """uint8 images_BHWC of any number of points."""
    z_BD = points_BD.astype(np.float32)
    return np.concatenate(
        [decoder.decode(z_BD[begin : begin + decoder.batch]) for begin in range(0, len(z_BD), decoder.batch)]
    )

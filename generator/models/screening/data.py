"""The parts of a bundle that screen images. Importing this file does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from generator.models.screening.config import NO_PASS_RATES, JudgeSettings, PassRates

if TYPE_CHECKING:
    from generator.models.screening.copy_index import CopyIndex


@dataclass(frozen=True, eq=False)
class ScreeningData:
    """The label judge's settings and weights, the copy index, and the pass rates; each may be absent."""

    judge: JudgeSettings | None = None
    judge_weights: Mapping[str, np.ndarray] | None = None
    copy_index: CopyIndex | None = None
    pass_rates: PassRates = NO_PASS_RATES

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        weights = sum(weight.nbytes for weight in (self.judge_weights or {}).values())
        return weights + (0 if self.copy_index is None else self.copy_index.nbytes)


NO_SCREENING = ScreeningData()

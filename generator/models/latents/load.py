"""Loads a stored latent distribution of any family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from generator.errors import BundleError
from generator.models.latents import flow, mixture, polar, prior, transport
from generator.models.latents.base import LatentDistribution

_Loader = Callable[[Mapping[str, Any], Mapping[str, np.ndarray]], LatentDistribution]
_LOADERS: dict[str, _Loader] = {
    "gaussian": mixture.from_state,
    "mixture": mixture.from_state,
    "flow": flow.from_state,
    "polar": polar.from_state,
    "transport": transport.from_state,
    "prior": prior.from_state,
}


def load_distribution(config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> LatentDistribution:
    """The distribution with this ``state()``. Raises ``BundleError`` for values that do not fit together."""
    family = config.get("family")
    if not isinstance(family, str) or family not in _LOADERS:
        raise BundleError("latents.family", f"one of {', '.join(_LOADERS)}", repr(family))
    return _LOADERS[family](config, tensors)

"""Detects posterior collapse of a variational autoencoder: latent dimensions that do not depend on the image."""

from __future__ import annotations

import numpy as np

from generator.models.autoencoders.config import AutoencoderConfig, VaeConfig

ACTIVE_VARIANCE = 0.01


def collapse_notices(config: AutoencoderConfig, codes_ND: np.ndarray) -> tuple[str, ...]:
    """A notice if some latent dimensions of a vae are not active.

    A dimension is active if the posterior mean varies over images by more than ``ACTIVE_VARIANCE`` (Burda, Grosse &
    Salakhutdinov, "Importance weighted autoencoders", ICLR 2016, section 4.3; the prior's variance is 1).
    """
    if not isinstance(config, VaeConfig):
        return ()
    active = int((codes_ND.var(axis=0) > ACTIVE_VARIANCE).sum())
    if active == config.latent_dim:
        return ()
    summary = f"{active} of {config.latent_dim} latent dimensions depend on the image"
    if active == 0:
        return (f"the posterior has collapsed: {summary}, so all samples will look alike; try a smaller beta",)
    return (f"{summary}; the others are noise; a smaller beta or free_bits would use them",)

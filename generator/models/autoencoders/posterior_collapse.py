"""Has the posterior of a variational autoencoder collapsed: does it no longer depend on the image?"""

from __future__ import annotations

import numpy as np

from generator.models.autoencoders.config import AutoencoderConfig, VaeConfig

ACTIVE_VARIANCE = 0.01


def collapse_notices(config: AutoencoderConfig, codes_ND: np.ndarray) -> tuple[str, ...]:
    """What a person should know of a vae's codes, if anything.

    A dimension is active if the posterior mean varies over images by more than ``ACTIVE_VARIANCE`` (Burda, Grosse &
    Salakhutdinov, "Importance weighted autoencoders", ICLR 2016, section 4.3; the prior's variance is 1).
    """
    if not isinstance(config, VaeConfig):
        return ()
    active = int((codes_ND.var(axis=0) > ACTIVE_VARIANCE).sum())
    if active == config.latent_dim:
        return ()
    said = f"{active} of {config.latent_dim} latent dimensions carry something of the image"
    if active == 0:
        return (f"the posterior has collapsed: {said}, so samples will all look alike; try a smaller beta",)
    return (f"{said}; the others are noise, which a smaller beta or free_bits would fill",)

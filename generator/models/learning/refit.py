"""From a bundle to another one with the same decoder and another latent distribution. Bundles are immutable."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from generator.models.autoencoders.factory import load_decoder
from generator.models.bundle import (
    Bundle,
    BundleContents,
    FittingFacts,
    load_bundle,
    load_codes,
    load_encoder_weights,
    save_bundle,
)
from generator.models.bundle.format import ENCODER_FILE
from generator.models.bundle.save import check_new_directory
from generator.models.latents import LatentDistribution
from generator.models.latents.config import SamplerSettings
from generator.models.latents.fitting.fit import Fit, fit
from generator.models.screening.data import ScreeningData
from generator.models.screening.fit import make_screening
from generator.models.screening.label_judge import load_judge
from generator.store.base import Store


@dataclass(frozen=True)
class RefitResult:
    """What ``refit`` made: the digests of the old bundle and of the new one, and how the fit went."""

    before: str
    digest: str
    fit: Fit


def refit(store: Store, sampler: SamplerSettings, out: Path, *, seed: int | None = None) -> RefitResult:
    """Fit ``sampler`` to the codes that the bundle in ``store`` keeps, and write the bundle ``out``, which must be new.

    All but the latent distribution is as in the old bundle, ``seed`` as well, unless given.
    Raises ``BundleError``, ``SourceError`` for codes that cannot be fitted to, and ``TrainingDiverged``.
    """
    check_new_directory(out)
    bundle = load_bundle(store)
    codes = load_codes(store, bundle.info)
    encoder = load_encoder_weights(store, bundle.info) if ENCODER_FILE in bundle.info.files else None
    seed = bundle.info.fitting.seed if seed is None else seed
    fitted = fit(codes, sampler, seed=seed)
    guards = _update_screening(bundle, fitted.distribution)
    fitted = replace(fitted, notices=(*fitted.notices, *guards.pass_rates.notices(bundle.info.classes)))
    contents = BundleContents(
        autoencoder=bundle.info.autoencoder,
        decoder=bundle.decoder,
        encoder=encoder,
        latents=fitted.distribution,
        classes=bundle.info.classes,
        codes=codes,
        source=bundle.info.source,
        training=bundle.info.training,
        fitting=FittingFacts(settings=sampler, seed=seed, chosen=fitted.chosen),
        screening=guards,
    )
    return RefitResult(bundle.digest, save_bundle(out, contents), fitted)


def _update_screening(bundle: Bundle, latents: LatentDistribution) -> ScreeningData:
    """Judge and sketch as they were; what passes them is another share now."""
    info, judge = bundle.info, None
    if info.judge is not None and bundle.screening.judge_weights is not None:
        shape = {"size": info.image.height, "channels": info.image.channels, "classes": len(info.classes)}
        judge = load_judge(info.judge, bundle.screening.judge_weights, **shape)
    weights = {name: torch.from_numpy(np.array(weight)) for name, weight in bundle.decoder.items()}
    return make_screening(
        load_decoder(info.autoencoder, weights), latents, info.judge, judge, bundle.screening.copy_index
    )

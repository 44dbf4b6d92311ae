"""Creates a new bundle from an existing one, with the same decoder and a new latent distribution."""

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
from generator.models.bundle.load import load_reconstructions, load_thumbnails
from generator.models.bundle.save import check_new_directory
from generator.models.latents import LatentDistribution
from generator.models.latents.config import SamplerSettings
from generator.models.latents.fitting.code_map import fit_code_map
from generator.models.latents.fitting.fit import Fit, fit
from generator.models.screening.data import ScreeningData
from generator.models.screening.fit import make_screening
from generator.models.screening.label_judge import load_judge
from generator.store.base import Store


@dataclass(frozen=True)
class RefitResult:
    """Result of ``refit``: the digests of the old and the new bundle, and the fit."""

    before: str
    digest: str
    fit: Fit


def refit(store: Store, sampler: SamplerSettings, out: Path, *, seed: int | None = None) -> RefitResult:
    """Fit ``sampler`` to the codes in the bundle at ``store``; write the bundle ``out``, which must not exist yet.

    Everything except the latent distribution and the pass rates is taken from the old bundle, also ``seed`` by default;
    a bundle without a map gets one.
    Raises ``BundleError``, ``SourceError`` for codes that cannot be fitted to, and ``TrainingDiverged``.
    """
    check_new_directory(out)
    bundle = load_bundle(store)
    codes = load_codes(store, bundle.info)
    encoder = load_encoder_weights(store, bundle.info) if ENCODER_FILE in bundle.info.files else None
    seed = bundle.info.fitting.seed if seed is None else seed
    fitted = fit(codes, sampler, seed=seed)
    screening = _update_screening(bundle, fitted.distribution)
    fitted = replace(fitted, notices=(*fitted.notices, *screening.pass_rates.notices(bundle.info.classes)))
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
        screening=screening,
        code_map=bundle.code_map or fit_code_map(codes),
        thumbnails=load_thumbnails(store, bundle.info),
        reconstructions=load_reconstructions(store, bundle.info),
    )
    return RefitResult(bundle.digest, save_bundle(out, contents), fitted)


def _update_screening(bundle: Bundle, latents: LatentDistribution) -> ScreeningData:
    """The same label judge and copy index, with pass rates for the new latent distribution."""
    info, judge = bundle.info, None
    if info.judge is not None and bundle.screening.judge_weights is not None:
        judge = load_judge(
            info.judge,
            bundle.screening.judge_weights,
            size=info.image.size,
            channels=info.image.channels,
            classes=len(info.classes),
        )
    weights = {name: torch.from_numpy(np.array(weight)) for name, weight in bundle.decoder.items()}
    return make_screening(
        load_decoder(info.autoencoder, weights),
        latents,
        info.judge,
        judge,
        bundle.screening.copy_index,
        config=info.autoencoder,
    )

"""A bundle with random weights, for measuring a machine without a trained bundle.

Its images show nothing, but cost as much to decode as those of a trained bundle.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from generator.models.autoencoders.config import check_model_size, default_config
from generator.models.autoencoders.factory import build_decoder, build_encoder
from generator.models.autoencoders.settings import EpochRecord, TrainSettings
from generator.models.bundle import (
    Bundle,
    BundleContents,
    FittingFacts,
    SourceFacts,
    TrainingFacts,
    load_bundle,
    save_bundle,
)
from generator.models.latents.codes import Codes
from generator.models.latents.config import MixtureSettings
from generator.models.latents.load import load_distribution
from generator.spec.image_size import AnySize
from generator.store import open_store

_CLASSES, _DIMS, _CLUSTERS = 10, 64, 1


def random_bundle(directory: Path, size: AnySize) -> Bundle:
    """A bundle for RGB images of ``size`` (a side, or width and height): 64 latent dimensions, ten classes, one cluster
    each. Raises ``SpecError`` for sides below 8 pixels or above 128."""
    check_model_size("stacked", size)
    config = default_config(size, 3, "stacked", latent_dim=_DIMS, width=32)
    torch.manual_seed(0)
    decoder, encoder, rng = build_decoder(config), build_encoder(config), np.random.default_rng(0)
    codes_ND, labels_N = rng.normal(size=(10 * _CLASSES, _DIMS)), np.repeat(np.arange(_CLASSES), 10)
    names = tuple(f"class {label}" for label in range(_CLASSES))
    tensors = {
        "weight": np.ones(_CLASSES * _CLUSTERS),
        "mean": rng.normal(size=(_CLASSES * _CLUSTERS, _DIMS)),
        "factor": np.tile(np.eye(_DIMS), (_CLASSES * _CLUSTERS, 1, 1)),
        "quantile": np.tile(np.linspace(-4.0 * _DIMS, 0.0, 1001), (_CLASSES, 1)),
    }
    fitted = {"family": "mixture", "dims": _DIMS, "classes": _CLASSES, "clusters": [_CLUSTERS] * _CLASSES}
    record = EpochRecord(epoch=1, train_loss=1.0, holdout_loss=1.0, holdout_terms={}, best=True)
    contents = BundleContents(
        autoencoder=config,
        decoder={name: weight.detach().numpy() for name, weight in decoder.state_dict().items()},
        encoder={name: weight.detach().numpy() for name, weight in encoder.state_dict().items()},
        latents=load_distribution(fitted, tensors),
        classes=names,
        codes=Codes(codes_ND, labels_N, codes_ND[::5], labels_N[::5], names),
        source=SourceFacts(name="reference", fingerprint="sha256:" + "0" * 64, images=9 * _CLASSES, holdout=_CLASSES),
        training=TrainingFacts(settings=TrainSettings(), history=(record,)),
        fitting=FittingFacts(settings=MixtureSettings(clusters=_CLUSTERS), seed=0),
    )
    save_bundle(directory, contents)
    return load_bundle(open_store(str(directory)))

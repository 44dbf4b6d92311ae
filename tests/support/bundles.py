"""Small bundles for tests: random networks and a hand-made mixture, so that no training is needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from generator.models.autoencoders.config import SpatialConfig, VaeConfig, code_shape
from generator.models.autoencoders.factory import build_decoder, build_encoder
from generator.models.autoencoders.networks import to_input
from generator.models.autoencoders.settings import EpochRecord, TrainSettings
from generator.models.bundle import BundleContents, FittingFacts, SourceFacts, TrainingFacts, load_bundle, save_bundle
from generator.models.features.classifier import Classifier
from generator.models.latents.codes import Codes
from generator.models.latents.config import MapSettings, MixtureSettings, TransportSettings
from generator.models.latents.fitting.code_map import fit_code_map
from generator.models.latents.fitting.fit import fit
from generator.models.latents.fitting.gaussian_base import fit_base
from generator.models.latents.load import load_distribution
from generator.models.latents.transport import MapConfig, Transport, TransportConfig
from generator.models.latents.transport_map import TransportMap
from generator.models.screening.config import JudgeSettings, PassRates
from generator.models.screening.copy_index import fit_copy_index
from generator.models.screening.data import ScreeningData
from generator.models.screening.label_judge import LabelJudge
from generator.production.decoding import ResidentDecoder
from generator.store import open_store


def tiny_contents(
    *, classes: tuple[str, ...] = ("cat", "dog", "owl"), size: int = 8, channels: int = 1, dims: int = 4, seed: int = 0
) -> BundleContents:
    """The contents of a small bundle: random weights of a real network, and two clusters for each class."""
    config = VaeConfig(size=size, channels=channels, latent_dim=dims, width=8)
    torch.manual_seed(seed)
    decoder, encoder = build_decoder(config), build_encoder(config)
    rows = max(1, len(classes))
    rng = np.random.default_rng(seed)
    codes_ND, labels_N = rng.normal(size=(10 * rows, dims)), np.repeat(np.arange(rows), 10) if classes else None
    codes = Codes(codes_ND, labels_N, codes_ND[::5], None if labels_N is None else labels_N[::5], classes)
    factors = np.tril(rng.normal(size=(2 * rows, dims, dims)) * 0.1)
    factors[:, np.arange(dims), np.arange(dims)] = rng.uniform(0.5, 1.5, size=(2 * rows, dims))
    tensors = {
        "weight": np.tile([0.25, 0.75], rows),
        "mean": rng.normal(size=(2 * rows, dims)) * 2,
        "factor": factors,
        "quantile": np.tile(np.linspace(-4.0 * dims, 0.0, 1001), (rows, 1)),
    }
    latents = load_distribution(
        {"family": "mixture", "dims": dims, "classes": len(classes), "clusters": [2] * rows}, tensors
    )
    record = EpochRecord(epoch=1, train_loss=1.0, holdout_loss=1.0, holdout_terms={}, best=True)
    return BundleContents(
        autoencoder=config,
        decoder={name: weight.detach().numpy() for name, weight in decoder.state_dict().items()},
        encoder={name: weight.detach().numpy() for name, weight in encoder.state_dict().items()},
        latents=latents,
        classes=classes,
        codes=codes,
        source=SourceFacts(name="tiny", fingerprint="sha256:" + "0" * 64, images=9 * rows, holdout=rows),
        training=TrainingFacts(settings=TrainSettings(), history=(record,)),
        fitting=FittingFacts(settings=MixtureSettings(clusters=2), seed=seed),
    )


def tiny_bundle(directory: Path, **shape: object) -> Path:
    """Save ``tiny_contents`` to ``directory``; return ``directory``."""
    save_bundle(directory, tiny_contents(**shape))  # type: ignore[arg-type]
    return directory


def large_bundle(directory: Path, *, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    """Save a bundle whose codes have 1,024 numbers: random networks, and a Gaussian for each class."""
    config = SpatialConfig(size=32, channels=1, code_channels=64, width=8)
    torch.manual_seed(0)
    decoder, encoder = build_decoder(config), build_encoder(config)
    rng, labels_N = np.random.default_rng(0), np.repeat(np.arange(len(classes)), 20)
    codes_ND = rng.normal(size=(len(labels_N), config.latent_dim)) + 0.5 * labels_N[:, None]
    codes = Codes(codes_ND, labels_N, codes_ND[::5], labels_N[::5], classes, code_shape(config))
    settings = TransportSettings(map=None)
    record = EpochRecord(epoch=1, train_loss=1.0, holdout_loss=1.0, holdout_terms={}, best=True)
    contents = BundleContents(
        autoencoder=config,
        decoder={name: weight.detach().numpy() for name, weight in decoder.state_dict().items()},
        encoder={name: weight.detach().numpy() for name, weight in encoder.state_dict().items()},
        latents=fit(codes, settings).distribution,
        classes=classes,
        codes=codes,
        source=SourceFacts(name="large", fingerprint="sha256:" + "0" * 64, images=32, holdout=8),
        training=TrainingFacts(settings=TrainSettings(), history=(record,)),
        fitting=FittingFacts(settings=settings, seed=0),
        code_map=fit_code_map(codes),
    )
    save_bundle(directory, contents)
    return directory


def screened_bundle(directory: Path, **shape: object) -> Path:
    """Save a small bundle with a random label judge and a copy index of its own decoder's images."""
    contents = tiny_contents(**shape)  # type: ignore[arg-type]
    config, rng = contents.autoencoder, np.random.default_rng(7)
    plain = load_bundle(open_store(str(tiny_bundle(directory.with_name(f"{directory.name}-plain"), **shape))))
    decoder = ResidentDecoder(plain, batch=300, dtype="float32", device="cpu")
    images_NHWC = decoder.decode(2.0 * rng.normal(size=(300, config.latent_dim)).astype(np.float32))
    torch.manual_seed(1)
    member = Classifier(config.size, config.channels, len(contents.classes)).eval().requires_grad_(False)
    logits_NC = member(to_input(images_NHWC, torch.device("cpu")))
    member.head.weight.div_(logits_NC.std())
    member.head.bias.copy_((member.head.bias - logits_NC.mean(0)) / logits_NC.std())  # no class is preferred
    judge = LabelJudge([member])
    pass_rates = PassRates(label=(0.75,) * len(contents.classes), novelty=0.75)
    weights = {name: weight.numpy() for name, weight in judge.state_dict().items()}
    screening = ScreeningData(
        JudgeSettings(), weights, fit_copy_index(images_NHWC[:150], images_NHWC[150:], seed=0), pass_rates
    )
    save_bundle(directory, replace(contents, screening=screening))
    return directory


def mapped_bundle(directory: Path, *, size: int = 32, seed: int = 0) -> Path:
    """Save a small bundle of the family ``spatial`` whose latent distribution is a Gaussian with a random map."""
    classes, config = ("cat", "dog"), SpatialConfig(size=size, code_channels=4, width=8)
    torch.manual_seed(seed)
    decoder, encoder = build_decoder(config), build_encoder(config)
    with torch.no_grad():
        for name, weight in decoder.named_parameters():
            weight.copy_(torch.randn_like(weight) * (0.5 if name.endswith("bias") else weight[0].numel() ** -0.5))
    rng, labels_N = np.random.default_rng(seed), np.arange(40) % 2
    codes_ND = rng.normal(size=(40, config.latent_dim)) + labels_N[:, None]
    codes = Codes(codes_ND, labels_N, codes_ND[:10], labels_N[:10], classes, config.code_shape)
    base, arrays = fit_base(codes, codes.by_class())
    settings = TransportSettings(map=MapSettings(width=24, blocks=2, steps=3))
    network = MapConfig(width=24, blocks=2, steps=3)
    fresh = TransportMap(network, arrays["mean"], np.ones_like(arrays["mean"]))
    weights = {
        f"map.{name}": rng.normal(size=tuple(value.shape)).astype(np.float32) * np.float32(value.shape[-1] ** -0.5)
        for name, value in fresh.state_dict().items()
    }
    transport = TransportConfig(dims=config.latent_dim, classes=2, base=base, map=network)
    contents = replace(
        tiny_contents(classes=classes),
        autoencoder=config,
        decoder={name: weight.detach().numpy() for name, weight in decoder.state_dict().items()},
        encoder={name: weight.detach().numpy() for name, weight in encoder.state_dict().items()},
        latents=Transport(transport, {**arrays, **weights}),
        codes=codes,
        fitting=FittingFacts(settings=settings, seed=seed),
    )
    save_bundle(directory, contents)
    return directory

"""Makes a bundle of an imported autoencoder and the images of a source, and trains its decoder further if asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from generator.errors import SourceError, SpecError
from generator.models.autoencoders.decoder_tuning import check_tuning
from generator.models.autoencoders.factory import load_decoder, load_encoder
from generator.models.autoencoders.inference import decode, encode
from generator.models.autoencoders.replicas import ALONE, Replicas
from generator.models.autoencoders.settings import TrainSettings
from generator.models.autoencoders.training import TrainedAutoencoder, train_autoencoder
from generator.models.bundle.save import check_new_directory
from generator.models.latents.config import SamplerSettings
from generator.models.learning.callbacks import SILENT, TrainingCallbacks
from generator.models.learning.fitted_bundle import TrainResult, examples_of, fit_and_save
from generator.models.learning.imported_network import ImportedNetwork
from generator.models.learning.train import checkpoint_path, train_feature_network, training_lock
from generator.models.screening.config import JudgeSettings
from generator.sources import Source, split
from generator.spec.canonical import digest_of


def encode_source(
    network: ImportedNetwork,
    source: Source,
    out: Path,
    *,
    sampler: SamplerSettings,
    settings: TrainSettings,
    finetune: bool = False,
    judge: JudgeSettings | None = None,
    replicas: Replicas = ALONE,
    callbacks: TrainingCallbacks = SILENT,
    keep_thumbnails: bool = False,
) -> TrainResult:
    """Write the bundle ``out``, which must not exist yet: the network with codes, distribution and judge of ``source``.

    ``finetune``: train the decoder further on the images, as ``settings`` say, with the encoder as it is; a training
    that was interrupted resumes. ``settings.tuning_steps``: train it further on sampled codes, with the classifier of
    ``settings.feature_loss``. Otherwise ``settings`` only say how images are held out, and the seed.
    ``keep_thumbnails``: keep small pictures of the training images in the bundle.
    Raises ``BundleError``, ``SourceError``, ``SpecError``, ``TrainingDiverged``, and what ``train_bundle`` raises.
    """
    check_new_directory(out)
    config, trained = network.config, _autoencoder_for(source, network)
    check_tuning(config, settings, len(source.class_names))
    if finetune and settings.reconstruction != "mse":
        raise SpecError("train.reconstruction", "mse for an autoencoder that exists", settings.reconstruction)
    parts = split(len(source), source.labels_N, holdout=settings.holdout, seed=settings.seed)
    _check_round_trip(trained, source)
    with training_lock(out):
        check_new_directory(out)
        features = None
        if finetune or settings.tuning_steps:
            features = train_feature_network(source, parts, config, settings)
        if finetune:
            trained = train_autoencoder(
                config,
                settings,
                examples_of(source, parts.train_N),
                examples_of(source, parts.holdout_N),
                classes=len(source.class_names),
                features=features,
                fingerprint=f"{source.fingerprint} {_digest(network)}",
                initial=initial_weights(network),
                checkpoint=checkpoint_path(out),
                replicas=replicas,
                on_step=callbacks.on_step,
                on_epoch=callbacks.on_epoch,
                on_networks=callbacks.on_networks,
            )
            replicas.part()
        result = fit_and_save(
            *(source, parts, trained, settings, sampler, judge, out),
            features=features,
            callbacks=callbacks,
            keep_thumbnails=keep_thumbnails,
        )
        checkpoint_path(out).unlink(missing_ok=True)
    return result


def initial_weights(network: ImportedNetwork) -> dict[str, Tensor]:
    """The weights of encoder and decoder, named as ``train_autoencoder`` takes them."""
    found = {"encoder": network.encoder or {}, "decoder": network.decoder}
    return {f"{part}.{name}": weight for part, arrays in found.items() for name, weight in _to_tensors(arrays).items()}


def _autoencoder_for(source: Source, network: ImportedNetwork) -> TrainedAutoencoder:
    """The network as one that was trained. Raises ``SpecError`` for one without an encoder, and ``SourceError`` if it
    is for other images."""
    config = network.config
    if network.encoder is None:
        raise SpecError("encode", "a network with an encoder", "a decoder alone", "give its codes with --codes FILE")
    if (source.size, source.channels) != (config.image_size, config.channels):
        expected = f"images of {config.image_size} pixels and {config.channels} channels"
        raise SourceError("source", expected, f"{source.size} pixels and {source.channels} channels")
    return TrainedAutoencoder(config, _to_tensors(network.encoder), _to_tensors(network.decoder), ())


def _check_round_trip(imported: TrainedAutoencoder, source: Source) -> None:
    """Decode the code of one image before any work. Raises ``SpecError`` for NaN or infinity."""
    code_1D = encode(load_encoder(imported.config, imported.encoder_state), source.images_NHWC[:1])
    if not np.isfinite(code_1D).all():
        raise SpecError("encoder", "finite codes", "NaN or infinity for the first image")
    decode(load_decoder(imported.config, imported.decoder_state), code_1D)


def _to_tensors(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def _digest(network: ImportedNetwork) -> str:
    """Of all weights, so that a stopped training continues with the same network only."""
    arrays = [*network.decoder.values(), *(network.encoder or {}).values()]
    return digest_of(network.config.canonical() + b"".join(array.tobytes() for array in arrays))

"""From a trained or imported autoencoder to a bundle: encode the source, fit the latent distribution, screen, save."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from generator.models.autoencoders.config import AutoencoderConfig, code_shape, limit_batch, takes_labels
from generator.models.autoencoders.devices import resolve_device
from generator.models.autoencoders.factory import load_decoder, load_encoder
from generator.models.autoencoders.inference import decode, encode
from generator.models.autoencoders.posterior_collapse import collapse_notices
from generator.models.autoencoders.settings import EpochRecord, TrainSettings
from generator.models.autoencoders.training import Examples, TrainedAutoencoder
from generator.models.batched_rows import images_at_once
from generator.models.bundle import BundleContents, FittingFacts, SourceFacts, TrainingFacts, save_bundle
from generator.models.bundle.reconstructions import Reconstructions, choose_pairs, make_reconstructions
from generator.models.bundle.thumbnails import make_thumbnails
from generator.models.features.classifier import Classifier, LabelledImages
from generator.models.freed_memory import give_back_freed_memory
from generator.models.latents import LatentDistribution
from generator.models.latents.codes import Codes
from generator.models.latents.config import SamplerSettings
from generator.models.latents.fitting.code_map import fit_code_map
from generator.models.latents.fitting.fit import Fit, fit
from generator.models.learning.callbacks import SILENT, TrainingCallbacks
from generator.models.learning.draw_tuning import tune_on_draws
from generator.models.screening.config import JudgeSettings
from generator.models.screening.data import ScreeningData
from generator.models.screening.fit import make_screening, train_screening
from generator.sources import Source, Split
from generator.sources.pixels.storage import image_rows
from generator.spec.seeding import permutation

MAX_CODE_BYTES = 32 * 1024 * 1024  # of a bundle's stored codes
_RECONSTRUCTED = 500  # held-out images whose error is measured
_ENCODED_AT_ONCE = 512  # images, at most
_FITTED_BYTES = 2**27  # of the codes to which a latent distribution is fitted: a random part of very large sources
_ENCODED_FEATURES = 2**28  # numbers of all images in the memory of an imported encoder


@dataclass(frozen=True)
class TrainResult:
    """The bundle's digest, the number of training and held-out images, the training history, and the fit.

    ``reconstruction_error``: mean squared error of held-out images after encoder and decoder, for pixels in [0, 1].
    """

    digest: str
    trained_on: int
    held_out: int
    history: tuple[EpochRecord, ...]
    fit: Fit
    reconstruction_error: float


def examples_of(source: Source, rows_N: np.ndarray) -> Examples:
    """The images of ``rows_N``, and their labels if the source has some."""
    labels_N = None if source.labels_N is None else source.labels_N[rows_N]
    return Examples(image_rows(source.images_NHWC, rows_N), labels_N)


def fit_and_save(
    source: Source,
    parts: Split,
    trained: TrainedAutoencoder,
    settings: TrainSettings,
    sampler: SamplerSettings,
    judge: JudgeSettings | None,
    out: Path,
    *,
    features: Classifier | None = None,
    callbacks: TrainingCallbacks = SILENT,
    keep_thumbnails: bool = False,
) -> TrainResult:
    """Encode ``source``, fit ``sampler`` to the codes of its training part, and write the bundle ``out``.

    ``features``: the classifier of the feature loss, needed for ``settings.tuning_steps``.
    ``keep_thumbnails``: the bundle gets small pictures of the training images whose codes it keeps, and of some
    held-out images beside their reconstructions.
    """
    encoder = load_encoder(trained.config, trained.encoder_state)
    device = str(resolve_device(settings.device))
    fitted_parts = _limit_parts(parts, trained.config.latent_dim, settings.seed)
    codes = _encode_source(trained.config, encoder.to(device), source, fitted_parts, callbacks.on_encode)
    give_back_freed_memory()
    callbacks.on_fit(0, 1)
    fitted = fit(codes, sampler, seed=settings.seed, device=device, on_epoch=callbacks.on_fit)
    give_back_freed_memory()
    fitted = replace(fitted, notices=(*collapse_notices(trained.config, codes.codes_ND), *fitted.notices))
    if settings.tuning_steps and features is not None:
        training = examples_of(source, fitted_parts.train_N)
        trained = tune_on_draws(trained, settings, training, codes, fitted.distribution, features, callbacks.on_tune)
    screening = _fit_screening(source, parts, trained, settings, judge, fitted.distribution, callbacks.on_stage)
    give_back_freed_memory()
    callbacks.on_stage("writing the bundle")
    fitted = replace(fitted, notices=(*fitted.notices, *screening.pass_rates.notices(source.class_names)))
    train_rows, holdout_rows = _kept_rows(codes, settings.seed)
    kept_codes = _limit_codes(codes, train_rows, holdout_rows)
    pictures_N = fitted_parts.train_N[train_rows]
    contents = BundleContents(
        autoencoder=trained.config,
        decoder={name: weight.numpy() for name, weight in trained.decoder_state.items()},
        encoder={name: weight.numpy() for name, weight in trained.encoder_state.items()},
        latents=fitted.distribution,
        classes=source.class_names,
        codes=kept_codes,
        source=_source_facts(source, parts),
        training=TrainingFacts(settings=settings, history=trained.history),
        fitting=FittingFacts(settings=sampler, seed=settings.seed, chosen=fitted.chosen),
        screening=screening,
        code_map=fit_code_map(kept_codes),
        thumbnails=make_thumbnails(image_rows(source.images_NHWC, pictures_N)) if keep_thumbnails else None,
        reconstructions=_reconstructions(trained, source, fitted_parts, codes) if keep_thumbnails else None,
    )
    error = _reconstruction_error(trained, source, fitted_parts, codes)
    counts = len(parts.train_N), len(parts.holdout_N)
    return TrainResult(save_bundle(out, contents), *counts, trained.history, fitted, error)


def _source_facts(source: Source, parts: Split) -> SourceFacts:
    return SourceFacts(
        name=source.name,
        fingerprint=source.fingerprint,
        images=len(parts.train_N),
        holdout=len(parts.holdout_N),
        reading=source.facts.reading,
    )


def _fit_screening(
    source: Source,
    parts: Split,
    trained: TrainedAutoencoder,
    settings: TrainSettings,
    judge: JudgeSettings | None,
    latents: LatentDistribution,
    on_stage: Callable[[str], None],
) -> ScreeningData:
    on_stage("training the judges" if judge is not None and len(source.class_names) > 1 else "preparing the copy check")
    train, holdout = (_maybe_labelled(examples_of(source, rows_N)) for rows_N in (parts.train_N, parts.holdout_N))
    trained_judge, copy_index = train_screening(
        train,
        holdout,
        judge,
        classes=len(source.class_names),
        seed=settings.seed,
        device=settings.device,
    )
    on_stage("measuring what the checks let pass")
    return make_screening(
        load_decoder(trained.config, trained.decoder_state, resolve_device(settings.device)),
        latents,
        judge,
        trained_judge,
        copy_index,
        config=trained.config,
    )


def _maybe_labelled(examples: Examples) -> LabelledImages | np.ndarray:
    if examples.labels_N is None:
        return examples.images_NHWC
    return LabelledImages(examples.images_NHWC, examples.labels_N)


def _reconstruction_error(trained: TrainedAutoencoder, source: Source, parts: Split, codes: Codes) -> float:
    """Mean squared error of some held-out images after encoder and decoder, for pixels in [0, 1]."""
    places = np.arange(min(_RECONSTRUCTED, len(parts.holdout_N)))
    images_RHWC = _decode_holdout(trained, codes, places)
    difference = images_RHWC.astype(np.float64) - source.images_NHWC[parts.holdout_N[places]]
    return float(np.mean((difference / 255.0) ** 2))


def _reconstructions(trained: TrainedAutoencoder, source: Source, parts: Split, codes: Codes) -> Reconstructions:
    """Some held-out images of every class beside their reconstructions."""
    places = choose_pairs(codes.holdout_labels_H, len(codes.holdout_HD))
    labels_P = None if codes.holdout_labels_H is None else codes.holdout_labels_H[places]
    real_PHWC = source.images_NHWC[parts.holdout_N[places]]
    return make_reconstructions(real_PHWC, _decode_holdout(trained, codes, places), labels_P)


def _decode_holdout(trained: TrainedAutoencoder, codes: Codes, places: np.ndarray) -> np.ndarray:
    """uint8 (P, H, W, C): the reconstructions of the held-out images ``places``."""
    decoder = load_decoder(trained.config, trained.decoder_state)
    most = limit_batch(trained.config, _ENCODED_AT_ONCE, _ENCODED_FEATURES)
    batch = images_at_once(trained.config.image_size, most)
    labels_H = codes.holdout_labels_H
    labels_P = None if labels_H is None or not takes_labels(trained.config) else labels_H[places]
    return decode(decoder, codes.holdout_HD[places], batch, labels_P)


def _encode_source(
    config: AutoencoderConfig,
    encoder: nn.Module,
    source: Source,
    parts: Split,
    on_encode: Callable[[int, int], None],
) -> Codes:
    shape, done, batch = code_shape(config), 0, limit_batch(config, _ENCODED_AT_ONCE, _ENCODED_FEATURES)
    encoded, total = list[np.ndarray](), len(parts.train_N) + len(parts.holdout_N)
    for rows in (parts.train_N, parts.holdout_N):
        encoded.append(np.empty((len(rows), config.latent_dim)))
        for begin in range(0, len(rows), batch):
            some = rows[begin : begin + batch]
            encoded[-1][begin : begin + len(some)] = encode(encoder, source.images_NHWC[some], batch)
            done += len(some)
            on_encode(done, total)
    codes_ND, holdout_HD = encoded
    if source.labels_N is None:
        return Codes(codes_ND, None, holdout_HD, None, (), shape)
    labels_N, holdout_labels_H = source.labels_N[parts.train_N], source.labels_N[parts.holdout_N]
    return Codes(codes_ND, labels_N, holdout_HD, holdout_labels_H, source.class_names, shape)


def _limit_parts(parts: Split, dims: int, seed: int) -> Split:
    """``parts``, or a random subset of them (in order) if all codes would take more than ``_FITTED_BYTES``."""
    count = len(parts.train_N) + len(parts.holdout_N)
    limit = _FITTED_BYTES // (8 * dims)
    if count <= limit:
        return parts
    train_N, holdout_N = (
        rows_N[np.sort(permutation(seed, stream=stream, size=len(rows_N))[: max(1, limit * len(rows_N) // count)])]
        for stream, rows_N in enumerate((parts.train_N, parts.holdout_N))
    )
    return Split(train_N, holdout_N)


def _kept_rows(codes: Codes, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The codes that a bundle stores, of training and held-out images: all of them, or a random subset (in order) for a
    very large source."""
    limit = MAX_CODE_BYTES // (4 * codes.dims)
    train_rows, holdout_rows = (
        np.sort(permutation(seed, stream=stream, size=count)[:limit])
        for stream, count in enumerate((len(codes.codes_ND), len(codes.holdout_HD)))
    )
    return train_rows, holdout_rows


def _limit_codes(codes: Codes, train_rows: np.ndarray, holdout_rows: np.ndarray) -> Codes:
    return Codes(
        codes.codes_ND[train_rows],
        None if codes.labels_N is None else codes.labels_N[train_rows],
        codes.holdout_HD[holdout_rows],
        None if codes.holdout_labels_H is None else codes.holdout_labels_H[holdout_rows],
        codes.class_names,
        codes.shape,
    )

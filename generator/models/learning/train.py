"""Trains a bundle from real images: split, train the autoencoder, fit the latent distribution to its codes, save."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from generator.errors import BundleError, SpecError
from generator.models.autoencoders.config import AutoencoderConfig, SpatialConfig, code_shape
from generator.models.autoencoders.devices import resolve_device
from generator.models.autoencoders.factory import load_decoder, load_encoder
from generator.models.autoencoders.inference import encode
from generator.models.autoencoders.posterior_collapse import collapse_notices
from generator.models.autoencoders.settings import EpochRecord, TrainSettings
from generator.models.autoencoders.training import Examples, Progress, TrainedAutoencoder, train_autoencoder
from generator.models.bundle import BundleContents, FittingFacts, SourceFacts, TrainingFacts, save_bundle
from generator.models.bundle.save import check_new_directory
from generator.models.features.classifier import Classifier, LabelledImages, train_classifier
from generator.models.features.config import FEATURE_BUDGET
from generator.models.latents import LatentDistribution
from generator.models.latents.codes import Codes
from generator.models.latents.config import MixtureSettings, SamplerSettings
from generator.models.latents.fitting.code_map import fit_code_map
from generator.models.latents.fitting.fit import Fit, fit
from generator.models.screening.config import JudgeSettings
from generator.models.screening.data import ScreeningData
from generator.models.screening.fit import make_screening, train_screening
from generator.sources import Source, Split, split
from generator.spec.seeding import permutation

DEFAULT_SAMPLER = MixtureSettings()
MAX_CODE_BYTES = 32 * 1024 * 1024  # of a bundle's stored codes


@dataclass(frozen=True)
class TrainResult:
    """The bundle's digest, the number of training and held-out images, the training history, and the fit."""

    digest: str
    trained_on: int
    held_out: int
    history: tuple[EpochRecord, ...]
    fit: Fit


def checkpoint_path(out: Path) -> Path:
    """The path of the checkpoint while the bundle ``out`` is trained."""
    return out.with_name(f"{out.name}.checkpoint")


def train_bundle(
    source: Source,
    config: AutoencoderConfig,
    settings: TrainSettings,
    out: Path,
    *,
    sampler: SamplerSettings = DEFAULT_SAMPLER,
    judge: JudgeSettings | None = None,
    on_step: Callable[[Progress], None] | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_fit: Callable[[int, int], None] = lambda *_: None,
) -> TrainResult:
    """Train on ``source``, fit, and write the bundle ``out``, which must not exist yet.

    ``judge``: settings of the label judge, for a source with two classes or more. ``on_fit`` is called when the fit of
    the latent distribution begins, with (0, 1), and after each epoch of it, with the epochs done and their number.

    A training that was interrupted resumes from ``checkpoint_path(out)``, which is deleted once the bundle is written.
    Only one training at a time may write ``out``.
    Raises ``BundleError`` for ``out``, ``SourceError``, ``SpecError``, ``SettingsError``, ``TrainingDiverged``.
    """
    check_new_directory(out)
    parts = split(len(source), source.labels_N, holdout=settings.holdout, seed=settings.seed)
    checkpoint = checkpoint_path(out)
    with _training_lock(out):
        check_new_directory(out)  # another training may have ended before the lock was taken
        trained = train_autoencoder(
            config,
            settings,
            _examples(source, parts.train_N),
            _examples(source, parts.holdout_N),
            classes=len(source.class_names),
            features=_train_feature_network(source, parts, config, settings),
            fingerprint=source.fingerprint,
            checkpoint=checkpoint,
            on_step=on_step,
            on_epoch=on_epoch,
        )
        on_fit(0, 1)
        result = _fit_and_save(source, parts, trained, settings, sampler, judge, out, on_fit)
        checkpoint.unlink(missing_ok=True)
    return result


@contextmanager
def _training_lock(out: Path) -> Iterator[None]:
    """Hold ``<out>.checkpoint.lock``; deletes it afterwards. Raises ``BundleError`` if another training holds it."""
    path = out.with_name(f"{checkpoint_path(out).name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except OSError as refused:
        raise BundleError("out", "a directory that can be written", f"{out} ({refused.strerror})") from refused
    try:
        _acquire_lock(descriptor, path, out)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing is not enough if a child process inherited the lock
    finally:
        os.close(descriptor)


def _acquire_lock(descriptor: int, path: Path, out: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_current = os.path.samestat(
            path.stat(), os.fstat(descriptor)
        )  # False if the previous holder has just deleted the file
    except (BlockingIOError, FileNotFoundError):
        is_current = False
    except OSError as refused:
        raise BundleError("out", "a directory with file locks", f"{out} ({refused.strerror})") from refused
    if not is_current:
        raise BundleError(
            "out", "a path that no other training is writing", f"{out}, locked by another training", "wait for it"
        )


def _examples(source: Source, rows_N: np.ndarray) -> Examples:
    return Examples(source.images_NHWC[rows_N], None if source.labels_N is None else source.labels_N[rows_N])


def _train_feature_network(
    source: Source, parts: Split, config: AutoencoderConfig, settings: TrainSettings
) -> Classifier | None:
    """The classifier whose feature maps ``feature_loss`` compares; deterministic, so that a resumed training agrees."""
    if settings.feature_loss == 0.0:
        return None
    if source.labels_N is None:
        raise SpecError("train.feature_loss", "a source with labels", "an unlabelled one", "train without it")
    images_NHWC, labels_N = source.images_NHWC[parts.train_N], source.labels_N[parts.train_N]
    classes = len(source.class_names)
    budget = FEATURE_BUDGET
    if isinstance(config, SpatialConfig):
        budget = budget.model_copy(update={"steps": config.feature_steps})
    return train_classifier(
        images_NHWC, labels_N, classes=classes, seed=settings.seed, budget=budget, device=settings.device
    )


def _fit_and_save(
    source: Source,
    parts: Split,
    trained: TrainedAutoencoder,
    settings: TrainSettings,
    sampler: SamplerSettings,
    judge: JudgeSettings | None,
    out: Path,
    on_fit: Callable[[int, int], None],
) -> TrainResult:
    encoder = load_encoder(trained.config, trained.encoder_state)
    codes = _encode_source(trained.config, encoder, source, parts)
    device = str(resolve_device(settings.device))
    fitted = fit(codes, sampler, seed=settings.seed, device=device, on_epoch=on_fit)
    fitted = replace(fitted, notices=(*collapse_notices(trained.config, codes.codes_ND), *fitted.notices))
    screening = _fit_screening(source, parts, trained, settings, judge, fitted.distribution)
    fitted = replace(fitted, notices=(*fitted.notices, *screening.pass_rates.notices(source.class_names)))
    kept_codes = _limit_codes(codes, settings.seed)
    contents = BundleContents(
        autoencoder=trained.config,
        decoder={name: weight.numpy() for name, weight in trained.decoder_state.items()},
        encoder={name: weight.numpy() for name, weight in trained.encoder_state.items()},
        latents=fitted.distribution,
        classes=source.class_names,
        codes=kept_codes,
        source=SourceFacts(
            name=source.name,
            fingerprint=source.fingerprint,
            images=len(parts.train_N),
            holdout=len(parts.holdout_N),
        ),
        training=TrainingFacts(settings=settings, history=trained.history),
        fitting=FittingFacts(settings=sampler, seed=settings.seed, chosen=fitted.chosen),
        screening=screening,
        code_map=fit_code_map(kept_codes),
    )
    return TrainResult(save_bundle(out, contents), len(parts.train_N), len(parts.holdout_N), trained.history, fitted)


def _fit_screening(
    source: Source,
    parts: Split,
    trained: TrainedAutoencoder,
    settings: TrainSettings,
    judge: JudgeSettings | None,
    latents: LatentDistribution,
) -> ScreeningData:
    examples, holdout_HHWC = _examples(source, parts.train_N), source.images_NHWC[parts.holdout_N]
    images_NHWC, labels_N = examples.images_NHWC, examples.labels_N
    trained_judge, copy_index = train_screening(
        images_NHWC if labels_N is None else LabelledImages(images_NHWC, labels_N),
        holdout_HHWC,
        judge,
        classes=len(source.class_names),
        seed=settings.seed,
        device=settings.device,
    )
    return make_screening(
        load_decoder(trained.config, trained.decoder_state), latents, judge, trained_judge, copy_index
    )


def _encode_source(config: AutoencoderConfig, encoder: nn.Module, source: Source, parts: Split) -> Codes:
    shape = code_shape(config)
    codes_ND, holdout_HD = (encode(encoder, source.images_NHWC[rows]) for rows in (parts.train_N, parts.holdout_N))
    if source.labels_N is None:
        return Codes(codes_ND, None, holdout_HD, None, (), shape)
    labels_N, holdout_labels_H = source.labels_N[parts.train_N], source.labels_N[parts.holdout_N]
    return Codes(codes_ND, labels_N, holdout_HD, holdout_labels_H, source.class_names, shape)


def _limit_codes(codes: Codes, seed: int) -> Codes:
    """The codes that a bundle stores: all of them, or a random subset (in order) for a very large source."""
    limit = MAX_CODE_BYTES // (4 * codes.dims)
    train_rows, holdout_rows = (
        np.sort(permutation(seed, stream=stream, size=count)[:limit])
        for stream, count in enumerate((len(codes.codes_ND), len(codes.holdout_HD)))
    )
    return Codes(
        codes.codes_ND[train_rows],
        None if codes.labels_N is None else codes.labels_N[train_rows],
        codes.holdout_HD[holdout_rows],
        None if codes.holdout_labels_H is None else codes.holdout_labels_H[holdout_rows],
        codes.class_names,
        codes.shape,
    )

"""Trains a bundle from real images: split, train the autoencoder, fit the latent distribution to its codes, save."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from generator.errors import BundleError, SpecError
from generator.models.autoencoders.config import AutoencoderConfig, SpatialConfig
from generator.models.autoencoders.decoder_tuning import check_tuning
from generator.models.autoencoders.replicas import ALONE, Replicas
from generator.models.autoencoders.settings import TrainSettings
from generator.models.autoencoders.training import train_autoencoder
from generator.models.bundle.save import check_new_directory
from generator.models.features.classifier import Classifier, train_classifier
from generator.models.features.config import FEATURE_BUDGET
from generator.models.latents.config import MixtureSettings, SamplerSettings
from generator.models.learning.callbacks import SILENT, TrainingCallbacks
from generator.models.learning.fitted_bundle import TrainResult, examples_of, fit_and_save
from generator.models.screening.config import JudgeSettings
from generator.sources import Source, Split, split
from generator.sources.pixels.storage import image_rows

DEFAULT_SAMPLER = MixtureSettings()


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
    replicas: Replicas = ALONE,
    callbacks: TrainingCallbacks = SILENT,
    keep_thumbnails: bool = False,
) -> TrainResult:
    """Train on ``source``, fit, and write the bundle ``out``, which must not exist yet.

    ``judge``: settings of the label judge, for a source with two classes or more. ``replicas``: this process is the
    first of several, and the others call ``help_to_train``.
    ``keep_thumbnails``: keep small pictures of the training images in the bundle.

    A training that was interrupted resumes from ``checkpoint_path(out)``, which is deleted once the bundle is written;
    fit and tuning then start anew, with the same result.
    Only one training at a time may write ``out``.
    Raises ``BundleError`` for ``out``, ``SourceError``, ``SpecError``, ``SettingsError``, ``TrainingDiverged``.
    """
    check_new_directory(out)
    check_tuning(config, settings, len(source.class_names))
    parts = split(len(source), source.labels_N, holdout=settings.holdout, seed=settings.seed)
    checkpoint = checkpoint_path(out)
    with training_lock(out):
        check_new_directory(out)  # another training may have ended before the lock was taken
        features = train_feature_network(source, parts, config, settings)
        trained = train_autoencoder(
            config,
            settings,
            examples_of(source, parts.train_N),
            examples_of(source, parts.holdout_N),
            classes=len(source.class_names),
            features=features,
            fingerprint=source.fingerprint,
            checkpoint=checkpoint,
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
        checkpoint.unlink(missing_ok=True)
    return result


def help_to_train(
    source: Source,
    config: AutoencoderConfig,
    settings: TrainSettings,
    replicas: Replicas,
    *,
    initial: Mapping[str, Tensor] | None = None,
) -> None:
    """Take part in the training of the autoencoder by the first of ``replicas``, which then part.

    The arguments are those of the first process. ``initial``: as in ``train_autoencoder``. Raises what it raises.
    """
    parts = split(len(source), source.labels_N, holdout=settings.holdout, seed=settings.seed)
    train_autoencoder(
        config,
        settings,
        examples_of(source, parts.train_N),
        examples_of(source, parts.holdout_N),
        classes=len(source.class_names),
        features=train_feature_network(source, parts, config, settings),
        initial=initial,
        replicas=replicas,
    )
    replicas.part()


@contextmanager
def training_lock(out: Path) -> Iterator[None]:
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


def train_feature_network(
    source: Source, parts: Split, config: AutoencoderConfig, settings: TrainSettings
) -> Classifier | None:
    """The classifier whose feature maps ``feature_loss`` compares; deterministic, so that a resumed training agrees."""
    if settings.feature_loss == 0.0:
        return None
    if source.labels_N is None:
        raise SpecError("train.feature_loss", "a source with labels", "an unlabelled one", "train without it")
    images_NHWC, labels_N = image_rows(source.images_NHWC, parts.train_N), source.labels_N[parts.train_N]
    classes = len(source.class_names)
    budget = FEATURE_BUDGET
    if isinstance(config, SpatialConfig):
        budget = budget.model_copy(update={"steps": config.feature_steps})
    return train_classifier(
        images_NHWC, labels_N, classes=classes, seed=settings.seed, budget=budget, device=settings.device
    )

"""From real images to a bundle: split, train the autoencoder, fit the latent distribution to its codes, save."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from generator.autoencoders.config import EpochRecord, TrainSettings, VaeConfig
from generator.autoencoders.inference import encode, load_encoder
from generator.autoencoders.training import Progress, Trained, train
from generator.bundle import BundleContents, SourceFacts, TrainingFacts, save_bundle
from generator.bundle.save import check_free
from generator.errors import BundleError
from generator.latents.fitting import Choice, fit_mixture
from generator.seeding import permutation
from generator.sources import Source, Split, split

MAX_REFERENCE_CODES = 20_000


@dataclass(frozen=True)
class Learned:
    """What ``learn`` made: the bundle's digest, images trained on and held out, history, clusters, warnings."""

    digest: str
    trained_on: int
    held_out: int
    history: tuple[EpochRecord, ...]
    choices: tuple[Choice, ...]
    notices: tuple[str, ...]


def checkpoint_of(out: Path) -> Path:
    """Where the training for the bundle ``out`` keeps its checkpoint while it runs."""
    return out.with_name(f"{out.name}.checkpoint")


def learn(
    source: Source,
    config: VaeConfig,
    settings: TrainSettings,
    out: Path,
    *,
    on_step: Callable[[Progress], None] | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_fit: Callable[[], None] = lambda: None,
) -> Learned:
    """Train on ``source``, fit, and write the bundle ``out``, which must not exist yet.

    A run that was killed is taken up again from ``checkpoint_of(out)``; that file goes when the bundle is there.
    Only one run at a time works towards ``out``.
    Raises ``BundleError`` for ``out``, ``SourceError``, ``SettingsError``, ``TrainingDiverged``.
    """
    check_free(out)
    parts = split(len(source), source.labels_N, holdout=settings.holdout, seed=settings.seed)
    checkpoint = checkpoint_of(out)
    with _alone(out):
        check_free(out)  # another run may have ended between the first look and the lock
        trained = train(
            config,
            settings,
            source.images_NHWC[parts.train_N],
            source.images_NHWC[parts.holdout_N],
            fingerprint=source.fingerprint,
            checkpoint=checkpoint,
            on_step=on_step,
            on_epoch=on_epoch,
        )
        on_fit()
        learned = _fit_and_save(source, parts, trained, settings, out)
        checkpoint.unlink(missing_ok=True)
    return learned


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold ``<out>.checkpoint.lock``, gone afterwards. Raises ``BundleError`` where another run holds it."""
    path = out.with_name(f"{checkpoint_of(out).name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except OSError as refused:
        raise BundleError("out", "a directory that can be written", f"{out} ({refused.strerror})") from refused
    try:
        _lock(descriptor, path, out)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child forked meanwhile shares the lock: closing is not enough
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path, out: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours = os.path.samestat(path.stat(), os.fstat(descriptor))  # not where its holder has just ended
    except (BlockingIOError, FileNotFoundError):
        ours = False
    except OSError as refused:
        raise BundleError("out", "a directory with file locks", f"{out} ({refused.strerror})") from refused
    if not ours:
        raise BundleError("out", "a path that no other training works on", f"{out}, which one does", "wait for it")


def _fit_and_save(source: Source, parts: Split, trained: Trained, settings: TrainSettings, out: Path) -> Learned:
    encoder = load_encoder(trained.config, trained.encoder_state)
    codes_ND, held_ND = (encode(encoder, source.images_NHWC[rows]) for rows in (parts.train_N, parts.holdout_N))
    labels_N, held_labels_N = (_labels(source, rows) for rows in (parts.train_N, parts.holdout_N))
    fit = fit_mixture(
        codes_ND,
        labels_N,
        held_ND,
        held_labels_N,
        class_names=source.class_names,
        seed=settings.seed,
        criterion=settings.clusters_by,
    )
    kept = _reference_rows(len(codes_ND), settings.seed)
    contents = BundleContents(
        autoencoder=trained.config,
        decoder={name: weight.numpy() for name, weight in trained.decoder_state.items()},
        encoder={name: weight.numpy() for name, weight in trained.encoder_state.items()},
        latents=fit.mixture,
        classes=source.class_names,
        codes_ND=codes_ND[kept],
        labels_N=None if labels_N is None else labels_N[kept],
        source=SourceFacts(
            name=source.name,
            fingerprint=source.fingerprint,
            images=len(parts.train_N),
            holdout=len(parts.holdout_N),
        ),
        training=TrainingFacts(settings=settings, history=trained.history),
    )
    notices = tuple(f"{warning.class_name or 'all images'}: {warning.message}" for warning in fit.warnings)
    return Learned(
        save_bundle(out, contents), len(parts.train_N), len(parts.holdout_N), trained.history, fit.choices, notices
    )


def _labels(source: Source, rows_N: np.ndarray) -> np.ndarray | None:
    return None if source.labels_N is None else source.labels_N[rows_N]


def _reference_rows(count: int, seed: int) -> np.ndarray:
    """Which codes the bundle keeps: all of a small source, else a random choice, ascending."""
    return np.sort(permutation(seed, stream=0, size=count)[:MAX_REFERENCE_CODES])

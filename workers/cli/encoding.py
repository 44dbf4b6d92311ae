"""Encodes images with an autoencoder that exists and saves a bundle, with progress; shared by train and import."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from workers.cli.progress import Bar, progress_bar

if TYPE_CHECKING:
    from torch import nn

    from generator.models.autoencoders.replicas import Replicas
    from generator.models.autoencoders.settings import TrainSettings
    from generator.models.autoencoders.training import Progress
    from generator.models.latents.config import SamplerSettings
    from generator.models.learning import ImportedNetwork, TrainingCallbacks, TrainResult
    from generator.models.screening.config import JudgeSettings
    from generator.sources import Source


def encode_images(
    network: ImportedNetwork,
    images: Source,
    sampler: SamplerSettings,
    settings: TrainSettings,
    judge: JudgeSettings | None,
    out: Path,
    *,
    finetune: bool,
    quiet: bool,
    keep_thumbnails: bool = False,
    replicas: Replicas | None = None,
    on_networks: Callable[[nn.Module, nn.Module], None] | None = None,
) -> TrainResult:
    """Encode, fine-tune if asked, fit and save, with progress on standard error unless ``quiet``."""
    from generator.models.autoencoders.replicas import ALONE
    from generator.models.learning import encode_source

    steps = settings.epochs * max(1, int(len(images) * (1 - settings.holdout)) // settings.batch)
    first = ("fine-tuning", steps, "steps") if finetune else ("encoding", len(images), "images")
    with progress_bar(first[0], first[1], quiet=quiet, unit=first[2]) as bar:
        return encode_source(
            network,
            images,
            out,
            sampler=sampler,
            settings=settings,
            finetune=finetune,
            judge=judge,
            replicas=replicas or ALONE,
            callbacks=training_progress(bar, len(images), sampler, settings, on_networks=on_networks, quiet=quiet),
            keep_thumbnails=keep_thumbnails,
        )


def training_progress(
    bar: Bar,
    images: int,
    sampler: SamplerSettings,
    settings: TrainSettings,
    *,
    on_networks: Callable[[nn.Module, nn.Module], None] | None,
    quiet: bool,
) -> TrainingCallbacks:
    """Callbacks that move the bar, begin its stages, and say that a stopped training continues unless ``quiet``."""
    from generator.models.learning import TrainingCallbacks

    return TrainingCallbacks(
        on_step=_step_progress(bar, quiet=quiet),
        on_networks=on_networks,
        on_encode=_stage_progress(bar, "encoding", images, "images"),
        on_fit=_fit_progress(bar, sampler),
        on_tune=_stage_progress(bar, "tuning the decoder", settings.tuning_steps, "steps"),
        on_stage=bar.stage,
    )


def _fit_progress(bar: Bar, settings: SamplerSettings) -> Callable[[int, int], None]:
    """A callback that begins the stage of a fit, and moves its bar by the epochs where their number is known."""
    from generator.models.latents.config import TransportSettings

    epochs = settings.epochs if isinstance(settings, TransportSettings) and settings.map is not None else None

    def on_fit(done: int, _: int) -> None:
        if done == 0:
            bar.stage("fitting the latent distribution", epochs, "epochs")
        bar(done)

    return on_fit


def _stage_progress(bar: Bar, label: str, total: int, unit: str) -> Callable[[int, int], None]:
    """A callback that begins a stage, and moves its bar."""
    begun = False

    def advance(done: int, _: int) -> None:
        nonlocal begun
        if not begun:
            bar.stage(label, total, unit)
        begun = True
        bar(done)

    return advance


def _step_progress(bar: Bar, *, quiet: bool) -> Callable[[Progress], None]:
    """A callback that moves the bar. A first step after epoch 1 means that a stopped training continues."""
    started = False

    def on_step(at: Progress) -> None:
        nonlocal started
        if not started and at.epoch > 1 and not quiet:
            click.echo(f"continuing after epoch {at.epoch - 1}, from the checkpoint of a stopped training", err=True)
        started = True
        bar((at.epoch - 1) * at.steps + at.step)

    return on_step

"""Encodes images with an autoencoder that exists and saves a bundle, with progress; shared by train and import."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from workers.cli.output import progress_bar, progress_lines

if TYPE_CHECKING:
    from generator.models.autoencoders.settings import TrainSettings
    from generator.models.autoencoders.training import Progress
    from generator.models.latents.config import SamplerSettings
    from generator.models.learning import ImportedNetwork, TrainResult
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
) -> TrainResult:
    """Encode, fine-tune if asked, fit and save, with progress on standard error unless ``quiet``."""
    from generator.models.learning import encode_source

    steps = settings.epochs * max(1, int(len(images) * (1 - settings.holdout)) // settings.batch)
    with (
        progress_bar("encoding", len(images), quiet=quiet) as encoded,
        progress_bar("fine-tuning", steps, quiet=quiet or not finetune, unit="steps") as trained,
    ):
        return encode_source(
            network,
            images,
            out,
            sampler=sampler,
            settings=settings,
            finetune=finetune,
            judge=judge,
            on_step=progress_callback(trained, quiet=quiet),
            on_encode=lambda done, _: encoded(done),
            on_fit=fit_progress(sampler, quiet=quiet),
            keep_thumbnails=keep_thumbnails,
        )


def fit_progress(settings: SamplerSettings, *, quiet: bool) -> Callable[[int, int], None]:
    """A callback that writes the epochs of a fit, of its number where that is known."""
    from generator.models.latents.config import TransportSettings

    epochs = settings.epochs if isinstance(settings, TransportSettings) and settings.map is not None else None
    return _lines_from_first_call("fitting the latent distribution", epochs, unit="epochs", quiet=quiet)


def tuning_progress(settings: TrainSettings, *, quiet: bool) -> Callable[[int, int], None]:
    """A callback that writes the steps that train the decoder on sampled codes."""
    return _lines_from_first_call("tuning the decoder", settings.tuning_steps, unit="steps", quiet=quiet)


def _lines_from_first_call(label: str, total: int | None, *, unit: str, quiet: bool) -> Callable[[int, int], None]:
    """``progress_lines`` whose clock starts with the stage, not with the command."""
    lines: Callable[[int], None] | None = None

    def advance(done: int, _: int) -> None:
        nonlocal lines
        lines = lines or progress_lines(label, total, unit=unit, quiet=quiet)
        lines(done)

    return advance


def progress_callback(bar: Callable[[int], None], *, quiet: bool) -> Callable[[Progress], None]:
    """A callback that moves the bar. A first step after epoch 1 means that a stopped training continues."""
    started = False

    def on_step(at: Progress) -> None:
        nonlocal started
        if not started and at.epoch > 1 and not quiet:
            click.echo(f"continuing after epoch {at.epoch - 1}, from the checkpoint of a stopped training", err=True)
        started = True
        bar((at.epoch - 1) * at.steps + at.step)

    return on_step

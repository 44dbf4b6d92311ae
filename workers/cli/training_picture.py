"""The picture beside a bundle in training: samples, drawn anew now and then, and those of the bundle at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, final

import click

if TYPE_CHECKING:
    from torch import nn

    from generator.sources import Source

PICTURE_SECONDS, _DRAWING_SHARE = 30.0, 0.05  # between two pictures at least; of the time for drawing at most


def picture_path(out: Path) -> Path:
    """The path of the picture of the bundle ``out``."""
    return out.with_name(f"{out.name}.samples.jpg")


@final
class TrainingPicture:
    """Replaces the picture after an epoch, if the last one is old enough. A picture that cannot be written is told of
    once, and the training goes on."""

    def __init__(self, out: Path, images: Source, *, quiet: bool, clock: Callable[[], float] = time.monotonic) -> None:
        from generator.curation.quality.early_samples import EarlySamples

        self.path = picture_path(out)
        self._out, self._samples, self._quiet = out, EarlySamples(images), quiet
        self._clock, self._next_at = clock, 0.0
        self._is_told, self._is_refused = False, False

    def after_epoch(self, encoder: nn.Module, decoder: nn.Module) -> None:
        """Draw samples of the networks as they are."""
        if (begun := self._clock()) >= self._next_at:
            self._write(self._samples.sheet(encoder, decoder))
            taken = self._clock() - begun
            self._next_at = begun + max(PICTURE_SECONDS, taken / _DRAWING_SHARE)

    def of_bundle(self) -> dict[str, str]:
        """Draw samples of the bundle that was written; returns the path as a fact to show, if there is a picture."""
        from generator.curation.quality.sample_sheets import samples_sheet
        from generator.errors import LatentmillError
        from generator.models.bundle import load_bundle
        from generator.store import open_store

        try:
            self._write(samples_sheet(load_bundle(open_store(str(self._out)))))
        except LatentmillError as failed:  # the bundle is written: a picture that fails is not its failure
            click.echo(f"notice: no picture of the bundle's samples ({failed})", err=True)
            return {}
        return {} if self._is_refused else {"samples": str(self.path)}

    def _write(self, sheet: bytes) -> None:
        temporary = self.path.with_name(f"{self.path.name}.new")
        try:
            temporary.write_bytes(sheet)
            temporary.replace(self.path)
        except OSError as refused:
            if not self._is_refused:
                click.echo(f"notice: no picture of samples ({refused})", err=True)
            self._is_refused = True
            temporary.unlink(missing_ok=True)
            return
        if not self._is_told and not self._quiet:
            click.echo(f"notice: samples are drawn now and then: {self.path}", err=True)
        self._is_told, self._is_refused = True, False

"""Opens the decoder of a build; the build's environment fixes its device kind and execution (eager or compiled)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from generator.models.autoencoders.devices import resolve_device
from generator.models.bundle import Bundle
from generator.production.commit import BuildLocation, current_epoch
from generator.production.decoding import ResidentDecoder
from generator.production.decoding.compilation import CompileSetting, default_cache_directory, resolve_execution
from generator.spec.recipe import Execution, Recipe

_SMALL_BUILD = 20_000  # images; smaller builds are decoded eagerly without measuring, as compiling takes longer


@dataclass(frozen=True)
class CompileOptions:
    """Whether decoders are compiled, and the cache directory for compiled decoders on this host."""

    setting: CompileSetting = "auto"
    cache: Path | None = None

    @property
    def cache_directory(self) -> Path:
        return self.cache or default_cache_directory()


def fixed_execution(location: BuildLocation) -> Execution | None:
    """The execution that the newest epoch of the build has fixed; ``None`` if it has not fixed one yet."""
    environment = current_epoch(location.store).environment
    return None if environment is None else environment.execution


def choose_execution(
    location: BuildLocation, eager: Callable[[], ResidentDecoder], device: str, compiling: CompileOptions
) -> Execution:
    """How this process decodes the build. If the build has not fixed it, the decoder from ``eager`` may be used to
    estimate the time that decoding takes. Raises ``SettingsError``."""
    fixed, seconds = fixed_execution(location), 0.0
    if fixed is None and compiling.setting == "auto" and location.recipe.total >= _SMALL_BUILD:
        seconds = estimate_decoding_seconds(location.recipe, eager())
    return resolve_execution(compiling.setting, fixed, str(resolve_device(device)), seconds)


def open_decoder(location: BuildLocation, bundle: Bundle, device: str, compiling: CompileOptions) -> ResidentDecoder:
    """The decoder for a build. Raises ``BundleError``, ``SettingsError``, ``DeviceExhausted``."""
    recipe, opened = location.recipe, list[ResidentDecoder]()

    def eager() -> ResidentDecoder:
        if not opened:
            opened.append(ResidentDecoder(bundle, batch=recipe.batch, dtype=recipe.dtype, device=device))
        return opened[0]

    if choose_execution(location, eager, device, compiling) == "eager":
        return eager()
    return open_compiled_decoder(recipe, bundle, device, compiling)


def open_compiled_decoder(recipe: Recipe, bundle: Bundle, device: str, compiling: CompileOptions) -> ResidentDecoder:
    """A compiled decoder for ``recipe``; from the cache, if it was compiled on this host before."""
    return ResidentDecoder(
        bundle,
        batch=recipe.batch,
        dtype=recipe.dtype,
        device=device,
        execution="compiled",
        cache=compiling.cache_directory,
    )


def estimate_decoding_seconds(recipe: Recipe, decoder: ResidentDecoder) -> float:
    """Estimated decoding seconds of ``recipe`` in one process, extrapolated from one batch."""
    with decoder.lanes() as (count, _):
        clock = time.process_time()
        decoder.decode(np.zeros((recipe.batch, decoder.dims), dtype=np.float32))
        return (time.process_time() - clock) * recipe.total / recipe.batch / count

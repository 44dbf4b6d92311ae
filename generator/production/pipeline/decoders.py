"""The decoder of one build, as the build wants it: compiled or not is fixed by its environment, like the device."""

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

_SMALL_BUILD = 20_000  # images: nothing is measured for a build that is over sooner than a decoder is compiled


@dataclass(frozen=True)
class CompileOptions:
    """Whether decoders are compiled, and the directory of this host's where compiled ones are kept."""

    setting: CompileSetting = "auto"
    cache: Path | None = None

    @property
    def cache_directory(self) -> Path:
        return self.cache or default_cache_directory()


def fixed_execution(location: BuildLocation) -> Execution | None:
    """How the newest epoch of the build decodes; ``None`` while that is open."""
    environment = current_epoch(location.store).environment
    return None if environment is None else environment.execution


def choose_execution(
    location: BuildLocation, eager: Callable[[], ResidentDecoder], device: str, compiling: CompileOptions
) -> Execution:
    """How this process decodes the build; where nothing is fixed, ``eager`` gives a decoder that tells how much there
    is to do. Raises ``SettingsError``."""
    fixed, seconds = fixed_execution(location), 0.0
    if fixed is None and compiling.setting == "auto" and location.recipe.total >= _SMALL_BUILD:
        seconds = estimate_decoding_seconds(location.recipe, eager())
    return resolve_execution(compiling.setting, fixed, str(resolve_device(device)), seconds)


def open_decoder(location: BuildLocation, bundle: Bundle, device: str, compiling: CompileOptions) -> ResidentDecoder:
    """The decoder for a build. Raises ``BundleError``, ``SettingsError``, ``DeviceExhausted``."""
    recipe, made = location.recipe, list[ResidentDecoder]()

    def eager() -> ResidentDecoder:
        if not made:
            made.append(ResidentDecoder(bundle, batch=recipe.batch, dtype=recipe.dtype, device=device))
        return made[0]

    if choose_execution(location, eager, device, compiling) == "eager":
        return eager()
    return open_compiled_decoder(recipe, bundle, device, compiling)


def open_compiled_decoder(recipe: Recipe, bundle: Bundle, device: str, compiling: CompileOptions) -> ResidentDecoder:
    """A compiled decoder for ``recipe``, from the cache where it was compiled on this host before."""
    return ResidentDecoder(
        bundle,
        batch=recipe.batch,
        dtype=recipe.dtype,
        device=device,
        execution="compiled",
        cache=compiling.cache_directory,
    )


def estimate_decoding_seconds(recipe: Recipe, decoder: ResidentDecoder) -> float:
    """How long one process would decode for ``recipe``, by one batch."""
    with decoder.lanes() as (count, _):
        clock = time.process_time()
        decoder.decode(np.zeros((recipe.batch, decoder.dims), dtype=np.float32))
        return (time.process_time() - clock) * recipe.total / recipe.batch / count

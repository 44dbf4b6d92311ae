"""The decoder cache of one worker process: decoders are loaded on first use and kept within a limit of bytes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from generator.errors import DeviceExhausted
from generator.models.bundle import Bundle, BundleCache
from generator.production.commit import BuildLocation
from generator.production.decoding import ResidentDecoder
from generator.production.pipeline.decoders import CompileOptions, choose_execution, open_compiled_decoder
from generator.production.pipeline.shard_maker import ShardMaker, open_shard_maker
from generator.spec.recipe import Execution, Recipe
from generator.store.base import Store

Key = tuple[str, int, str, Execution]  # bundle digest, batch, dtype, execution
_MAX_BUILDS = 1000  # builds whose execution is cached


@dataclass
class DecoderCache:
    """The resident decoders of this process. The least recently used one is evicted first, the last one never."""

    bundle_cache: BundleCache
    roots: tuple[Store, ...]
    device: str
    max_bytes: int
    compiling: CompileOptions = field(default_factory=lambda: CompileOptions("never"))
    _decoders: OrderedDict[Key, tuple[Bundle, ResidentDecoder]] = field(default_factory=OrderedDict)
    _executions: OrderedDict[str, Execution] = field(default_factory=OrderedDict)

    def maker(self, location: BuildLocation) -> ShardMaker:
        """A shard maker for the build at ``location``.

        Raises ``BundleError``, ``SpecError``, ``SettingsError``, ``DeviceExhausted``.
        """
        bundle, decoder = self._resident(location.recipe, self._execution(location))
        return open_shard_maker(location, bundle, decoder)

    def eager_maker(self, location: BuildLocation) -> ShardMaker:
        """A shard maker that is not compiled, for a few images at once. Reads nothing of the build. Raises likewise."""
        bundle, decoder = self._resident(location.recipe, "eager")
        return open_shard_maker(location, bundle, decoder)

    def bundle(self, recipe: Recipe) -> Bundle:
        """The verified bundle of a recipe."""
        loaded = (bundle for (digest, *_), (bundle, _) in self._decoders.items() if digest == recipe.bundle)
        return next(loaded, None) or self.bundle_cache.load(recipe.bundle, self.roots)

    def forget_execution(self, location: BuildLocation) -> None:
        """Drop the cached execution (eager or compiled) of a build, whose environment differs from what we assumed."""
        self._executions.pop(location.url, None)

    def clear(self) -> None:
        """Evict all decoders, to free the memory of the device."""
        self._decoders.clear()

    def _execution(self, location: BuildLocation) -> Execution:
        if location.url not in self._executions:
            chosen = choose_execution(
                location, lambda: self._resident(location.recipe, "eager")[1], self.device, self.compiling
            )
            self._executions[location.url] = chosen
        self._executions.move_to_end(location.url)
        while len(self._executions) > _MAX_BUILDS:
            self._executions.popitem(last=False)
        return self._executions[location.url]

    def _resident(self, recipe: Recipe, execution: Execution) -> tuple[Bundle, ResidentDecoder]:
        key = (recipe.bundle, recipe.batch, recipe.dtype, execution)
        if key not in self._decoders:
            bundle = self.bundle(recipe)
            self._decoders[key] = (bundle, self._load(bundle, recipe, execution))
        self._decoders.move_to_end(key)
        self._evict()
        return self._decoders[key]

    def _load(self, bundle: Bundle, recipe: Recipe, execution: Execution) -> ResidentDecoder:
        """Load the decoder onto the device; if its memory runs out, evict all other decoders and retry once."""

        def load() -> ResidentDecoder:
            if execution == "compiled":
                return open_compiled_decoder(recipe, bundle, self.device, self.compiling)
            return ResidentDecoder(bundle, batch=recipe.batch, dtype=recipe.dtype, device=self.device)

        try:
            return load()
        except DeviceExhausted:
            if not self._decoders:
                raise
            self.clear()
        return load()

    def _evict(self) -> None:
        while len(self._decoders) > 1 and self._bytes() > self.max_bytes:
            self._decoders.popitem(last=False)

    def _bytes(self) -> int:
        decoders: int = sum(decoder.total_bytes for _, decoder in self._decoders.values())
        screening = {bundle.digest: bundle.screening.nbytes for bundle, _ in self._decoders.values()}
        return decoders + sum(screening.values())

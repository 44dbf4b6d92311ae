"""Decoders held by one worker process: loaded when first needed, kept while they fit a number of bytes."""

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

Key = tuple[str, int, str, Execution]  # bundle digest, batch, dtype
_MAX_BUILDS = 1000  # whose execution is remembered


@dataclass
class DecoderCache:
    """The warm decoders of this process; the least recently used one is let go first, the newest always stays."""

    bundle_cache: BundleCache
    roots: tuple[Store, ...]
    device: str
    max_bytes: int
    compiling: CompileOptions = field(default_factory=lambda: CompileOptions("never"))
    _decoders: OrderedDict[Key, tuple[Bundle, ResidentDecoder]] = field(default_factory=OrderedDict)
    _executions: OrderedDict[str, Execution] = field(default_factory=OrderedDict)

    def maker(self, location: BuildLocation) -> ShardMaker:
        """A maker for the recipe of ``location``. Raises ``BundleError``, ``SpecError``, ``SettingsError``,
        ``DeviceExhausted``."""
        bundle, decoder = self._resident(location.recipe, self._execution(location))
        return open_shard_maker(location, bundle, decoder)

    def bundle(self, recipe: Recipe) -> Bundle:
        """The bundle of a recipe, verified."""
        held = (bundle for (digest, *_), (bundle, _) in self._decoders.items() if digest == recipe.bundle)
        return next(held, None) or self.bundle_cache.load(recipe.bundle, self.roots)

    def forget_execution(self, location: BuildLocation) -> None:
        """Look again how the build decodes: its environment is not what it seemed."""
        self._executions.pop(location.url, None)

    def clear(self) -> None:
        """Nothing is resident any more: the device's memory is free for whatever comes next."""
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
        """The decoder on the device; when it does not fit beside the others, they go, and it is tried once more."""

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
        guards = {bundle.digest: bundle.screening.nbytes for bundle, _ in self._decoders.values()}
        return decoders + sum(guards.values())

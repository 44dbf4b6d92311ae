"""Decoders held by one worker process: loaded when first needed, kept while they fit a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from generator.errors import DeviceExhausted
from generator.models.bundle import Bundle, BundleCache
from generator.production.commit import BuildPlace
from generator.production.decoding import ResidentDecoder
from generator.production.pipeline.decoders import Compiling, chosen_execution, compiled_decoder
from generator.production.pipeline.shard_maker import Maker, open_maker
from generator.spec.recipe import Execution, Recipe
from generator.store.base import Store

Key = tuple[str, int, str, Execution]  # bundle digest, batch, dtype
_MOST_BUILDS = 1000  # whose execution is remembered


@dataclass
class Residents:
    """The warm decoders of this process; the least recently used one is let go first, the newest always stays."""

    cache: BundleCache
    roots: tuple[Store, ...]
    device: str
    max_bytes: int
    compiling: Compiling = field(default_factory=lambda: Compiling("never"))
    _held: OrderedDict[Key, tuple[Bundle, ResidentDecoder]] = field(default_factory=OrderedDict)
    _executions: OrderedDict[str, Execution] = field(default_factory=OrderedDict)

    def maker(self, place: BuildPlace) -> Maker:
        """A maker for the recipe of ``place``. Raises ``BundleError``, ``SpecError``, ``SettingsError``,
        ``DeviceExhausted``."""
        bundle, decoder = self._resident(place.recipe, self._execution(place))
        return open_maker(place, bundle, decoder)

    def bundle(self, recipe: Recipe) -> Bundle:
        """The bundle of a recipe, verified."""
        held = (bundle for (digest, *_), (bundle, _) in self._held.items() if digest == recipe.bundle)
        return next(held, None) or self.cache.load(recipe.bundle, self.roots)

    def forget(self, place: BuildPlace) -> None:
        """Look again how the build decodes: its environment is not what it seemed."""
        self._executions.pop(place.url, None)

    def let_go_of_all(self) -> None:
        """Nothing is resident any more: the device's memory is free for whatever comes next."""
        self._held.clear()

    def _execution(self, place: BuildPlace) -> Execution:
        if place.url not in self._executions:
            chosen = chosen_execution(
                place, lambda: self._resident(place.recipe, "eager")[1], self.device, self.compiling
            )
            self._executions[place.url] = chosen
        self._executions.move_to_end(place.url)
        while len(self._executions) > _MOST_BUILDS:
            self._executions.popitem(last=False)
        return self._executions[place.url]

    def _resident(self, recipe: Recipe, execution: Execution) -> tuple[Bundle, ResidentDecoder]:
        key = (recipe.bundle, recipe.batch, recipe.dtype, execution)
        if key not in self._held:
            bundle = self.bundle(recipe)
            self._held[key] = (bundle, self._loaded(bundle, recipe, execution))
        self._held.move_to_end(key)
        self._let_go()
        return self._held[key]

    def _loaded(self, bundle: Bundle, recipe: Recipe, execution: Execution) -> ResidentDecoder:
        """The decoder on the device; when it does not fit beside the others, they go, and it is tried once more."""

        def load() -> ResidentDecoder:
            if execution == "compiled":
                return compiled_decoder(recipe, bundle, self.device, self.compiling)
            return ResidentDecoder(bundle, batch=recipe.batch, dtype=recipe.dtype, device=self.device)

        try:
            return load()
        except DeviceExhausted:
            if not self._held:
                raise
            self.let_go_of_all()
        return load()

    def _let_go(self) -> None:
        while len(self._held) > 1 and self._bytes() > self.max_bytes:
            self._held.popitem(last=False)

    def _bytes(self) -> int:
        decoders: int = sum(decoder.bytes for _, decoder in self._held.values())
        guards = {bundle.digest: bundle.guards.bytes for bundle, _ in self._held.values()}
        return decoders + sum(guards.values())

"""Decoders held by one worker process: loaded when first needed, kept while they fit a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from generator.bundle import Bundle, BundleCache
from generator.decoding import ResidentDecoder
from generator.errors import DeviceExhausted
from generator.making import Maker, open_maker
from generator.publish import BuildPlace
from generator.spec import Recipe
from generator.store.base import Store

Key = tuple[str, int, str]  # bundle digest, batch, dtype


@dataclass
class Residents:
    """The warm decoders of this process; the least recently used one is let go first, the newest always stays."""

    cache: BundleCache
    roots: tuple[Store, ...]
    device: str
    max_bytes: int
    _held: OrderedDict[Key, tuple[Bundle, ResidentDecoder]] = field(default_factory=OrderedDict)

    def maker(self, place: BuildPlace) -> Maker:
        """A maker for the recipe of ``place``. Raises ``BundleError``, ``SpecError``, ``DeviceExhausted``."""
        bundle, decoder = self._resident(place.recipe)
        return open_maker(place, bundle, decoder)

    def bundle(self, recipe: Recipe) -> Bundle:
        """The bundle of a recipe, verified."""
        return self._resident(recipe)[0]

    def let_go_of_all(self) -> None:
        """Nothing is resident any more: the device's memory is free for whatever comes next."""
        self._held.clear()

    def _resident(self, recipe: Recipe) -> tuple[Bundle, ResidentDecoder]:
        key = (recipe.bundle, recipe.batch, recipe.dtype)
        if key not in self._held:
            bundle = self.cache.load(recipe.bundle, self.roots)
            self._held[key] = (bundle, self._loaded(bundle, recipe))
        self._held.move_to_end(key)
        self._let_go()
        return self._held[key]

    def _loaded(self, bundle: Bundle, recipe: Recipe) -> ResidentDecoder:
        """The decoder on the device; when it does not fit beside the others, they go, and it is tried once more."""
        try:
            return ResidentDecoder(bundle, batch=recipe.batch, dtype=recipe.dtype, device=self.device)
        except DeviceExhausted:
            if not self._held:
                raise
            self.let_go_of_all()
        return ResidentDecoder(bundle, batch=recipe.batch, dtype=recipe.dtype, device=self.device)

    def _let_go(self) -> None:
        while len(self._held) > 1 and self._bytes() > self.max_bytes:
            self._held.popitem(last=False)

    def _bytes(self) -> int:
        return sum(decoder.bytes + bundle.guards.bytes for bundle, decoder in self._held.values())

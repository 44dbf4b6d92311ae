"""Images of the shards that a build has so far, before its commit."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import final

from generator.datasets.exploration.images import read_first_images
from generator.errors import LatentmillError
from generator.production.commit import BuildLocation, read_build_location, read_receipt
from generator.store.base import Store

_HELD_BYTES = 32 * 2**20  # of images
_HELD_BUILDS = 64  # whose recipes are held
_AT_ONCE = 2  # shards that are looked into at the same time

Images = dict[int, bytes]


@final
class ShardPictureShelf:
    """The first images of the shards that were asked for lately; a finished shard never changes. Safe to use from
    several threads."""

    def __init__(self) -> None:
        self._lock, self._reading = threading.Lock(), threading.BoundedSemaphore(_AT_ONCE)
        self._held: OrderedDict[tuple[str, int], Images] = OrderedDict()
        self._locations: OrderedDict[str, BuildLocation] = OrderedDict()

    def find(self, build: Store, name: str, shard: int, count: int) -> Images | None:
        """The image files of the first samples of a shard of the dataset ``name``, by index; ``None`` if they cannot be
        read, or other shards are just being looked into."""
        key = (build.url, shard)
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        if not self._reading.acquire(blocking=False):
            return None
        try:
            location = self._location(build, name)
            found = read_first_images(build, read_receipt(location, shard), count)
        except LatentmillError:
            return None
        finally:
            self._reading.release()
        self._hold(key, found)
        return found

    def _location(self, build: Store, name: str) -> BuildLocation:
        with self._lock:
            if build.url in self._locations:
                self._locations.move_to_end(build.url)
                return self._locations[build.url]
        found = read_build_location(build, name)
        with self._lock:
            self._locations[build.url] = found
            while len(self._locations) > _HELD_BUILDS:
                self._locations.popitem(last=False)
        return found

    def _hold(self, key: tuple[str, int], images: Images) -> None:
        with self._lock:
            self._held[key] = images
            while len(self._held) > 1 and sum(map(_size, self._held.values())) > _HELD_BYTES:
                self._held.popitem(last=False)


def _size(images: Images) -> int:
    return sum(map(len, images.values()))

"""The build cache of one process: locations and environments of builds, so that the store is not read for every shard.

A recipe never changes. The environment of a build changes only when a user opens a new epoch, and it is harmless if a
worker notices that a little later (``generator.production.commit.epochs``).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from generator.production.commit import BuildLocation, fix_environment, read_build_location
from generator.production.provenance.environment import Environment
from generator.store import S3Settings, open_store

_TTL_SECONDS = 30.0
_MAX_BUILDS = 32


@dataclass
class _CachedBuild:
    location: BuildLocation
    expires: float
    environment: Environment | None = None


@dataclass
class BuildCache:
    """Build locations by URL; each is cached for ``_TTL_SECONDS``."""

    s3: S3Settings
    _cache: OrderedDict[str, _CachedBuild] = field(default_factory=OrderedDict)

    @contextmanager
    def use(self, url: str, name: str) -> Iterator[BuildLocation]:
        """The location of the build at ``url``; an error inside the block removes it from the cache.

        Raises ``DatasetError`` if there is no build.
        """
        cached = self._cache.get(url)
        if cached is None or cached.expires < time.monotonic():
            cached = _CachedBuild(read_build_location(open_store(url, self.s3), name), time.monotonic() + _TTL_SECONDS)
            self._cache[url] = cached
        self._cache.move_to_end(url)
        while len(self._cache) > _MAX_BUILDS:
            self._cache.popitem(last=False)
        try:
            yield cached.location
        except BaseException:
            self._cache.pop(url, None)
            raise

    def ensure_environment(self, location: BuildLocation, ours: Environment) -> None:
        """Fix the build's environment in the store, or check that it equals ``ours``; cached.

        Raises ``EnvironmentMismatch``.
        """
        cached = self._cache.get(location.url)
        if cached is None or cached.environment != ours:
            fix_environment(location, ours)
        if cached is not None:
            cached.environment = ours

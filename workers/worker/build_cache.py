"""The builds that one process works on: what of them need not be asked of the store for every shard.

A recipe never changes, and the environment of a build only when a person opens a new epoch; a worker that learns of
that a little later does no harm (``generator.production.commit.epochs``).
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
    """Places by URL, each remembered for half a minute."""

    s3: S3Settings
    _cache: OrderedDict[str, _CachedBuild] = field(default_factory=OrderedDict)

    @contextmanager
    def use(self, url: str, name: str) -> Iterator[BuildLocation]:
        """The build at ``url``; it is asked for anew after an error. Raises ``DatasetError`` where there is none."""
        known = self._cache.get(url)
        if known is None or known.expires < time.monotonic():
            known = _CachedBuild(read_build_location(open_store(url, self.s3), name), time.monotonic() + _TTL_SECONDS)
            self._cache[url] = known
        self._cache.move_to_end(url)
        while len(self._cache) > _MAX_BUILDS:
            self._cache.popitem(last=False)
        try:
            yield known.location
        except BaseException:
            self._cache.pop(url, None)
            raise

    def ensure_environment(self, location: BuildLocation, ours: Environment) -> None:
        """As ``fix_environment``. Raises ``EnvironmentMismatch``."""
        known = self._cache.get(location.url)
        if known is None or known.environment != ours:
            fix_environment(location, ours)
        if known is not None:
            known.environment = ours

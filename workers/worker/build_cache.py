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

from generator.production.commit import BuildPlace, fix_environment, found_place
from generator.production.provenance.environment import Environment
from generator.store import S3Settings, open_store

_SECONDS = 30.0
_MOST = 32


@dataclass
class _Known:
    place: BuildPlace
    until: float
    agreed: Environment | None = None


@dataclass
class Places:
    """Places by URL, each remembered for half a minute."""

    s3: S3Settings
    _known: OrderedDict[str, _Known] = field(default_factory=OrderedDict)

    @contextmanager
    def at(self, url: str, name: str) -> Iterator[BuildPlace]:
        """The build at ``url``; it is asked for anew after an error. Raises ``DatasetError`` where there is none."""
        known = self._known.get(url)
        if known is None or known.until < time.monotonic():
            known = _Known(found_place(open_store(url, self.s3), name), time.monotonic() + _SECONDS)
            self._known[url] = known
        self._known.move_to_end(url)
        while len(self._known) > _MOST:
            self._known.popitem(last=False)
        try:
            yield known.place
        except BaseException:
            self._known.pop(url, None)
            raise

    def agree(self, place: BuildPlace, ours: Environment) -> None:
        """As ``fix_environment``. Raises ``EnvironmentMismatch``."""
        known = self._known.get(place.url)
        if known is None or known.agreed != ours:
            fix_environment(place, ours)
        if known is not None:
            known.agreed = ours

"""The intents of builds, for orphan sweeps; read anew for every build, as a build may just have been resumed."""

from __future__ import annotations

from generator.errors import SpecError
from generator.store.base import Store
from workers.jobs.markers import list_markers, read_marker

_WANTED_INTENTS = ("open", "paused")


class BuildIntents:
    """The intents of builds in a store root, by build id; ``unreadable`` lists the jobs whose markers are damaged.

    If several jobs have the same recipe, at several destinations, an open or paused one takes precedence. While any
    marker is unreadable, it may belong to any build, so every intent is ``unknown``. The same holds for an empty root
    (``root_is_empty``), which is most likely the wrong one.
    """

    def __init__(self, root: Store) -> None:
        self._root = root
        self._cache: dict[str, tuple[str, str, str]] = {}  # by job: etag, build id, intent
        self.unreadable: tuple[str, ...] = ()
        self.root_is_empty = not any(True for folder in ("bundles/", "open/") for _ in root.list(folder))

    def __call__(self, build_id: str) -> str | None:
        """The present intent of a build; ``None`` if it has no marker. Raises ``StoreError``."""
        self._refresh()
        if self.unreadable or self.root_is_empty:
            return "unknown"
        intents = {intent for _, build, intent in self._cache.values() if build == build_id}
        return next((intent for intent in (*_WANTED_INTENTS, *sorted(intents)) if intent in intents), None)

    def _refresh(self) -> None:
        entries, unreadable = dict[str, tuple[str, str, str]](), list[str]()
        for job, info in list_markers(self._root):
            cached = self._cache.get(job)
            if cached is not None and cached[0] == info.etag:
                entries[job] = cached
                continue
            try:
                marker = read_marker(self._root, job)
            except SpecError:
                unreadable.append(job)
                continue
            if marker is not None:
                entries[job] = (info.etag, marker.build_id, marker.intent)
        self._cache, self.unreadable = entries, tuple(unreadable)

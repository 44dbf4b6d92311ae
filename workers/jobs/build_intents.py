"""What markers say of builds, looked up afresh each time: a sweep must not take what somebody has just resumed."""

from __future__ import annotations

from generator.errors import SpecError
from generator.store.base import Store
from workers.jobs.markers import list_markers, read_marker

_WANTED_INTENTS = ("open", "paused")


class BuildIntents:
    """The intents of builds in a store root, by build id; ``unreadable`` names jobs whose marker is damaged.

    Of several jobs of one recipe, at several places, the one that is still wanted counts. While a marker cannot be
    read nobody knows whose it is, and every build is ``unknown``; so it is with a root that holds nothing at all, which
    is most likely the wrong one (``blind``).
    """

    def __init__(self, root: Store) -> None:
        self._root = root
        self._cache: dict[str, tuple[str, str, str]] = {}  # job -> etag, build id, intent
        self.unreadable: tuple[str, ...] = ()
        self.root_is_empty = not any(True for folder in ("bundles/", "open/") for _ in root.list(folder))

    def __call__(self, build_id: str) -> str | None:
        """What is intended with a build now; ``None`` where it has no marker. Raises ``StoreError``."""
        self._refresh()
        if self.unreadable or self.root_is_empty:
            return "unknown"
        found = {intent for _, build, intent in self._cache.values() if build == build_id}
        return next((intent for intent in (*_WANTED_INTENTS, *sorted(found)) if intent in found), None)

    def _refresh(self) -> None:
        seen, unreadable = dict[str, tuple[str, str, str]](), list[str]()
        for job, info in list_markers(self._root):
            known = self._cache.get(job)
            if known is not None and known[0] == info.etag:
                seen[job] = known
                continue
            try:
                marker = read_marker(self._root, job)
            except SpecError:
                unreadable.append(job)
                continue
            if marker is not None:
                seen[job] = (info.etag, marker.build_id, marker.intent)
        self._cache, self.unreadable = seen, tuple(unreadable)

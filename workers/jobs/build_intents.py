"""What markers say of builds, looked up afresh each time: a sweep must not take what somebody has just resumed."""

from __future__ import annotations

from generator.errors import SpecError
from generator.store.base import Store
from workers.jobs.markers import listed, read_marker

_WANTED = ("open", "paused")


class MarkedIntents:
    """The intents of builds in a store root, by build id; ``unreadable`` names jobs whose marker is damaged.

    Of several jobs of one recipe, at several places, the one that is still wanted counts. While a marker cannot be
    read nobody knows whose it is, and every build is ``unknown``; so it is with a root that holds nothing at all, which
    is most likely the wrong one (``blind``).
    """

    def __init__(self, root: Store) -> None:
        self._root = root
        self._known: dict[str, tuple[str, str, str]] = {}  # job -> etag, build id, intent
        self.unreadable: tuple[str, ...] = ()
        self.blind = not any(True for folder in ("bundles/", "open/") for _ in root.list(folder))

    def __call__(self, build_id: str) -> str | None:
        """What is intended with a build now; ``None`` where it has no marker. Raises ``StoreError``."""
        self._look()
        if self.unreadable or self.blind:
            return "unknown"
        found = {intent for _, build, intent in self._known.values() if build == build_id}
        return next((intent for intent in (*_WANTED, *sorted(found)) if intent in found), None)

    def _look(self) -> None:
        seen, unreadable = dict[str, tuple[str, str, str]](), list[str]()
        for job, info in listed(self._root):
            known = self._known.get(job)
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
        self._known, self.unreadable = seen, tuple(unreadable)

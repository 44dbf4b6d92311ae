"""What belongs to a tenant over HTTP: places for its datasets, and channels of bundles.

A place is named, so that requests need no path or URL of the server: ``nightly/digits`` is the dataset ``digits`` at
the place ``nightly``. Places and channels come from the tenants file; without it every tenant has the place
``<root>/datasets/<tenant>``, and the tenant ``default`` all channels and the places of ``LATENTMILL_DESTINATIONS``; in
`latentmill up` those of ``local_places``.
"""

from __future__ import annotations

import logging
import threading
import time
from fnmatch import fnmatchcase
from typing import final

from generator.errors import AccessRefused, SettingsError, SpecError
from generator.spec.canonical import short_repr
from generator.store import absolute_url, is_below, is_remote
from generator.store.base import is_segment
from workers.ledger.tenants import TENANT_VARIABLE, Tenants, TenantShare, place_name, read_tenants
from workers.server.access.local_places import LocalPlaces
from workers.settings import Settings

log = logging.getLogger(__name__)

DEFAULT_TENANT = "default"
_REREAD_SECONDS = 5.0
_MAX_LENGTH = 1000


@final
class TenantPlaces:
    """Places and channels of all tenants. The file is read again every few seconds, as workers do."""

    def __init__(self, settings: Settings, root_url: str, local: LocalPlaces | None = None) -> None:
        """``local``: the places of ``default`` where no setting names places. Raises ``SettingsError`` for a file or a
        setting that cannot be."""
        self._settings, self._root, self._lock = settings, absolute_url(root_url), threading.Lock()
        self._local = None if settings.destinations else local
        self._read_at, self._tenants = time.monotonic(), self._read()
        for name in (*self._tenants.tenants, DEFAULT_TENANT):
            self._stated_places(name)

    def places(self, tenant: str) -> dict[str, str]:
        """The absolute URLs of the tenant's places, by name. Raises ``SettingsError`` if one is inside the root."""
        if self._local is not None and self.are_local(tenant):
            return self._local.places()
        return self._stated_places(tenant)

    def are_local(self, tenant: str) -> bool:
        """Whether the tenant's places are those of ``local_places``, on the machine of who asks."""
        return self._local is not None and tenant == DEFAULT_TENANT and not self._share_names_places()

    def _stated_places(self, tenant: str) -> dict[str, str]:
        urls = [url.replace(TENANT_VARIABLE, tenant) for url in self._urls(tenant)]
        try:
            found = {place_name(url): absolute_url(url) for url in urls}
        except ValueError as wrong:  # of LATENTMILL_DESTINATIONS: the file is checked when it is read
            raise SettingsError("LATENTMILL_DESTINATIONS", str(wrong), short_repr(", ".join(urls))) from wrong
        if len(found) != len(urls):
            expected = "URLs with distinct last segments, as those name the places"
            raise SettingsError("destinations", expected, ", ".join(urls))
        for name, url in found.items():
            if is_below(self._root, url) or (is_below(url, self._root) and not is_below(url, self._datasets)):
                expected = f"places outside the store root, or below its folder datasets ({name})"
                raise SettingsError("destinations", expected, url)
        return found

    def destination(self, tenant: str, text: str) -> str:
        """The absolute URL of a destination as a request names it: a place, or below one (``nightly``,
        ``nightly/2026``), or an s3:// URL below one.

        Raises ``SpecError`` for a path or another URL, ``AccessRefused`` if it is not below a place of the tenant.
        """
        places = self.places(tenant)
        if is_remote(text) and len(text) <= _MAX_LENGTH:
            url = absolute_url(text)
            if any(is_below(url, place) for place in places.values()):
                return url
            raise _foreign(tenant, places, text)
        first, *rest = text.split("/") if len(text) <= _MAX_LENGTH else [""]
        if not all(is_segment(part) for part in (first, *rest)):
            expected = f"the name of a place ({', '.join(places)}), and names below it, or an s3:// URL below it"
            raise SpecError("destination", expected, short_repr(text), "paths of the server are refused")
        if first not in places:
            raise _foreign(tenant, places, text)
        url = "/".join((places[first], *rest))
        if not is_below(url, places[first]):  # a link in a directory leads out of it
            raise _foreign(tenant, places, text)
        return url

    def dataset(self, tenant: str, text: str) -> str:
        """The absolute URL of the dataset ``<place>/<name>``. Raises as ``destination`` does, naming ``dataset``."""
        try:
            url = self.destination(tenant, text)
        except (SpecError, AccessRefused) as wrong:
            raise type(wrong)("dataset", wrong.expected, wrong.got, wrong.hint) from wrong
        if url in self.places(tenant).values():
            raise SpecError("dataset", "a place and the name of a dataset: place/name", short_repr(text))
        return url

    def name_of(self, tenant: str, url: str) -> str | None:
        """How requests of the tenant name what is at ``url``; ``None`` if it lies below none of its places."""
        for name, place in self.places(tenant).items():
            if url == place or url.startswith(f"{place}/"):
                return name + url.removeprefix(place)
        return None

    def may_use_channel(self, tenant: str, channel: str) -> bool:
        """Whether the tenant may use the bundles of a channel."""
        return any(fnmatchcase(channel, pattern) for pattern in self._patterns(tenant))

    def may_use_any_bundle(self, tenant: str) -> bool:
        """Whether the tenant may use every bundle in the root: only where no channels are set for ``default``."""
        return self._share(tenant).channels is None and tenant == DEFAULT_TENANT

    def _patterns(self, tenant: str) -> list[str]:
        channels = self._share(tenant).channels
        if channels is None:
            return ["*"] if tenant == DEFAULT_TENANT else []
        return [pattern.replace(TENANT_VARIABLE, tenant) for pattern in channels]

    def _urls(self, tenant: str) -> list[str]:
        stated = self._share(tenant).destinations
        if stated is not None:
            return list(stated)
        own = [url.strip() for url in (self._settings.destinations or "").split(",") if url.strip()]
        return own if own and tenant == DEFAULT_TENANT else [f"{self._datasets}/{tenant}"]

    def _share_names_places(self) -> bool:
        """Whether the file gives anybody places: then ``default`` has those that it says, too."""
        self._share(DEFAULT_TENANT)  # reads the file again if that is due
        shares = (self._tenants.default, *self._tenants.tenants.values())
        return any(share.destinations is not None for share in shares)

    @property
    def _datasets(self) -> str:
        return f"{self._root}/datasets"

    def _share(self, tenant: str) -> TenantShare:
        with self._lock:
            due = time.monotonic() - self._read_at > _REREAD_SECONDS
            if due:
                self._read_at = time.monotonic()
        if due:
            try:
                self._tenants = self._read()
            except SettingsError as wrong:  # a slip in the file must not lock all tenants out
                log.error("the tenants file is not read again: %s", wrong)
        return self._tenants.tenants.get(tenant, self._tenants.default)

    def _read(self) -> Tenants:
        path = self._settings.tenants_file
        return Tenants() if path is None else read_tenants(path)


def _foreign(tenant: str, places: dict[str, str], text: str) -> AccessRefused:
    expected = f"a place of tenant {tenant} ({', '.join(places)}), or below one"
    return AccessRefused("destination", expected, short_repr(text))

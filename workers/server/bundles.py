"""Which bundles belong to a tenant: those that its channels point to or pointed to, and those that it uploaded.

``<root>/tenants/<tenant>/bundles/<digest>.json`` says that a tenant uploaded a bundle.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import final

from pydantic import AwareDatetime

from generator.errors import BundleMissing
from generator.models.bundle import bundle_store, read_info
from generator.models.bundle.channels import Channel, channel_names, load_channel
from generator.models.bundle.format import INFO_FILE
from generator.models.bundle.listing import BundleSummary, bundle_dates, summarize
from generator.spec.canonical import FrozenModel
from generator.spec.recipe import Digest
from workers.server.context import ServerContext

BUNDLES = "bundles/"
_HELD_SUMMARIES = 5000


class Upload(FrozenModel):
    """Who uploaded a bundle, and when."""

    by: str
    at: AwareDatetime


def check_bundle(context: ServerContext, tenant: str, digest: Digest) -> Digest:
    """``digest``, if it is a bundle of the tenant. Raises ``BundleMissing``, the same for what others have."""
    missing = BundleMissing("bundle", f"a bundle of tenant {tenant}", digest, "upload it, or name a channel")
    if not owns_bundle(context, tenant, digest):
        raise missing
    try:
        read_info(bundle_store(context.root, digest), digest)
    except BundleMissing as gone:
        raise missing from gone
    return digest


def owns_bundle(context: ServerContext, tenant: str, digest: Digest) -> bool:
    """Whether the tenant may use the bundle, if there is one."""
    if context.places.may_use_any_bundle(tenant) or context.root.head(_record_key(tenant, digest)) is not None:
        return True
    return any(digest in _bundles_of(channel) for channel in tenant_channels(context, tenant))


def tenant_channels(context: ServerContext, tenant: str) -> Iterator[Channel]:
    """The channels of a tenant, ascending by name."""
    for name in channel_names(context.root):
        if context.places.may_use_channel(tenant, name):
            yield load_channel(context.root, name)


def tenant_bundles(context: ServerContext, tenant: str) -> list[Digest]:
    """The digests of a tenant's bundles, ascending."""
    if context.places.may_use_any_bundle(tenant):
        return [f"sha256:{name}" for name in context.root.children(BUNDLES)]
    found = {digest for channel in tenant_channels(context, tenant) for digest in _bundles_of(channel)}
    prefix = f"tenants/{tenant}/bundles/"
    uploads = (info.key.removeprefix(prefix).removesuffix(".json") for info in context.root.list(prefix))
    return sorted(found | {f"sha256:{name}" for name in uploads})


def bundle_dates_of(context: ServerContext, tenant: str) -> dict[Digest, datetime]:
    """The tenant's bundles that are in the root, and when it got each of them. Raises ``StoreError``."""
    if context.places.may_use_any_bundle(tenant):
        return bundle_dates(context.root)
    heads = {digest: created_at(context, digest) for digest in tenant_bundles(context, tenant)}
    return {digest: created for digest, created in heads.items() if created is not None}


def created_at(context: ServerContext, digest: Digest) -> datetime | None:
    """When the root got a bundle; ``None`` if it has no such bundle. Raises ``StoreError``."""
    found = bundle_store(context.root, digest).head(INFO_FILE)
    return None if found is None else found.modified


def summary_of_bundle(
    context: ServerContext, digest: Digest, created: datetime, channels: list[Channel]
) -> BundleSummary:
    """The summary of one bundle; ``channels``: those of the tenant. Raises ``StoreError``."""
    lines = tuple(channel.line for channel in channels if channel.bundle == digest)
    return _shelf.get(context, digest, created).model_copy(update={"channels": lines})


@final
class _SummaryShelf:
    """Summaries without their channels: bundles never change, but one that was damaged may be mended."""

    def __init__(self) -> None:
        self._lock, self._held = threading.Lock(), OrderedDict[tuple[str, str, datetime], BundleSummary]()

    def get(self, context: ServerContext, digest: Digest, created: datetime) -> BundleSummary:
        key = (context.root.url, digest, created)
        with self._lock:
            if (held := self._held.get(key)) is not None:
                self._held.move_to_end(key)
                return held
        found = summarize(context.root, digest, created, ())
        if not found.error:
            with self._lock:
                self._held[key] = found
                while len(self._held) > _HELD_SUMMARIES:
                    self._held.popitem(last=False)
        return found


_shelf = _SummaryShelf()


def note_upload(context: ServerContext, tenant: str, digest: Digest, by: str) -> bool:
    """Record that the tenant uploaded a bundle: it may use it from now on. Returns whether this is the first time."""
    key = _record_key(tenant, digest)
    is_first = context.root.head(key) is None
    if is_first:
        context.root.put(key, Upload(by=by, at=datetime.now(UTC)).canonical())
    return is_first


def _bundles_of(channel: Channel) -> set[str]:
    return {move.bundle for move in (channel.current, *channel.previous)}


def _record_key(tenant: str, digest: Digest) -> str:
    return f"tenants/{tenant}/bundles/{digest.removeprefix('sha256:')}.json"

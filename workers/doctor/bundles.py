"""Checks of the bundles in the store root: that they can be listed, and that a named one is intact."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from generator.errors import LatentmillError
from generator.models.bundle import bundle_store, load_bundle
from generator.store import open_store
from workers.doctor.findings import Finding, failed, ok
from workers.settings import Settings

_MAX_COUNTED = 1000


def examine_bundles(root: str, settings: Settings, bundle: str | None) -> Iterator[Finding]:
    """Count the bundles below ``root``; load and verify the one with the digest ``bundle``, if given."""
    store = open_store(root, settings.s3)
    try:
        count = sum(1 for _ in islice(store.children("bundles/"), _MAX_COUNTED))
    except LatentmillError as away:
        yield failed(
            "bundles", f"expected {away.expected}, got {away.got}", away.hint or "see the findings on the store"
        )
        return
    yield ok("bundles", f"{count if count < _MAX_COUNTED else f'{_MAX_COUNTED} or more'} below {root}/bundles")
    if bundle is None:
        return
    try:
        loaded = load_bundle(bundle_store(store, bundle), bundle)
    except LatentmillError as wrong:
        mend = wrong.hint or "push it again: `latentmill push BUNDLE`"
        yield failed("bundle", f"{bundle}: expected {wrong.expected}, got {wrong.got}", mend)
        return
    info = loaded.info
    yield ok("bundle", f"{bundle}: {info.autoencoder.family}, {info.image.height} x {info.image.width}, verified")

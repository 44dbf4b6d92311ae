"""The bundle that a dataset was made with: kept by ``generate``, found by commands that need it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from generator.store.base import Store
    from workers.settings import Settings


def keep_bundle(bundle: Store, digest: str, settings: Settings, *, quiet: bool) -> None:
    """Copy a bundle into the store root if that is a directory of this machine, where ``measure`` and ``replay`` look.

    What prevents it is said, and stops nothing.
    """
    from generator.errors import LatentmillError
    from generator.models.bundle import bundle_store, push
    from generator.models.bundle.format import INFO_FILE
    from generator.store import open_store

    root = open_store(settings.root, settings.s3)
    if not root.url.startswith("file://"):
        return
    try:
        if bundle_store(root, digest).head(INFO_FILE) is None:
            push(bundle, root)
    except LatentmillError as error:
        if not quiet:
            text = f"notice: the bundle is not kept in {root.url} ({error}); measure and replay need --bundle"
            click.echo(text, err=True)


def dataset_bundle(given: str | None, digest: str, settings: Settings, root: str | None = None) -> Store:
    """Where the bundle ``digest`` of a dataset is: ``given``, or in ``root``, by default the one of the settings.

    Raises ``BundleMissing``.
    """
    from generator.drafts import find_bundle
    from generator.errors import BundleMissing
    from generator.models.bundle.format import INFO_FILE
    from generator.store import open_store

    found = find_bundle(given or digest, open_store(root or settings.root, settings.s3), settings.s3)
    if given is None and found.head(INFO_FILE) is None:
        hint = "Name its directory or URL: --bundle."
        raise BundleMissing("bundle", f"the dataset's bundle, {digest}", f"none at {found.url}", hint)
    return found

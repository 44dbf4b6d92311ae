"""The bundles of a store root as a list shows them: what each was made of, when, and which channels point to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from pydantic import AwareDatetime, Field

from generator.errors import BundleError
from generator.models.bundle.channels import Channel, load_channels
from generator.models.bundle.format import INFO_FILE, THUMBNAILS_FILE, BundleInfo, ImageShape
from generator.models.bundle.load import read_info
from generator.models.bundle.transfer import bundle_store
from generator.spec.canonical import FrozenModel
from generator.spec.recipe import Digest
from generator.store.base import Store

_PREFIX = "bundles/"


class BundleSummary(FrozenModel):
    """A bundle in a list.

    ``created``: when the store got it. ``source``: the name of its training images, ``images`` how many there were,
    with the held-out ones. ``family``: of the autoencoder; ``sampler``: of the latent distribution. ``bytes``: of its
    files. ``thumbnails``: whether it keeps pictures of real images. ``channels``: those that point to it now.
    ``error``: what ``bundle.json`` should be and is not; ``bundle``, ``created`` and ``channels`` are all that is known
    then.
    """

    bundle: Digest
    created: AwareDatetime
    source: str = ""
    images: int = Field(default=0, ge=0)
    family: str = ""
    sampler: str = ""
    image: ImageShape | None = None
    latent_dim: int = Field(default=0, ge=0)
    classes: int = Field(default=0, ge=0)
    bytes: int = Field(default=0, ge=0)
    thumbnails: bool = False
    channels: tuple[str, ...] = ()
    error: str = ""


def bundle_dates(root: Store) -> dict[Digest, datetime]:
    """When the root got each of its bundles, from one listing of it. Raises ``StoreError``."""
    end = f"/{INFO_FILE}"
    return {
        f"sha256:{info.key.removeprefix(_PREFIX).removesuffix(end)}": info.modified
        for info in root.list(_PREFIX)
        if info.key.endswith(end) and info.key.count("/") == 2
    }


def list_bundles(root: Store) -> list[BundleSummary]:
    """All bundles of a root, the newest first. Raises ``StoreError``."""
    channels, dates = list(load_channels(root)), bundle_dates(root)
    return [summarize(root, digest, dates[digest], channels) for digest in newest_first(dates)]


def newest_first(dates: Mapping[Digest, datetime]) -> list[Digest]:
    """The digests by date, the newest first; those of one moment by digest."""
    return sorted(sorted(dates), key=lambda digest: dates[digest], reverse=True)


def summarize(root: Store, digest: Digest, created: datetime, channels: Iterable[Channel]) -> BundleSummary:
    """The summary of one bundle; one that is damaged says so. Raises ``StoreError``."""
    lines = tuple(channel.line for channel in channels if channel.bundle == digest)
    try:
        info = read_info(bundle_store(root, digest), digest)[1]
    except BundleError as damaged:
        return BundleSummary(bundle=digest, created=created, channels=lines, error=damaged.expected)
    return summary_of(digest, info, created, lines)


def summary_of(digest: Digest, info: BundleInfo, created: datetime, channels: tuple[str, ...]) -> BundleSummary:
    """The summary of a bundle whose ``bundle.json`` is ``info``."""
    return BundleSummary(
        bundle=digest,
        created=created,
        source=info.source.name,
        images=info.source.images + info.source.holdout,
        family=info.autoencoder.family,
        sampler=str(info.latents.get("family", "")),
        image=info.image,
        latent_dim=info.latent_dim,
        classes=len(info.classes),
        bytes=sum(entry.size for entry in info.files.values()),
        thumbnails=THUMBNAILS_FILE in info.files,
        channels=channels,
    )

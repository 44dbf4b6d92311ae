"""The bundles that a form offers: channels first, then the newest bundles."""

from __future__ import annotations

from dataclasses import dataclass

from generator.errors import LatentmillError
from generator.models.bundle import BundleInfo, bundle_store, read_info
from generator.models.bundle.listing import BundleSummary, newest_first
from generator.spec.recipe import Digest
from workers.server.bundles import bundle_dates_of, check_bundle, summary_of_bundle, tenant_channels
from workers.server.callers import Caller
from workers.server.context import ServerContext
from workers.server.pages.form_answers import CHANNEL
from workers.server.specs import channel_digest

_OFFERED = 100


@dataclass(frozen=True)
class BundleChoice:
    """``value``: ``channel:<name>`` or a digest. ``text``: what it is."""

    value: str
    text: str


def bundle_choices(
    context: ServerContext, caller: Caller, chosen: str
) -> tuple[list[BundleChoice], list[BundleChoice]]:
    """Channels, and at most 100 bundles with the newest first; ``chosen`` is among them. Raises ``StoreError``."""
    dates, channels = bundle_dates_of(context, caller.tenant), list(tenant_channels(context, caller.tenant))
    digests = newest_first(dates)[:_OFFERED]
    digests += [chosen] if chosen in dates and chosen not in digests else []
    summaries = {digest: summary_of_bundle(context, digest, dates[digest], channels) for digest in digests}
    lines = [BundleChoice(CHANNEL + each.line, _line(each.line, summaries.get(each.bundle))) for each in channels]
    bundles = [BundleChoice(digest, _text(each)) for digest, each in summaries.items() if not each.error]
    offered = {choice.value for choice in (*lines, *bundles)}
    if chosen and chosen not in offered:
        bundles.append(BundleChoice(chosen, f"{chosen[:40]}, which is not one of yours"))
    return lines, bundles


def chosen_bundle(context: ServerContext, caller: Caller, chosen: str) -> tuple[Digest, BundleInfo] | None:
    """The bundle of a choice; ``None`` if it is none of the tenant's, or cannot be read."""
    try:
        if chosen.startswith(CHANNEL):
            digest = channel_digest(context, caller.tenant, chosen.removeprefix(CHANNEL))
        else:
            digest = check_bundle(context, caller.tenant, chosen)
        return digest, read_info(bundle_store(context.root, digest), digest)[1]
    except LatentmillError:
        return None


def _line(name: str, now: BundleSummary | None) -> str:
    return f"{name} (now {_text(now)})" if now and not now.error else name


def _text(summary: BundleSummary) -> str:
    image = summary.image
    size = f"{image.width} x {image.height} {'grey' if image.channels == 1 else 'colour'}" if image else ""
    created = summary.created.strftime("%Y-%m-%d %H:%M")
    return f"{summary.source}, {summary.family}, {size}, {created}, {summary.bundle[7:15]}"

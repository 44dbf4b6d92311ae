"""Pages of bundles: channels and bundles of the tenant, and what is known of one."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from generator.models.bundle import BundleInfo, bundle_store, read_info
from generator.spec.recipe import Digest
from workers.server.bundles import check_bundle, tenant_bundles, tenant_channels
from workers.server.callers import Caller, require
from workers.server.context import context_of
from workers.server.pages.rendering import render

_LISTED = 200

router = APIRouter(include_in_schema=False)


@router.get("/bundles")
def list_bundles(request: Request, caller: Annotated[Caller, Depends(require("reader"))]) -> Response:
    """The tenant's channels and bundles."""
    context = context_of(request)
    digests = tenant_bundles(context, caller.tenant)
    channels = list(tenant_channels(context, caller.tenant))
    return render(request, "bundles.html", channels=channels, digests=digests[:_LISTED], more=len(digests) > _LISTED)


@router.get("/bundles/{digest}")
def show_bundle(request: Request, caller: Annotated[Caller, Depends(require("reader"))], digest: Digest) -> Response:
    """One bundle: what was trained on what, and which channels point to it."""
    context = context_of(request)
    info = read_info(bundle_store(context.root, check_bundle(context, caller.tenant, digest)), digest)[1]
    lines = [channel.line for channel in tenant_channels(context, caller.tenant) if channel.bundle == digest]
    place = min(context.places.places(caller.tenant))
    return render(request, "bundle.html", digest=digest, info=info, lines=lines, facts=_facts(info), place=place)


def _facts(info: BundleInfo) -> dict[str, Any]:
    """What a table shows, by name."""
    last = info.training.history[-1] if info.training and info.training.history else None
    facts = {
        "Images": f"{info.image.size}, {'grey' if info.image.channels == 1 else 'colour'}",
        "Autoencoder": getattr(info.autoencoder, "family", ""),
        "Code": f"{info.latent_dim} numbers",
        "Latent distribution": str(info.latents.get("family", "")),
        "Source": f"{info.source.name}, {info.source.images:,} images and {info.source.holdout:,} held out",
        "Epochs": str(len(info.training.history)) if info.training else "none: an imported decoder",
        "Held-out loss": f"{last.holdout_loss:.4g}" if last else "",
        "Judge": "yes" if info.judge else "no",
        "Copy index": "yes" if info.passing.novelty is not None else "no",
        "Size": f"{sum(entry.size for entry in info.files.values()):,} bytes in {len(info.files)} files",
    }
    return {name: value for name, value in facts.items() if value}

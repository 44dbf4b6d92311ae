"""Specs as they come over HTTP: drafts and job specs, narrowed to what belongs to the caller's tenant."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, TypeAdapter, ValidationError, model_validator

from generator.drafts import JobDraft, parse_draft
from generator.drafts.references import CodeReference, has_map
from generator.errors import BundleMissing, SpecError
from generator.models.bundle import BundleInfo, bundle_store, read_info
from generator.models.bundle.channels import read_channel_digest
from generator.spec.canonical import FrozenModel, translate_error
from generator.spec.recipe import (
    ClusterDraw,
    Digest,
    Distance,
    DistributionDraw,
    JobSpec,
    Name,
)
from workers.jobs.queries import resolve
from workers.server.bundles import check_bundle
from workers.server.callers import Caller
from workers.server.context import ServerContext

MAX_IMAGE_BYTES = 6 * 2**20
_ENDS = ("start", "end")


class ReferenceBody(CodeReference):
    """One code: its numbers, or an image (the bytes of a file in base64), or the row of a training image."""

    image: str | None = Field(default=None, min_length=1, max_length=4 * MAX_IMAGE_BYTES // 3 + 4)


class AroundBody(ReferenceBody):
    """Images near a code."""

    mode: Literal["around"] = "around"
    distance: Distance


class BetweenBody(FrozenModel):
    """Images on the line between two codes."""

    mode: Literal["between"] = "between"
    start: ReferenceBody
    end: ReferenceBody
    distance: Distance | None = None


DrawBody = Annotated[DistributionDraw | ClusterDraw | AroundBody | BetweenBody, Field(discriminator="mode")]


class DraftBody(JobDraft):
    """A job draft over HTTP: ``bundle`` is a digest, or ``channel`` names a line of bundles; ``destination`` is a place
    of the tenant, or one below it; images of ``draw`` are uploaded bytes. ``tenant`` is that of the key."""

    bundle: Digest | None = None  # type: ignore[assignment]
    channel: Name | None = None
    draw: DrawBody = DistributionDraw()  # type: ignore[assignment]

    @model_validator(mode="after")
    def _check_one_bundle(self) -> DraftBody:
        if (self.bundle is None) == (self.channel is None):
            raise ValueError("either bundle (a digest) or channel (a line of bundles)")
        return self


def _spec_kind(value: Any) -> str:
    return "(spec)" if isinstance(value, JobSpec) or (isinstance(value, dict) and "recipe" in value) else "(draft)"


SpecBody = Annotated[
    Annotated[DraftBody, Tag("(draft)")] | Annotated[JobSpec, Tag("(spec)")], Discriminator(_spec_kind)
]

_SPEC_BODY: TypeAdapter[DraftBody | JobSpec] = TypeAdapter(SpecBody)


def parse_body(document: Any) -> DraftBody | JobSpec:
    """The draft or job spec of a document. Raises ``SpecError``, whose field is spelt as in the document."""
    try:
        return _SPEC_BODY.validate_python(document)
    except ValidationError as invalid:
        known = tuple(DraftBody.model_fields)
        wrong = translate_error(invalid, field="", error=SpecError, known=known, given=document)
        raise SpecError(wrong.field or "spec", wrong.expected, wrong.got, wrong.hint) from invalid


def spec_facts(body: DraftBody | JobSpec) -> dict[str, str]:
    """What the audit log says of a spec."""
    order = body.order if isinstance(body, JobSpec) else body
    return {"name": order.name, "destination": order.destination[:200]}


def narrow(context: ServerContext, caller: Caller, body: DraftBody | JobSpec) -> JobSpec:
    """The job spec of a body: its bundle is one of the tenant's, its destination below a place of the tenant, its
    tenant the caller's.

    A draw that needs an encoder or a map is resolved by a worker. Raises ``InputError``, ``OutsideError``.
    """
    if isinstance(body, JobSpec):
        check_bundle(context, caller.tenant, body.recipe.bundle)
        destination = context.places.destination(caller.tenant, body.order.destination)
        order = body.order.model_copy(update={"tenant": caller.tenant, "destination": destination})
        return context.client.resolve(body.model_copy(update={"order": order}))[0]
    fields = body.model_dump(mode="json", exclude_unset=True, exclude={"channel", "bundle", "tenant"})
    fields["bundle"] = find_bundle(context, caller.tenant, body)
    fields["destination"] = context.places.destination(caller.tenant, body.destination)
    fields["tenant"] = caller.tenant
    images = _take_images(fields)
    info = read_info(bundle_store(context.root, fields["bundle"]), fields["bundle"])[1]
    if images or _needs_map(fields, info):
        return resolve(context.pool, fields, images)
    return context.client.resolve(parse_draft(fields))[0]


def find_bundle(context: ServerContext, tenant: str, body: DraftBody) -> str:
    """The digest of the bundle of a draft. Raises ``BundleMissing`` if the tenant has no such bundle."""
    if body.channel is None:
        assert body.bundle is not None
        return check_bundle(context, tenant, body.bundle)
    return channel_digest(context, tenant, body.channel)


def channel_digest(context: ServerContext, tenant: str, channel: str) -> str:
    """The digest that a channel of the tenant points to. Raises ``BundleMissing``."""
    if not context.places.may_use_channel(tenant, channel):
        raise BundleMissing("channel", f"a channel of tenant {tenant}", repr(channel))
    try:
        return read_channel_digest(context.root, channel)
    except BundleMissing as missing:  # its own text lists the channels of all tenants
        raise BundleMissing("channel", f"a channel of tenant {tenant}", repr(channel)) from missing


def _needs_map(fields: dict[str, Any], info: BundleInfo) -> bool:
    return has_map(info) and fields.get("draw", {}).get("mode") in ("around", "between")


def _take_images(fields: dict[str, Any]) -> dict[str, bytes]:
    """Replace uploaded images in ``fields`` by names, and return their bytes by these names."""
    draw = fields.get("draw") or {}
    places = {"draw": draw} | {f"draw.{end}": draw[end] for end in _ENDS if isinstance(draw.get(end), dict)}
    images = {}
    for where, reference in places.items():
        if isinstance(reference.get("image"), str):
            images[where], reference["image"] = _decode_image(reference["image"], where), where
    return images


def _decode_image(text: str, where: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as broken:
        hint = "paths of the server are refused"
        raise SpecError(f"{where}.image", "the bytes of an image file in base64", "other text", hint) from broken
    if len(data) > MAX_IMAGE_BYTES:
        raise SpecError(f"{where}.image", f"an image file of at most {MAX_IMAGE_BYTES} bytes", f"{len(data)} bytes")
    return data

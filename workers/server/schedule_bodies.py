"""Schedules as they come over HTTP, narrowed to what belongs to the caller's tenant, for every one of their dates."""

from __future__ import annotations

from typing import Any

from generator.errors import InputError, SettingsError, SpecError
from generator.spec.canonical import short_repr, validate
from workers.schedules.schedule import Schedule
from workers.server.bundles import check_bundle
from workers.server.callers import Caller
from workers.server.context import ServerContext
from workers.server.specs import channel_digest
from workers.settings import ENV_PREFIX

_NAMED_SOURCES = ("digits", "test")
_REFUSED = "paths of the server are refused"


def narrow_schedule(context: ServerContext, caller: Caller, body: dict[str, Any]) -> Schedule:
    """The schedule of a body: its bundle or channel is one of the tenant's, its destination below a place of the
    tenant whatever the date, its tenant the caller's; it names no file of the server. Raises ``InputError``.

    Webhooks need a list of allowed hosts in the settings, as schedulers call them from inside their network.
    """
    job = body.get("job")
    if not isinstance(job, dict):
        raise SpecError("job", "a mapping of fields", short_repr(job))
    destination = _destination(context, caller.tenant, job.get("destination"))
    _check_names(job.get("draw"))
    _check_bundle(context, caller.tenant, job)
    fields = body | {"tenant": caller.tenant, "job": job | {"destination": destination}}
    schedule = validate(Schedule, fields, field="", error=SpecError)
    _check_sources(context, caller.tenant, schedule)
    if schedule.notifications.webhooks and context.settings.allowed_webhooks is None:
        raise SettingsError(
            "notifications",
            f"no webhooks, as {ENV_PREFIX}ALLOWED_WEBHOOKS is not set",
            "some",
            "ask who runs the server",
        )
    return schedule


def _destination(context: ServerContext, tenant: str, text: Any) -> str:
    """The absolute URL; templates may stand for names below the place, and cannot lead out of it.

    A template is filled with digits, letters and ``-``, ``:``, ``+`` and what its own text adds: no part of it may
    hold two dots, and the place itself is no template.
    """
    if not isinstance(text, str) or ".." in text or "\\" in text or "\0" in text or len(text) > 1000:
        raise SpecError("job.destination", "a place of the tenant, and names below it", short_repr(text), _REFUSED)
    literal, brace, rest = text.partition("{")
    if not brace:
        return context.places.destination(tenant, text)
    folder, slash, beginning = literal.rpartition("/")
    if not slash:
        raise SpecError("job.destination", "the name of a place without a template", short_repr(text))
    return f"{context.places.destination(tenant, folder)}/{beginning}{brace}{rest}"


def _check_bundle(context: ServerContext, tenant: str, job: dict[str, Any]) -> None:
    """Raise ``SpecError`` for a path or a template, ``BundleMissing`` for what is not the tenant's."""
    if "channel" in job:
        channel = job["channel"]
        if not isinstance(channel, str) or "{" in channel:
            raise SpecError("job.channel", "the name of a channel, without templates", short_repr(channel))
        channel_digest(context, tenant, channel)
        return
    bundle = job.get("bundle")
    if not isinstance(bundle, str) or not bundle.startswith("sha256:") or len(bundle) != 71:
        raise SpecError("job.bundle", "a digest (sha256:...), or channel in its place", short_repr(bundle), _REFUSED)
    check_bundle(context, tenant, bundle)


def _check_names(draw: Any) -> None:
    """Refuse images: a scheduler would read files of its machine."""
    if not isinstance(draw, dict):
        return
    for name, reference in {"draw": draw, "draw.start": draw.get("start"), "draw.end": draw.get("end")}.items():
        if isinstance(reference, dict) and "image" in reference:
            raise SpecError(f"job.{name}.image", "a code, or the row of a training image", "a file", _REFUSED)


def _check_sources(context: ServerContext, tenant: str, schedule: Schedule) -> None:
    """Sources of real images for gates lie below a place of the tenant, or are the ones that have a name."""
    reference = schedule.gates.reference if schedule.gates else None
    for name in ("source", "test"):
        location = getattr(reference, name, None)
        if location is not None and location not in _NAMED_SOURCES:
            if not location.startswith("s3://"):
                expected = f"one of {', '.join(_NAMED_SOURCES)}, or an s3:// URL below a place of the tenant"
                raise SpecError(f"gates.reference.{name}", expected, short_repr(location), _REFUSED)
            try:
                context.places.destination(tenant, location)
            except InputError as foreign:
                raise type(foreign)(f"gates.reference.{name}", foreign.expected, foreign.got, foreign.hint) from foreign

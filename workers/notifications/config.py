"""The configuration of notifications: webhooks and the events that each receives."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from generator.spec.canonical import FrozenModel
from generator.spec.recipe import Name

EventKind = Literal["succeeded", "failed", "refused", "at_risk"]
EVENT_KINDS: tuple[EventKind, ...] = ("succeeded", "failed", "refused", "at_risk")


class Webhook(FrozenModel):
    """One receiver. ``secret`` is the name of its secret in the file that LATENTMILL_WEBHOOK_SECRETS_FILE names.

    ``events`` are the events that it receives; ``refused`` is a build that failed its gates, ``at_risk`` a deadline
    that will be missed.
    """

    url: Annotated[str, Field(min_length=1, max_length=2000)]
    secret: Name
    events: tuple[EventKind, ...] = Field(default=EVENT_KINDS, min_length=1)

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        try:
            parts = parse_url(url)
        except LocationParseError as wrong:
            raise ValueError("an http:// or https:// URL") from wrong
        if parts.scheme not in ("http", "https") or not parts.host or not url.isascii() or not url.isprintable():
            raise ValueError("an http:// or https:// URL")
        if parts.auth is not None or parts.fragment is not None:
            raise ValueError("a URL without a user, a password or a fragment")
        return url


class Notifications(FrozenModel):
    """The receivers of a run's end and of deadlines at risk. A log line is written in any case."""

    webhooks: tuple[Webhook, ...] = Field(default=(), max_length=10)

"""The outbox: messages to webhooks, stored as ``<root>/notifications/<id>-<receiver>.json`` until they are delivered.

Messages survive the process that wrote them, so they are delivered at least once, each time with the same id. Before
sending, a delivery thread reserves the message by moving its ``due`` with a conditional write, so that no other thread
sends it at the same time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Literal

from pydantic import AwareDatetime, Field

from generator.errors import AlreadyExists, Changed, DatasetError, InputError, IntegrityError, ObjectMissing
from generator.spec.canonical import FrozenModel, read_json, sha256_hex, validate
from generator.store.base import Store
from workers.notifications.config import Webhook
from workers.notifications.events import Event

log = logging.getLogger(__name__)

FOLDER = "notifications/"
MAX_MESSAGE_BYTES = 256 * 1024
_INVALID_RETRY = timedelta(hours=1)  # between two reads of an invalid message

DueCache = dict[str, tuple[str, datetime]]  # by key: etag, and when the message is due


class OutboxMessage(FrozenModel):
    """One message for one receiver. It is not sent before ``due``; ``attempts`` counts the failed ones so far."""

    letter_version: Literal[1] = 1
    event: Event
    webhook: Webhook
    due: AwareDatetime
    attempts: int = Field(default=0, ge=0)
    last_error: str = Field(default="", max_length=500)

    @property
    def key(self) -> str:
        """The key of the message below the root."""
        receiver = sha256_hex(f"{self.webhook.url}\n{self.webhook.secret}".encode())[:12]
        return f"{FOLDER}{self.event.id}-{receiver}.json"


def enqueue(root: Store, message: OutboxMessage) -> None:
    """Store a message for the delivery threads; no effect if it is stored already. Raises ``StoreError``."""
    try:
        root.create(message.key, message.canonical())
    except AlreadyExists:
        return


def due_messages(root: Store, now: datetime, cache: DueCache) -> Iterator[tuple[OutboxMessage, str]]:
    """The messages that are due, with their etags. Invalid messages are skipped with a warning.

    ``cache`` is updated: an unchanged message that is not due yet is not read again.
    """
    listed = list(root.list(FOLDER))
    for key in cache.keys() - {info.key for info in listed}:
        del cache[key]
    for info in listed:
        etag, due = cache.get(info.key, ("", now))
        if etag == info.etag and due > now:
            continue
        try:
            data = root.get(info.key, MAX_MESSAGE_BYTES)
            document = read_json(data, field=info.key, error=DatasetError)
            message = validate(OutboxMessage, document, field=info.key, error=DatasetError)
        except ObjectMissing:  # delivered meanwhile
            continue
        except (InputError, IntegrityError) as invalid:
            log.warning("%s/%s is not a valid message: %s", root.url, info.key, invalid)
            cache[info.key] = (info.etag, now + _INVALID_RETRY)
            continue
        cache[info.key] = (info.etag, message.due)
        if message.key == info.key and message.due <= now:
            yield message, info.etag


def reserve(root: Store, message: OutboxMessage, etag: str, until: datetime) -> str | None:
    """Reserve the message until ``until``; return its new etag, ``None`` if another process was faster."""
    try:
        return root.replace(message.key, message.model_copy(update={"due": until}).canonical(), etag)
    except Changed:
        return None


def postpone(root: Store, message: OutboxMessage, etag: str, now: datetime, delay: timedelta, error: str) -> None:
    """Count a failed attempt with its ``error``; the next one is due after ``delay``."""
    update = {"due": now + delay, "attempts": message.attempts + 1, "last_error": error[:500]}
    try:
        root.replace(message.key, message.model_copy(update=update).canonical(), etag)
    except Changed:  # the reservation expired, and another process has reserved it
        log.info("%s is being delivered by another process", message.event.id)

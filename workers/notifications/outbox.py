"""Messages on their way: ``<root>/notifications/<id>-<receiver>.json``, from the event until the receiver has it.

They lie in the store, so that a message outlives whoever wrote it: it is delivered at least once, with the same id each
time. Who wants to send one first moves its ``due`` on by a conditional write, so that two couriers do not send it both.
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
_INVALID_RETRY = timedelta(hours=1)  # at what is no message

DueCache = dict[str, tuple[str, datetime]]  # by key: version, and when it is due


class OutboxMessage(FrozenModel):
    """One message for one receiver. ``due``: not to be sent before that; ``attempts``: so far."""

    letter_version: Literal[1] = 1
    event: Event
    webhook: Webhook
    due: AwareDatetime
    attempts: int = Field(default=0, ge=0)
    last_error: str = Field(default="", max_length=500)

    @property
    def key(self) -> str:
        """Where it lies."""
        receiver = sha256_hex(f"{self.webhook.url}\n{self.webhook.secret}".encode())[:12]
        return f"{FOLDER}{self.event.id}-{receiver}.json"


def enqueue(root: Store, letter: OutboxMessage) -> None:
    """Put the letter where couriers find it; nothing happens where it lies there already. Raises ``StoreError``."""
    try:
        root.create(letter.key, letter.canonical())
    except AlreadyExists:
        return


def due_messages(root: Store, now: datetime, known: DueCache) -> Iterator[tuple[OutboxMessage, str]]:
    """The letters that are due, with their versions. What is none is passed over with a warning.

    ``known``: what was read before; a version that is not due yet is not read again.
    """
    there = list(root.list(FOLDER))
    for key in known.keys() - {info.key for info in there}:
        del known[key]
    for info in there:
        etag, due = known.get(info.key, ("", now))
        if etag == info.etag and due > now:
            continue
        try:
            data = root.get(info.key, MAX_MESSAGE_BYTES)
            document = read_json(data, field=info.key, error=DatasetError)
            letter = validate(OutboxMessage, document, field=info.key, error=DatasetError)
        except ObjectMissing:  # delivered meanwhile
            continue
        except (InputError, IntegrityError) as odd:
            log.warning("%s/%s is no message: %s", root.url, info.key, odd)
            known[info.key] = (info.etag, now + _INVALID_RETRY)
            continue
        known[info.key] = (info.etag, letter.due)
        if letter.key == info.key and letter.due <= now:
            yield letter, info.etag


def reserve(root: Store, letter: OutboxMessage, etag: str, until: datetime) -> str | None:
    """Reserve the letter until then; its new version, ``None`` where somebody else was faster."""
    try:
        return root.replace(letter.key, letter.model_copy(update={"due": until}).canonical(), etag)
    except Changed:
        return None


def postpone(root: Store, letter: OutboxMessage, etag: str, now: datetime, delay: timedelta, why: str) -> None:
    """The receiver did not take it: try again after ``delay``."""
    update = {"due": now + delay, "attempts": letter.attempts + 1, "last_error": why[:500]}
    try:
        root.replace(letter.key, letter.model_copy(update=update).canonical(), etag)
    except Changed:  # it took longer than the reservation, and somebody else has it now
        log.info("%s is with another courier", letter.event.id)

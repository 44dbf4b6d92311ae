"""Delivery: what is due is signed and sent, what was not taken is tried again later; in a thread of its own."""

from __future__ import annotations

import logging
import random
import threading
from datetime import UTC, datetime, timedelta
from typing import final

from generator.errors import LatentmillError, SettingsError
from generator.store.base import Store
from workers.notifications.allowed_hosts import check_host, loggable_host
from workers.notifications.config import Notifications
from workers.notifications.events import Event
from workers.notifications.outbox import DueCache, OutboxMessage, due_messages, enqueue, postpone, reserve
from workers.notifications.signatures import read_secrets, signature
from workers.notifications.webhook import TOTAL_TIMEOUT, DeliveryFailed, post
from workers.settings import Settings

log = logging.getLogger(__name__)

FIRST_DELAY, LONGEST_DELAY = 10.0, 3600.0  # seconds
GIVE_UP_AFTER = timedelta(days=3)
_RESERVATION = timedelta(seconds=3 * TOTAL_TIMEOUT)
_POLL_SECONDS = 15.0
_MAX_PER_ROUND = 200  # messages in one round


def notify(root: Store, notifications: Notifications, event: Event) -> None:
    """Tell of ``event``: a line in the log, and a message for each webhook that wants it, left for the couriers.

    Nothing is sent here, so no receiver can hold a run up. Telling twice is telling once as long as the message waits;
    after that it is sent again, with the same id. Raises ``StoreError``: then tell again.
    """
    log.log(logging.INFO if event.kind == "succeeded" else logging.WARNING, "%s", event.sentence)
    for webhook in notifications.webhooks:
        if event.kind in webhook.events:
            enqueue(root, OutboxMessage(event=event, webhook=webhook, due=event.at))


def deliver(root: Store, settings: Settings, *, now: datetime | None = None, known: DueCache | None = None) -> int:
    """Send everything that is due, each message once, at most 200; how many were taken.

    A receiver that fails is not asked again in the same round. ``known``: kept from one round to the next, it saves
    reading what is not due. Raises ``StoreError``.
    """
    tried, taken, silent = 0, 0, set[str]()
    for letter, etag in due_messages(root, now or datetime.now(UTC), {} if known is None else known):
        if letter.webhook.url in silent:
            continue
        if _try_send(root, settings, letter, etag, now):
            taken += 1
        else:
            silent.add(letter.webhook.url)
        if (tried := tried + 1) == _MAX_PER_ROUND:
            break
    return taken


def retry_delay(attempts: int) -> timedelta:
    """How long to wait after so many attempts: exponential, with full jitter, so that many do not come at once.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    return timedelta(seconds=random.uniform(0.0, min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(attempts, 20))))


def _try_send(root: Store, settings: Settings, letter: OutboxMessage, etag: str, now: datetime | None) -> bool:
    at = now or datetime.now(UTC)
    reserved = reserve(root, letter, etag, at + _RESERVATION)
    if reserved is None:
        return True
    try:
        _post_message(settings, letter, at)
    except (DeliveryFailed, SettingsError) as failed:
        _record_failure(root, letter, reserved, at, failed)
        return False
    root.delete(letter.key)
    log.info("%s told %s", letter.event.id, loggable_host(letter.webhook.url))
    return True


def _post_message(settings: Settings, letter: OutboxMessage, at: datetime) -> None:
    check_host(letter.webhook.url, settings)
    body, sent = letter.event.body(), int(at.timestamp())
    secrets = read_secrets(settings.webhook_secrets_file, letter.webhook.secret)
    headers = {
        "content-type": "application/json",
        "user-agent": "latentmill",
        "webhook-id": letter.event.id,
        "webhook-timestamp": str(sent),
        "webhook-signature": signature(secrets, letter.event.id, sent, body),
    }
    post(letter.webhook.url, headers, body)


def _record_failure(
    root: Store, letter: OutboxMessage, etag: str, at: datetime, why: DeliveryFailed | SettingsError
) -> None:
    where, told = loggable_host(letter.webhook.url), letter.event.id
    if (isinstance(why, DeliveryFailed) and why.gone) or at - letter.event.at > GIVE_UP_AFTER:
        log.error("%s is given up after %d attempt(s): %s: %s", told, letter.attempts + 1, where, why)
        root.delete(letter.key)
        return
    log.warning("%s was not taken (attempt %d): %s: %s", told, letter.attempts + 1, where, why)
    postpone(root, letter, etag, at, retry_delay(letter.attempts), str(why))


@final
class DeliveryThread:
    """A thread that delivers until it is stopped; any number may run, in any number of processes.

    ``wake`` makes it look at once. Whatever goes wrong is logged, and does not end it.
    """

    def __init__(self, root: Store, settings: Settings, *, poll_seconds: float = _POLL_SECONDS) -> None:
        self._root, self._settings, self._poll_seconds = root, settings, poll_seconds
        self._woken, self._stopped, self._due_cache = threading.Event(), threading.Event(), DueCache()
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """There is something to deliver."""
        self._woken.set()

    def stop(self) -> None:
        """End after the message that is being sent; waits for it no longer than that takes."""
        self._stopped.set()
        self._woken.set()
        self._thread.join(2 * TOTAL_TIMEOUT)

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._woken.clear()
            try:
                deliver(self._root, self._settings, known=self._due_cache)
            except LatentmillError as failed:
                log.warning("messages wait: %s", failed)
            except Exception:
                log.exception("messages wait")
            self._woken.wait(self._poll_seconds)

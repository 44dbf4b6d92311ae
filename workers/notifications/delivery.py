"""Delivery: signs and sends the messages that are due, and retries failed ones with back-off, in a thread."""

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
    """Log ``event``, and enqueue a message for each webhook that receives its kind.

    Nothing is sent here, so no receiver can delay a run. Repeated calls have no effect while the message waits; after
    its delivery, the event is sent again with the same id. Raises ``StoreError``: then call again.
    """
    log.log(logging.INFO if event.kind == "succeeded" else logging.WARNING, "%s", event.sentence)
    for webhook in notifications.webhooks:
        if event.kind in webhook.events:
            enqueue(root, OutboxMessage(event=event, webhook=webhook, due=event.at))


def deliver(root: Store, settings: Settings, *, now: datetime | None = None, cache: DueCache | None = None) -> int:
    """Try to send each message that is due once, at most 200 of them; return the number of successes.

    After a failure, further messages to the same URL are left for the next round. ``cache``, kept from one round to the
    next, saves reading messages that are not due. Raises ``StoreError``.
    """
    tried, sent, failed_urls = 0, 0, set[str]()
    for message, etag in due_messages(root, now or datetime.now(UTC), {} if cache is None else cache):
        if message.webhook.url in failed_urls:
            continue
        if _try_send(root, settings, message, etag, now):
            sent += 1
        else:
            failed_urls.add(message.webhook.url)
        if (tried := tried + 1) == _MAX_PER_ROUND:
            break
    return sent


def retry_delay(attempts: int) -> timedelta:
    """The delay after so many attempts: exponential back-off with full jitter, so that retries do not coincide.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    return timedelta(seconds=random.uniform(0.0, min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(attempts, 20))))


def _try_send(root: Store, settings: Settings, message: OutboxMessage, etag: str, now: datetime | None) -> bool:
    at = now or datetime.now(UTC)
    reserved_etag = reserve(root, message, etag, at + _RESERVATION)
    if reserved_etag is None:  # another process sends it
        return True
    try:
        _post_message(settings, message, at)
    except (DeliveryFailed, SettingsError) as failure:
        _record_failure(root, message, reserved_etag, at, failure)
        return False
    root.delete(message.key)
    log.info("%s delivered to %s", message.event.id, loggable_host(message.webhook.url))
    return True


def _post_message(settings: Settings, message: OutboxMessage, at: datetime) -> None:
    check_host(message.webhook.url, settings)
    body, timestamp = message.event.body(), int(at.timestamp())
    secrets = read_secrets(settings.webhook_secrets_file, message.webhook.secret)
    headers = {
        "content-type": "application/json",
        "user-agent": "latentmill",
        "webhook-id": message.event.id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(secrets, message.event.id, timestamp, body),
    }
    post(message.webhook.url, headers, body)


def _record_failure(
    root: Store, message: OutboxMessage, etag: str, at: datetime, failure: DeliveryFailed | SettingsError
) -> None:
    host, event_id, attempt = loggable_host(message.webhook.url), message.event.id, message.attempts + 1
    if (isinstance(failure, DeliveryFailed) and failure.gone) or at - message.event.at > GIVE_UP_AFTER:
        log.error("%s is given up after %d attempt(s): %s: %s", event_id, attempt, host, failure)
        root.delete(message.key)
        return
    log.warning("%s was not delivered (attempt %d): %s: %s", event_id, attempt, host, failure)
    postpone(root, message, etag, at, retry_delay(message.attempts), str(failure))


@final
class DeliveryThread:
    """A thread that delivers messages until it is stopped; any number may run, in any number of processes.

    ``wake`` starts a round at once. Errors are logged and do not stop the thread.
    """

    def __init__(self, root: Store, settings: Settings, *, poll_seconds: float = _POLL_SECONDS) -> None:
        self._root, self._settings, self._poll_seconds = root, settings, poll_seconds
        self._woken, self._stopped, self._due_cache = threading.Event(), threading.Event(), DueCache()
        self._thread = threading.Thread(target=self._run, name="delivery", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Start a round now, as a new message may be due."""
        self._woken.set()

    def stop(self) -> None:
        """Stop after the present message; wait for it at most ``2 * TOTAL_TIMEOUT`` seconds."""
        self._stopped.set()
        self._woken.set()
        self._thread.join(2 * TOTAL_TIMEOUT)

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._woken.clear()
            try:
                deliver(self._root, self._settings, cache=self._due_cache)
            except LatentmillError as error:
                log.warning("delivery failed; trying again: %s", error)
            except Exception:
                log.exception("delivery failed; trying again")
            self._woken.wait(self._poll_seconds)

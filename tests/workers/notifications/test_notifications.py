"""Webhooks to real receivers: signatures, retries with one id, bounded cost of hostile receivers, allowed hosts."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from generator.errors import SettingsError
from generator.store import Store, open_store
from tests.support.faulty_store import FaultyStore
from tests.support.tls import tls_proxy
from tests.support.webhook_receivers import (
    Behaviour,
    Receiver,
    answer_endlessly,
    answer_slowly,
    answer_with,
    never_answer,
)
from workers.notifications import DeliveryThread, Event, Notifications, Webhook, deliver, notify
from workers.notifications.delivery import GIVE_UP_AFTER, LONGEST_DELAY, retry_delay
from workers.notifications.outbox import FOLDER, DueCache, OutboxMessage
from workers.notifications.signatures import read_secrets
from workers.notifications.webhook import DeliveryFailed, post
from workers.settings import Settings

NOW = datetime(2026, 7, 1, 6, 0, tzinfo=UTC)
SECRET = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
OK = answer_with(204)


@pytest.fixture
def root() -> Store:
    return open_store(f"memory://messages-{uuid.uuid4().hex}/root")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "secrets.yaml").write_text(f"ops: whsec_{SECRET}\n")
    return Settings(root="memory://x", webhook_secrets_file=tmp_path / "secrets.yaml")


@pytest.fixture
def receive() -> Iterator[Callable[[Behaviour], Receiver]]:
    """A function that starts receivers; they are stopped after the test."""
    started = list[Receiver]()

    def start(behave: Behaviour) -> Receiver:
        started.append(Receiver(behave))
        return started[-1]

    yield start
    for receiver in started:
        receiver.stop()


def event(**fields: object) -> Event:
    defaults = {
        "kind": "refused",
        "run": "nightly/2026-07-01T04:00Z/1",
        "schedule": "nightly",
        "logical_date": NOW - timedelta(hours=2),
        "at": NOW,
        "words": "drift: 0.41 unlike the last promoted build",
    }
    return Event.model_validate(defaults | fields)


def hooks(*urls: str, **fields: object) -> Notifications:
    return Notifications(webhooks=tuple(Webhook.model_validate({"url": u, "secret": "ops"} | fields) for u in urls))


def waiting(root: Store) -> list[OutboxMessage]:
    return [OutboxMessage.model_validate_json(root.get(info.key)) for info in root.list(FOLDER)]


def test_a_receiver_can_verify_what_it_got(root: Store, settings: Settings, receive: Callable[..., Receiver]) -> None:
    receiver = receive(OK)
    notify(root, hooks(receiver.url), event())
    assert deliver(root, settings, now=NOW) == 1
    (got,) = receiver.requests
    assert got.line.startswith("POST /hook?token=very-secret-token ")
    signed = b".".join((got.headers["webhook-id"].encode(), got.headers["webhook-timestamp"].encode(), got.body))
    expected = base64.b64encode(hmac.digest(base64.b64decode(SECRET), signed, hashlib.sha256)).decode()
    assert got.headers["webhook-signature"] == f"v1,{expected}"
    assert int(got.headers["webhook-timestamp"]) == int(NOW.timestamp())
    message = json.loads(got.body)
    assert message["type"] == "run.refused"
    assert message["data"]["run"] == "nightly/2026-07-01T04:00Z/1"
    assert "kept back" in message["text"]
    assert waiting(root) == []


def test_a_receiver_that_fails_is_tried_again_with_the_same_id(
    root: Store, settings: Settings, receive: Callable[..., Receiver]
) -> None:
    receiver = receive(answer_with(500))
    notify(root, hooks(receiver.url), event())
    now = NOW
    for attempt in range(1, 5):
        assert deliver(root, settings, now=now) == 0
        (message,) = waiting(root)
        assert message.attempts == attempt
        assert "HTTP 500" in message.last_error
        assert now <= message.due <= now + timedelta(seconds=LONGEST_DELAY)
        assert deliver(root, settings, now=message.due - timedelta(microseconds=1)) == 0
        assert len(receiver.requests) == attempt
        now = message.due
    receiver.behave = OK
    assert deliver(root, settings, now=now) == 1
    assert len({got.headers["webhook-id"] for got in receiver.requests}) == 1
    assert len({got.body for got in receiver.requests}) == 1
    assert waiting(root) == []


def test_repeated_notifications_leave_one_message_for_each_event(root: Store) -> None:
    for _ in range(3):
        notify(root, hooks("https://example.org/a"), event())
    notify(root, hooks("https://example.org/a"), event(kind="at_risk"))
    notify(root, hooks("https://example.org/a", events=["succeeded"]), event(kind="failed"))
    assert sorted(message.event.kind for message in waiting(root)) == ["at_risk", "refused"]
    assert len({message.event.id for message in waiting(root)}) == 2


def test_back_off_grows_and_is_jittered() -> None:
    for attempts in (0, 3, 9, 50, 10_000):
        delays = {retry_delay(attempts).total_seconds() for _ in range(200)}
        ceiling = min(LONGEST_DELAY, 10.0 * 2 ** min(attempts, 20))
        assert max(delays) <= ceiling
        assert max(delays) > ceiling / 2
        assert min(delays) < ceiling / 2


def test_a_message_that_was_reserved_and_not_delivered_is_delivered_by_another_process(
    root: Store, settings: Settings, receive: Callable[..., Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first process dies after it reserved the message; whether it was sent is unknown."""
    receiver = receive(OK)
    notify(root, hooks(receiver.url), event())
    with monkeypatch.context() as patch:
        patch.setattr("workers.notifications.delivery.post", _killed)
        with pytest.raises(KeyboardInterrupt):
            deliver(root, settings, now=NOW)
    assert deliver(root, settings, now=NOW) == 0  # reserved
    assert deliver(root, settings, now=NOW + timedelta(minutes=2)) == 1
    assert len(receiver.requests) == 1


def _killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_concurrent_deliveries_send_each_message_once(
    root: Store, settings: Settings, receive: Callable[..., Receiver]
) -> None:
    receiver = receive(OK)
    for night in range(10):
        notify(root, hooks(receiver.url), event(run=f"nightly/{night}"))
    threads = [threading.Thread(target=deliver, args=(root, settings), kwargs={"now": NOW}) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(json.loads(got.body)["data"]["run"] for got in receiver.requests) == [
        f"nightly/{n}" for n in range(10)
    ]


HOSTILE: dict[str, Behaviour] = {
    "hangs up": lambda connection: connection.close(),
    "speaks something else": lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n\r\n"),
    "is silent": never_answer,
    "answers endless headers": answer_endlessly(b"HTTP/1.1 200 OK\r\n", b"x-filler: " + b"y" * 1000 + b"\r\n"),
    "answers a header line without end": answer_endlessly(b"HTTP/1.1 200 OK\r\nx: ", b"y" * 4096),
    "dribbles": answer_slowly(b"H"),
    "says continue for ever": answer_slowly(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "refuses": answer_with(403),
    "redirects": answer_with(307, "location: http://127.0.0.1:9/internal"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_receiver_costs_an_attempt_and_nothing_else(name: str, receive: Callable[..., Receiver]) -> None:
    receiver = receive(HOSTILE[name])
    with pytest.raises(DeliveryFailed):
        post(receiver.url, {"content-type": "application/json"}, b"{}", total_timeout=1.0)


def test_an_endless_body_is_not_read(receive: Callable[..., Receiver]) -> None:
    behave, left = (
        answer_endlessly(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"5\r\nxxxxx\r\n"),
        threading.Event(),
    )

    def until_left(connection: socket.socket) -> None:
        with suppress(OSError):
            behave(connection)
        left.set()

    receiver = receive(until_left)
    post(receiver.url, {}, b"{}", total_timeout=20.0)
    assert left.wait(20.0)
    assert len(receiver.requests) == 1


def test_a_redirect_is_not_followed(root: Store, settings: Settings, receive: Callable[..., Receiver]) -> None:
    elsewhere = receive(OK)
    receiver = receive(answer_with(302, f"location: {elsewhere.url}"))
    notify(root, hooks(receiver.url), event())
    assert deliver(root, settings, now=NOW) == 0
    assert "redirect" in waiting(root)[0].last_error
    assert elsewhere.requests == []


def test_a_receiver_that_is_gone_is_left_alone(
    root: Store, settings: Settings, receive: Callable[..., Receiver], caplog: pytest.LogCaptureFixture
) -> None:
    receiver, tired = receive(answer_with(410)), receive(answer_with(503))
    notify(root, hooks(receiver.url), event())
    notify(root, hooks(tired.url), event(run="old", at=NOW - GIVE_UP_AFTER - timedelta(seconds=1)))
    deliver(root, settings, now=NOW)
    assert waiting(root) == []
    assert caplog.text.count("given up") == 2


def test_one_bad_receiver_does_not_keep_the_others_waiting(
    root: Store, settings: Settings, receive: Callable[..., Receiver]
) -> None:
    bad, good = receive(answer_with(500)), receive(OK)
    for night in range(5):
        notify(root, hooks(bad.url, good.url), event(run=f"nightly/{night}"))
    assert deliver(root, settings, now=NOW) == 5
    assert len(bad.requests) == 1  # once a round
    assert {message.webhook.url for message in waiting(root)} == {bad.url}


def test_what_is_not_due_is_not_read_again_and_again(
    root: Store, settings: Settings, receive: Callable[..., Receiver]
) -> None:
    receiver = receive(answer_with(500))
    counted = FaultyStore(root)
    for night in range(20):
        notify(counted, hooks(receiver.url), event(run=f"nightly/{night}", at=NOW + timedelta(hours=1)))
    cache: DueCache = {}
    for minute in range(5):
        assert deliver(counted, settings, now=NOW + timedelta(minutes=minute), cache=cache) == 0
    assert counted.gets == 20
    receiver.behave = OK
    assert deliver(counted, settings, now=NOW + timedelta(hours=2), cache=cache) == 20
    assert deliver(counted, settings, now=NOW + timedelta(hours=2), cache=cache) == 0
    assert cache == {}


def test_a_certificate_that_nobody_signed_gets_nothing(
    receive: Callable[..., Receiver], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = receive(OK)
    with tls_proxy(receiver, tmp_path) as port:  # type: ignore[arg-type]
        with pytest.raises(DeliveryFailed, match="certificate"):
            post(f"https://127.0.0.1:{port}/hook", {}, b"{}")
        assert receiver.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        post(f"https://127.0.0.1:{port}/hook", {}, b"{}")
    assert len(receiver.requests) == 1


def test_a_host_that_is_allowed_no_more_is_not_called(
    root: Store, settings: Settings, receive: Callable[..., Receiver]
) -> None:
    receiver = receive(OK)
    notify(root, hooks(receiver.url), event())
    narrowed = settings.model_copy(update={"allowed_webhooks": "hooks.example.org"})
    assert deliver(root, narrowed, now=NOW) == 0
    assert receiver.requests == []
    assert len(waiting(root)) == 1


@pytest.mark.parametrize(
    "content",
    [None, "", "- a", "ops: plain-text-secret", "ops: whsec_AAAA", "other: whsec_x", "ops: []", "ops: {a: b}", "a: 'x"],
)
def test_a_secret_that_is_none_is_named_and_never_shown(
    root: Store, receive: Callable[..., Receiver], tmp_path: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "secrets.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError, match="WEBHOOK_SECRETS_FILE") as wrong:
        read_secrets(path, "ops")
    assert "plain-text" not in str(wrong.value)
    receiver = receive(OK)
    notify(root, hooks(receiver.url), event())
    assert deliver(root, Settings(root="memory://x", webhook_secrets_file=path), now=NOW) == 0
    assert (receiver.requests, len(waiting(root))) == ([], 1)  # nothing goes out unsigned, and nothing is lost
    assert "plain-text" not in caplog.text


def test_logs_tell_the_event_and_no_secret(
    root: Store, settings: Settings, receive: Callable[..., Receiver], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    receiver = receive(OK)
    notify(root, Notifications(), event())
    assert "nightly of 2026-07-01 04:00 UTC was kept back by its gates: drift" in caplog.text
    notify(root, hooks(receiver.url), event())
    receiver.behave = answer_with(500)
    deliver(root, settings, now=NOW)
    receiver.behave = OK
    assert deliver(root, settings, now=waiting(root)[0].due) == 1
    assert f"127.0.0.1:{receiver.port}" in caplog.text
    assert "very-secret-token" not in caplog.text
    assert SECRET not in caplog.text


def test_a_delivery_thread_delivers_until_it_is_stopped(
    root: Store, settings: Settings, receive: Callable[..., Receiver]
) -> None:
    receiver, arrived = receive(OK), threading.Event()
    root.put(f"{FOLDER}odd.json", b"not a message")

    def behave(connection: object) -> None:
        OK(connection)  # type: ignore[arg-type]
        arrived.set()

    receiver.behave = behave
    delivery = DeliveryThread(root, settings)
    delivery.start()
    notify(root, hooks(receiver.url), event(at=datetime.now(UTC)))
    delivery.wake()
    assert arrived.wait(60)
    delivery.stop()
    assert [info.key for info in root.list(FOLDER)] == [f"{FOLDER}odd.json"]

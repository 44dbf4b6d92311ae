"""kombu's Redis transport with two fixes: a silent or full Redis must not stop a worker."""

from __future__ import annotations

from typing import Any, final

from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.transport import redis as base
from redis.exceptions import ResponseError


@final
class QoS(base.QoS):
    """Frees the slot of a ticket even if its acknowledgement to Redis fails.

    kombu would count such a message as held for ever. A worker holds at most as many messages as it has slots, so one
    lost acknowledgement for each slot would stop it, though it looks alive. The ticket stays among Redis's
    unacknowledged ones and is delivered again after the visibility timeout, which is harmless (design, law 4).
    """

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]
        except Exception:
            virtual.QoS.ack(self, delivery_tag)  # type: ignore[no-untyped-call]
            raise

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        try:
            super().reject(delivery_tag, requeue=requeue)  # type: ignore[no-untyped-call]
        except Exception:
            virtual.QoS.ack(self, delivery_tag)  # type: ignore[no-untyped-call]
            raise


@final
class Channel(base.Channel):
    QoS: Any = QoS


@final
class SentinelChannel(base.SentinelChannel):
    QoS: Any = QoS


@final
class Transport(base.Transport):
    """Handles an error reply (Redis is full or read-only) like a lost connection: reconnect until it works.

    Celery would end the whole worker at a server error that it does not know to be temporary.
    """

    Channel: Any = Channel

    connection_errors: Any = (*base.Transport.connection_errors, ResponseError)


@final
class SentinelTransport(base.SentinelTransport):
    """The same, for a master that Sentinels know."""

    Channel: Any = SentinelChannel

    connection_errors: Any = Transport.connection_errors


def install() -> None:
    """Use these transports for all URLs of Redis in this process."""
    TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), f"{__name__}:Transport"))
    TRANSPORT_ALIASES.update(sentinel=f"{__name__}:SentinelTransport")

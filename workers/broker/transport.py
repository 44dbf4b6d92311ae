"""kombu's Redis transport, with two defects mended: no Redis that is silent, or full, takes a worker with it."""

from __future__ import annotations

from typing import Any, final

from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.transport import redis as base
from redis.exceptions import ResponseError


@final
class QoS(base.QoS):
    """Forgets a ticket also when Redis does not answer its acknowledgement.

    kombu counts such a message as held for ever. A worker takes no more than it has slots, so one silence of Redis for
    each slot leaves it deaf, and alive by every other sign. The ticket stays among Redis's unacknowledged ones and
    comes again after the visibility timeout, which is harmless (design, law 4).
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
class Transport(base.Transport):
    """Takes a refusal (Redis is full, or may not write) for a lost connection, which is made again until it works.

    Celery ends the whole worker at an error of the server that it does not know to be passing.
    """

    Channel: Any = Channel

    connection_errors: Any = (*base.Transport.connection_errors, ResponseError)


def install() -> None:
    """From now on URLs of Redis, plain and over TLS, mean this transport in this process."""
    TRANSPORT_ALIASES.update(redis=f"{__name__}:Transport", rediss=f"{__name__}:Transport")

"""Queries: small questions that a worker answers at once, through Redis. Nothing of them is stored anywhere else.

Below the prefix of the pool, ``queries`` is a list of questions, ``answer:<id>`` the answer to one, for a minute. A
question that nobody has taken when its asker gave up is dropped; with Redis both are lost, and the asker asks again.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from typing import Any, NamedTuple, final

from generator.errors import QuotaExceeded, WorkerUnavailable
from workers.broker.address import RedisAddress
from workers.broker.connection import broker_errors, connect

MAX_QUESTION_BYTES = 24 * 2**20
MAX_ANSWER_BYTES = 32 * 2**20
MAX_WAITING = 100
_QUESTIONS, _ANSWER = "queries", "answer:"
_ANSWER_SECONDS = 60
_POLL_SECONDS = 1.0

# What somebody else may have put into the list is read up to the limit of a question and no further.
_TAKE = """
local entry = redis.call('LPOP', KEYS[1])
while entry and #entry > tonumber(ARGV[1]) do entry = redis.call('LPOP', KEYS[1]) end
return entry
"""
_ASK = """
if redis.call('LLEN', KEYS[1]) >= tonumber(ARGV[1]) then return 0 end
redis.call('RPUSH', KEYS[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], 600)
return 1
"""


class Question(NamedTuple):
    """A question that was taken: where its answer goes, and its document."""

    id: str
    document: Any


@final
class Queries:
    """The questions and answers of one pool in Redis. Every method raises ``BrokerUnavailable`` when Redis does not
    answer; ``prefix`` is as for the ledger."""

    def __init__(self, address: RedisAddress, prefix: Callable[[], str], timeout: float = 10.0) -> None:
        self._address, self._prefix = address, prefix
        self._redis: Any = connect(address, timeout)
        self._take, self._ask = self._redis.register_script(_TAKE), self._redis.register_script(_ASK)

    def ask(self, document: Any, seconds: float) -> str:
        """Add a question, to be answered within ``seconds``; returns its id. Raises ``QuotaExceeded``."""
        query_id = secrets.token_hex(16)
        entry = json.dumps({"id": query_id, "until": time.time() + seconds, "document": document})
        if len(entry) > MAX_QUESTION_BYTES:
            raise QuotaExceeded("query", f"a question of at most {MAX_QUESTION_BYTES} bytes", f"{len(entry)} bytes")
        with broker_errors(self._address):
            added = self._ask(keys=[self._prefix() + _QUESTIONS], args=[MAX_WAITING, entry])
        if not added:
            raise QuotaExceeded("queries", f"at most {MAX_WAITING} waiting queries", "more", "try again in a moment")
        return query_id

    def take(self) -> Question | None:
        """The next question that somebody still waits for; ``None`` if there is none."""
        while True:
            with broker_errors(self._address):
                entry = self._take(keys=[self._prefix() + _QUESTIONS], args=[MAX_QUESTION_BYTES])
            if entry is None:
                return None
            if (question := _parse(entry)) is not None:
                return question

    def answer(self, question: Question, document: Any) -> None:
        """Give the answer to a question; it is kept for a minute."""
        key = self._prefix() + _ANSWER + question.id
        with broker_errors(self._address), self._redis.pipeline(transaction=True) as pipe:
            pipe.rpush(key, json.dumps(document))
            pipe.expire(key, _ANSWER_SECONDS)
            pipe.execute()

    def take_answer(self, query_id: str) -> Any | None:
        """The answer to a question if there is one now; it is given once. ``None`` if there is none."""
        with broker_errors(self._address):
            found = self._redis.lpop(self._prefix() + _ANSWER + query_id)
        return None if found is None else json.loads(found)

    def wait(self, query_id: str, seconds: float) -> Any:
        """The answer to a question. Raises ``WorkerUnavailable`` if there is none after ``seconds``."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            with broker_errors(self._address):
                found = self._redis.blpop(
                    [self._prefix() + _ANSWER + query_id], timeout=max(0.01, min(_POLL_SECONDS, left))
                )
            if found is not None:
                return json.loads(found[1])
        raise WorkerUnavailable(
            "worker",
            f"a worker that answers within {seconds:.0f} s",
            "none",
            "start a worker, or wait until one has finished its shard",
        )


def _parse(entry: str) -> Question | None:
    """The question of an entry; ``None`` if its asker has given up, or if it is no question of ours."""
    try:
        fields = json.loads(entry)
        query_id, until = str(fields["id"]), float(fields["until"])
        document = fields["document"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return Question(query_id, document) if len(query_id) == 32 and until > time.time() else None

"""Queries: questions and answers through Redis."""

from __future__ import annotations

import json
import threading
import time

import pytest
import redis as redis_py

from generator.errors import BrokerUnavailable, QuotaExceeded, WorkerUnavailable
from tests.support.servers import KEY_PREFIX, RedisServer
from workers.broker.address import parse_address
from workers.ledger import queries as module
from workers.ledger.queries import MAX_WAITING, Queries


@pytest.fixture
def both(server: RedisServer) -> tuple[Queries, Queries]:
    redis_py.Redis.from_url(server.url).flushall()
    return Queries(server.address, lambda: KEY_PREFIX), Queries(server.address, lambda: KEY_PREFIX)


def test_an_answer_reaches_the_one_who_asked(both: tuple[Queries, Queries]) -> None:
    asking, answering = both
    ids = [asking.ask({"number": number}, 30.0) for number in range(3)]

    def answer() -> None:
        while (question := answering.take()) is not None:
            answering.answer(question, {"twice": 2 * question.document["number"]})

    thread = threading.Thread(target=answer)
    thread.start()
    assert [asking.wait(query, 30.0) for query in reversed(ids)] == [{"twice": 4}, {"twice": 2}, {"twice": 0}]
    thread.join()
    assert answering.take() is None


def test_without_an_answer_the_asker_gives_up_and_the_question_is_dropped(both: tuple[Queries, Queries]) -> None:
    asking, answering = both
    query = asking.ask({}, 0.2)
    with pytest.raises(WorkerUnavailable, match="worker"):
        asking.wait(query, 0.2)
    assert answering.take() is None


def test_the_number_of_waiting_questions_is_limited(both: tuple[Queries, Queries]) -> None:
    asking, _ = both
    for _ in range(MAX_WAITING):
        asking.ask({}, 60.0)
    with pytest.raises(QuotaExceeded, match="queries"):
        asking.ask({}, 60.0)


def test_a_large_question_is_refused(both: tuple[Queries, Queries], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_QUESTION_BYTES", 1000)
    with pytest.raises(QuotaExceeded, match="query"):
        both[0].ask({"text": "x" * 1000}, 60.0)


@pytest.mark.parametrize(
    "entry", ["", "{", "[]", "null", "{}", '{"id": 5, "until": "x", "document": 1}', "x" * 30_000_000, "[" * 100_000]
)
def test_what_is_no_question_is_dropped(server: RedisServer, both: tuple[Queries, Queries], entry: str) -> None:
    asking, answering = both
    redis_py.Redis.from_url(server.url).rpush(KEY_PREFIX + "queries", entry)
    asking.ask({"real": True}, 60.0)
    question = answering.take()
    assert question is not None
    assert question.document == {"real": True}


def test_answers_are_kept_for_a_minute_only(server: RedisServer, both: tuple[Queries, Queries]) -> None:
    asking, answering = both
    asking.ask({}, 60.0)
    question = answering.take()
    assert question is not None
    answering.answer(question, {})
    client = redis_py.Redis.from_url(server.url)
    assert 0 < client.ttl(f"{KEY_PREFIX}answer:{question.id}") <= 60  # type: ignore[operator]


def test_a_forged_id_names_no_other_key(server: RedisServer, both: tuple[Queries, Queries]) -> None:
    entry = json.dumps({"id": "../jobs", "until": time.time() + 60, "document": {}})
    redis_py.Redis.from_url(server.url).rpush(KEY_PREFIX + "queries", entry)
    assert both[1].take() is None


def test_without_redis_each_call_says_so() -> None:
    queries = Queries(parse_address("redis://127.0.0.1:1/0"), lambda: KEY_PREFIX, 1.0)
    with pytest.raises(BrokerUnavailable):
        queries.ask({}, 1.0)
    with pytest.raises(BrokerUnavailable):
        queries.take()

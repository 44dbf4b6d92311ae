"""OpenLineage events: documents of the right form, and transports that stop nothing."""

from __future__ import annotations

import json
import logging
import socket
import uuid
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import jsonschema
import pytest

from generator.curation.gates import Check, Gates, Verdict
from tests.support.webhook_receivers import Receiver
from workers.openlineage import RunFacts, event_document, send

DATE, AT = datetime(2026, 3, 1, 3, 30, tzinfo=timezone(timedelta(hours=1))), datetime(2026, 3, 1, 4, tzinfo=UTC)
RUN = RunFacts("root#20260301.1/nightly", "nightly", DATE, "s3://data/sets/cats", "sha256:r", "sha256:b", "file:///r/b")
VERDICT = Verdict(
    dataset="s3://data/sets/cats",
    build="0" * 20,
    logical_date=DATE,
    against=None,
    holds=False,
    reasons=("drift: too much",),
    checks=(Check(gate="counts", holds=True, words="60"), Check(gate="drift", holds=False, words="too much")),
    looked_at=60,
    gates=Gates(),
    judged=AT,
)
FACET = {"type": "object", "required": ["_producer", "_schemaURL"]}
FACETS = {"type": "object", "additionalProperties": FACET}
DATASETS = {
    "type": "array",
    "items": {"type": "object", "required": ["namespace", "name"], "properties": {"facets": FACETS}},
}
SCHEMA = {  # what OpenLineage 2-0-2 requires of a RunEvent
    "type": "object",
    "required": ["eventTime", "producer", "schemaURL", "run", "job"],
    "properties": {
        "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
        "run": {"type": "object", "required": ["runId"], "properties": {"facets": FACETS}},
        "job": {"type": "object", "required": ["namespace", "name"]},
        "inputs": DATASETS,
        "outputs": DATASETS,
    },
}


def test_the_events_of_a_run() -> None:
    start = event_document("START", RUN, AT)
    end = event_document("COMPLETE", RUN, AT, verdict=VERDICT, promotion="refused", reason="drift: too much")
    for event in (start, end):
        jsonschema.validate(event, SCHEMA)
        assert event["run"]["runId"] == str(uuid.UUID(start["run"]["runId"]))
        assert event["run"]["facets"]["nominalTime"]["nominalStartTime"] == "2026-03-01T02:30:00.000+00:00"
    (bundle,), (build,) = end["inputs"], end["outputs"]
    assert (bundle["namespace"], bundle["name"]) == ("file", "/r/b")
    assert (build["namespace"], build["name"]) == ("s3://data", "sets/cats")
    assert bundle["facets"]["version"]["datasetVersion"] == "sha256:b"
    assert build["facets"]["version"]["datasetVersion"] == "sha256:r"
    gates, promotion = build["facets"]["latentmill_gates"], build["facets"]["latentmill_promotion"]
    assert (gates["holds"], gates["checks"][1]) == (False, {"gate": "drift", "holds": False, "words": "too much"})
    assert (promotion["state"], promotion["reason"]) == ("refused", "drift: too much")
    assert set(start["outputs"][0]["facets"]) == {"version"}


def test_a_run_without_a_job_fails_with_its_reason() -> None:
    event = event_document("FAIL", RunFacts("n", "nightly", DATE), AT, reason="no bundle")
    jsonschema.validate(event, SCHEMA)
    assert (event["inputs"], event["outputs"]) == ([], [])
    assert event["run"]["facets"]["errorMessage"]["message"] == "no bundle"
    again = event_document("FAIL", RunFacts("another", "nightly", DATE), AT)
    assert again["run"]["runId"] != event["run"]["runId"]


def test_a_file_gets_a_line_for_each_event(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    events = [event_document("START", RUN, AT), event_document("COMPLETE", RUN, AT)]
    assert all(send(str(tmp_path / "events"), event) for event in events)
    assert [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()] == events
    with caplog.at_level(logging.WARNING):
        assert not send(str(tmp_path / "none" / "events"), events[0])
    assert "did not reach" in caplog.text
    assert not send(None, events[0])


@pytest.mark.parametrize(("answer", "accepted"), [("201 Created", True), ("500 Oh", False), ("307 Elsewhere", False)])
def test_http_is_tried_once(answer: str, accepted: bool, caplog: pytest.LogCaptureFixture) -> None:
    def behave(connection: socket.socket) -> None:
        connection.sendall(f"HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n".encode())

    receiver, event = Receiver(behave), event_document("START", RUN, AT)
    try:
        assert send(receiver.url, event) is accepted
    finally:
        receiver.stop()
    (request,) = receiver.requests
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.body) == event
    assert "very-secret-token" not in caplog.text
    assert not send(receiver.url, event)  # nobody listens

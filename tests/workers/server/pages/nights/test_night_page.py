"""The page of a schedule: why a night was refused, its calendar, its charts, both builds side by side, its forms."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html import unescape
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from generator.datasets.promotion import DatasetState, pin, read_state, rollback
from generator.store import open_store
from tests.support.mill_server import MillServer, page, send, show
from tests.support.night_scene import NightScene, last_dates
from tests.support.running_command import until
from workers.schedules.cron import date_key
from workers.schedules.runs import Run, create_run, update_run

EVIL = "<script>alert(1)</script>"
DATES = last_dates(4)


@pytest.fixture(scope="module")
def nights(mill: MillServer) -> NightScene:
    """Three nights that were promoted, and a last one that the gate of images refused."""
    scene = NightScene(mill, "picky")
    for number, date in enumerate(DATES):
        scene.declare(images=20 if number < len(DATES) - 1 else 5000)
        assert scene.night(date).state == ("promoted" if number < len(DATES) - 1 else "refused")
    return scene


@pytest.fixture
def last(nights: NightScene) -> Run:
    return nights.run(DATES[-1])


@pytest.fixture
def dataset(mill: MillServer, nights: NightScene) -> Iterator[Any]:
    """The dataset of the nights, in the same state after the test as before."""
    from generator.datasets.promotion.state import update_state

    store = open_store(f"{mill.service.home}/places/red/picky")
    before = read_state(store)
    yield store
    update_state(store, lambda _: before or DatasetState())


class Markup(HTMLParser):
    """The ids of a page, its links, and everything that a strict policy would block."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids, self.links, self.wrong = list[str](), list[str](), list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.links += [found["href"] or ""] if tag == "a" else []
        self.wrong += [f"{tag} {name}" for name in found if name.startswith("on") or name == "style"]
        if tag == "script" and not (found.get("src") or "").startswith("/static/"):
            self.wrong.append("inline script")


def part(text: str, begin: str, end: str) -> str:
    assert begin in text
    return text.partition(begin)[2].partition(end)[0]


def run_of(text: str, run: Run) -> str:
    return part(text, f'id="run-{date_key(run.date)}"', "</section>")


def test_the_page_says_at_once_why_the_last_night_was_refused(mill: MillServer, nights: NightScene) -> None:
    notice = part(show(mill, "/nights/picky"), '<p class="last-run notice">', "</p>")
    assert f"for {DATES[-1]:%Y-%m-%d} 04:00, was refused. The gate images asks for at least 5,000 images" in notice
    assert "promote it nevertheless, or change its gates and run it again" in notice
    assert f'href="#run-{date_key(DATES[-1])}"' in notice
    notice = part(show(mill, "/nights/picky", "red-reader"), '<p class="last-run notice">', "</p>")
    assert "promote" not in notice


def test_a_refusal_leads_to_the_comparison_with_the_build_that_readers_get(
    mill: MillServer, nights: NightScene, last: Run
) -> None:
    current = nights.run(DATES[-2])
    assert last.spec
    assert current.spec
    refusal = part(run_of(show(mill, "/nights/picky", "red-reader"), last), '<div class="notice">', "</div>")
    address = unescape(part(refusal, 'href="', '"'))
    assert address == f"/datasets/red/picky/compare?first={current.spec.build_id}&second={last.spec.build_id}"
    until(lambda: "This page follows by itself" not in show(mill, address, "red-reader"))  # it reads the tables first
    assert last.spec.build_id in show(mill, address, "red-reader")


def test_images_of_both_builds_are_shown_beside_each_other(mill: MillServer, nights: NightScene, last: Run) -> None:
    shown = run_of(show(mill, "/nights/picky"), last)
    address = unescape(part(shown, 'hx-get="', '"'))
    beside = show(mill, address, "red-reader")
    first, second = beside.split("</section>")[:2]
    assert "What readers get" in first
    assert "Refused" in second
    assert first.count("data:image/png;base64,") == second.count("data:image/png;base64,") == 8
    assert page(mill, address, "blue-operator").status == 404
    assert page(mill, f"/nights/picky/beside?date={date_key(DATES[-2])}").status == 404  # readers get it
    assert page(mill, "/nights/picky/beside?date=20200101T000000Z").status == 404
    for date in ("", "../../x", "20260101T000000Z" * 9, "99999999T999999Z"):
        assert page(mill, f"/nights/picky/beside?date={quote(date)}").status == 422


def test_images_are_said_to_be_unreadable_where_they_are(mill: MillServer, nights: NightScene, last: Run) -> None:
    table = next(info for info in open_store(last.url).list("samples/"))
    data = open_store(last.url).get(table.key)
    open_store(last.url).put(table.key, data[:-1] + bytes([data[-1] ^ 1]))
    try:
        beside = show(mill, f"/nights/picky/beside?date={date_key(last.date)}")
    finally:
        open_store(last.url).put(table.key, data)
    assert beside.count("Its images cannot be read.") == 1
    assert beside.count("data:image/png;base64,") == 8


def test_every_date_of_the_calendar_leads_to_its_run_on_the_page(mill: MillServer, nights: NightScene) -> None:
    text = show(mill, f"/nights/picky?month={DATES[-1]:%Y-%m}", "red-reader")
    found = Markup(text)
    assert found.wrong == []
    marks = re.findall(r'<a class="mark (\w+)[^"]*" href="#(run-\w+)"', text)
    assert {state for state, _ in marks} <= {"promoted", "refused"}
    assert ("refused", f"run-{date_key(DATES[-1])}") in marks
    assert {name for _, name in marks} <= set(found.ids)
    assert len(found.ids) == len(set(found.ids))
    assert f"{DATES[-1].day} {DATES[-1]:%B}, 04:00" in text  # for who does not see the grid


def test_earlier_runs_are_reached_by_the_address(mill: MillServer, nights: NightScene) -> None:
    text = show(mill, f"/nights/picky?until={date_key(DATES[1])}")
    names = [name for name in Markup(text).ids if name.startswith("run-2")]
    assert names == [f"run-{date_key(date)}" for date in (DATES[1], DATES[0])]
    assert "The last run" not in text
    text = show(mill, "/nights/picky?month=2020-02")
    assert "January 2020" in text
    assert "February 2020" in text
    assert "No date of the schedule is in these months." in text
    assert "/nights/picky?month=2019-12#calendar" in text


@pytest.mark.parametrize("name", ["until", "month"])
@pytest.mark.parametrize(
    "value", ["x", "2026-13", "0000-01", "9999-12", "20261301T000000Z", EVIL, "2026-01" * 9, "%00"]
)
def test_hostile_queries_are_refused(mill: MillServer, nights: NightScene, name: str, value: str) -> None:
    answer = page(mill, f"/nights/picky?{urlencode({name: value})}")
    assert answer.status == 422
    assert b"Traceback" not in answer.body
    assert EVIL.encode() not in answer.body


def test_gates_are_drawn_over_time_with_a_table_of_the_same_numbers(mill: MillServer, nights: NightScene) -> None:
    figure = part(show(mill, "/nights/picky", "red-reader"), "<strong>images</strong>", "</figure>")
    assert "Measured 30 for" in figure
    assert "It refused 1 of 4 runs." in figure
    points = re.findall(r'<a href="#run-(\w+)" tabindex="-1" aria-label="([^"]+)"', figure)
    assert [key for key, _ in points] == [date_key(date) for date in DATES]
    assert [label.endswith("refused") for _, label in points] == [False, False, False, True]
    rows = re.findall(r"<td>([\d,]+)</td><td>([\d,]+)</td><td>(yes|no)</td>", figure)
    assert rows == [("30", "5,000", "no"), ("30", "20", "yes"), ("30", "20", "yes"), ("30", "20", "yes")]


def test_times_are_those_of_the_zone_of_the_schedule(mill: MillServer) -> None:
    scene = NightScene(mill, "kolkata", cron="30 5 * * *", zone="Asia/Kolkata")
    scene.declare()
    scene.night(DATES[-1].replace(hour=0, minute=0))
    text = show(mill, "/nights/kolkata")
    assert "At 05:30 every day" in text
    assert "Asia/Kolkata (all times on this page)" in text
    assert f"{DATES[-1]:%Y-%m-%d} 05:30" in text
    assert re.search(r"<dt>Next</dt><dd>\d{4}-\d\d-\d\d 05:30, ", text)
    row = part(show(mill, "/nights"), ">kolkata</a>", "</tr>")
    assert f"{DATES[-1]:%Y-%m-%d} 05:30" in row
    assert "Asia/Kolkata" in row


def test_a_build_is_pinned_and_unpinned_on_the_page(
    mill: MillServer, nights: NightScene, last: Run, dataset: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert last.spec
    address = f"/datasets/red/picky/builds/{last.spec.build_id}"
    assert f'action="{address}/pin"' in run_of(show(mill, "/nights/picky"), last)
    assert f'action="{address}/pin"' in show(mill, "/datasets/red/picky")
    with caplog.at_level(logging.INFO, logger="latentmill.audit"):
        answer = send(mill, f"{address}/pin", note=f"the {EVIL}\npaper", night="picky", confirm="true")
    assert (answer.status, answer.headers["location"]) == (303, "/nights/picky")
    lines = [json.loads(record.getMessage()) for record in caplog.records]
    assert [(line["action"], line["outcome"], line["build"]) for line in lines] == [("pin", "done", last.spec.build_id)]
    state = read_state(dataset)
    assert state is not None
    assert [(each.build, each.note) for each in state.pins] == [(last.spec.build_id, f"the {EVIL} paper")]
    for path in ("/nights/picky", "/datasets/red/picky"):
        text = show(mill, path)
        assert "the &lt;script&gt;alert(1)&lt;/script&gt; paper" in text
        assert Markup(text).wrong == []
        assert f'action="{address}/unpin"' in text
    answer = send(mill, f"{address}/unpin", confirm="true")
    assert (answer.status, answer.headers["location"]) == (303, "/datasets/red/picky")
    state = read_state(dataset)
    assert state is not None
    assert state.pins == ()


def test_the_last_rollback_is_undone_on_the_page(
    mill: MillServer, nights: NightScene, dataset: Any, caplog: pytest.LogCaptureFixture
) -> None:
    before = read_state(dataset)
    assert before is not None
    assert "Undo the last rollback" not in show(mill, "/nights/picky")
    rollback(dataset, by="a test")
    for path in ("/nights/picky", "/datasets/red/picky"):
        text = show(mill, path)
        assert "Undo the last rollback of red/picky" in text
        assert "Undo" not in show(mill, path, "red-reader")
    fields = {"undo": "true", "night": "picky"}
    assert send(mill, "/datasets/red/picky/rollback", build=before.build or "", **fields).status == 422
    conflict = send(mill, "/datasets/red/picky/rollback", build="0" * 20, confirm="true", **fields)
    assert conflict.status == 409  # the page was of another rollback
    with caplog.at_level(logging.INFO, logger="latentmill.audit"):
        answer = send(mill, "/datasets/red/picky/rollback", build=before.build or "", confirm="true", **fields)
    assert (answer.status, answer.headers["location"]) == (303, "/nights/picky")
    assert json.loads(caplog.records[-1].getMessage())["action"] == "undo rollback"
    state = read_state(dataset)
    assert state is not None
    assert state.build == before.build


def test_forms_of_pins_need_role_tenant_session_and_confirmation(
    mill: MillServer, nights: NightScene, last: Run
) -> None:
    assert last.spec
    before = mill.objects()
    for decision in ("pin", "unpin"):
        path = f"/datasets/red/picky/builds/{last.spec.build_id}/{decision}"
        for key in ("red-reader", "red-submitter", "blue-operator"):
            assert send(mill, path, key, confirm="true").status == 403
        assert send(mill, path, csrf=False, confirm="true").status == 403
        assert send(mill, path).status == 422
        assert send(mill, path, confirm="true", note="x" * 501).status == 422
        assert send(mill, path, confirm="true", night="x" * 64).status == 422
    assert send(mill, f"/datasets/red/picky/builds/{last.spec.build_id}/keep", confirm="true").status == 404
    assert send(mill, f"/datasets/red/picky/builds/{'0' * 20}/pin", confirm="true").status == 404
    assert mill.objects() == before
    answer = send(
        mill, f"/datasets/red/picky/builds/{last.spec.build_id}/unpin", night="//evil.example", confirm="true"
    )
    assert answer.headers["location"] == "/nights/%2F%2Fevil.example"  # a form leads nowhere else


def test_a_reader_sees_no_form(mill: MillServer, nights: NightScene) -> None:
    for role in ("reader", "submitter"):
        main = show(mill, "/nights/picky", f"red-{role}").partition("<main")[2]
        assert "<form" not in main
        assert "csrf" not in main


def test_reasons_and_notes_are_text(mill: MillServer, nights: NightScene, dataset: Any) -> None:
    date = DATES[0] - timedelta(days=100)
    run = Run(schedule="picky", date=date, state="failed", reason=f"no {EVIL} found", created=date, ended=date)
    assert create_run(nights.root, run)
    pin(dataset, read_state(dataset).build, by="a test", note="\"'>" + EVIL)  # type: ignore[union-attr,arg-type]
    text = show(mill, "/nights/picky")
    assert "no &lt;script&gt;alert(1)&lt;/script&gt; found" in text
    assert EVIL not in text
    assert Markup(text).wrong == []


def test_runs_of_another_tenant_under_the_same_name_are_not_shown(mill: MillServer, nights: NightScene) -> None:
    scene = NightScene(mill, "handed-on")
    scene.declare()
    scene.night(DATES[-1])

    def of_blue(run: Run) -> Run:
        assert run.spec
        order = run.spec.order.model_copy(update={"tenant": "blue"})
        return run.model_copy(update={"spec": run.spec.model_copy(update={"order": order}), "reason": "secret"})

    update_run(scene.root, "handed-on", DATES[-1], of_blue)
    text = show(mill, f"/nights/handed-on?month={DATES[-1]:%Y-%m}")
    assert "secret" not in text
    assert f"run-{date_key(DATES[-1])}" not in text
    assert "None yet." in text
    assert page(mill, f"/nights/handed-on/beside?date={date_key(DATES[-1])}").status == 404


def test_a_schedule_without_runs_has_a_calendar_of_what_is_to_come(mill: MillServer) -> None:
    scene = NightScene(mill, "new", cron="0 0 * * *")
    scene.declare()
    following = datetime.now(UTC).date() + timedelta(days=1)
    text = show(mill, f"/nights/new?month={following:%Y-%m}", "red-reader")
    assert "None yet." in text
    assert 'class="mark upcoming"' in text
    assert "Gates over time" not in text
    assert send(mill, "/nights/new/pause").status == 303
    assert 'class="mark paused"' in show(mill, f"/nights/new?month={following:%Y-%m}", "red-reader")


def test_the_page_needs_no_redis(mill: MillServer, nights: NightScene, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = type(mill.web.app.state.context.pool.ledger)
    monkeypatch.setattr(ledger, "facts", lambda *_: pytest.fail("Redis was asked"))
    assert "Gates over time" in show(mill, "/nights/picky")

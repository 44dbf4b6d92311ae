"""Forms of pages that decide about builds and runs: who sees them, who may send them, and what they change."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from generator.curation.gates import Gates, evaluate_gates
from generator.datasets.promotion import DatasetState, promote, read_state, rollback
from generator.datasets.promotion.state import update_state
from generator.store import open_store
from generator.store.base import Store
from tests.support.cli_sandbox import LENIENT_GATES
from tests.support.mill_server import SCHEDULE, MillServer, page, send
from tests.support.simulated_schedules import InlineExecutor
from workers.schedules.clock import SystemClock
from workers.schedules.runs import Run, read_run
from workers.schedules.service import PoolService
from workers.schedules.ticker import Ticker

DAY = datetime(2026, 1, 5, 4, tzinfo=UTC)
WORDS = "The gate images asks for at least 5,000 images; this build has 30."


@pytest.fixture(scope="module")
def refused(mill: MillServer) -> Run:
    """The run of a date whose build its gates refused."""
    gates = LENIENT_GATES | {"images": 5000}
    body = SCHEDULE | {"job": SCHEDULE["job"] | {"name": "picky", "shard_size": 30, "batch": 16}, "gates": gates}
    assert mill.web.ask("PUT", "/api/v1/schedules/picky", mill.tokens["red-operator"], body).status == 200
    assert send(mill, "/nights/picky/run", date="2026-01-05").status == 303
    finish(mill)
    run = run_of(mill)
    assert run.state == "refused"
    return run


def finish(mill: MillServer) -> None:
    """Carry out the run, as a scheduler and a worker do."""
    ticker = Ticker(PoolService(mill.service.settings), SystemClock(), InlineExecutor())
    ticker.tick()
    mill.service.serve(2)
    ticker.tick()


def run_of(mill: MillServer, name: str = "picky", date: datetime = DAY) -> Run:
    run = read_run(open_store(mill.service.settings.root), name, date)
    assert run is not None
    return run


def show(mill: MillServer, path: str, key: str = "red-operator") -> str:
    answer = page(mill, path, key)
    assert answer.status == 200, answer.body
    return answer.body.decode()


def build_ids(text: str) -> list[str]:
    return re.findall(r"<tr>\s*<td>(?:<a [^>]*>)?<code>([0-9a-f]{20})", text)


def two_builds(mill: MillServer, name: str) -> tuple[Store, str, str]:
    """A dataset with two builds that nobody promoted, the older first."""
    ids = []
    for seed in (1, 2):
        place = f"{mill.service.home}/places/red"
        status = mill.service.submit(name, destination=place, tenant="red", seed=seed)
        mill.service.serve(3)
        assert mill.service.client.status(status.job).state == "committed"
        ids.append(status.url.rpartition("/")[2])
    return open_store(f"{mill.service.home}/places/red/{name}"), ids[0], ids[1]


def test_a_refused_night_says_why_and_offers_what_an_operator_may_do(mill: MillServer, refused: Run) -> None:
    shown = show(mill, "/nights/picky")
    assert WORDS in shown
    assert "Run again" in shown
    assert "Readers of red/picky will get this build, although its gates refused it" in shown
    for role in ("reader", "submitter"):
        text = show(mill, "/nights/picky", f"red-{role}")
        assert WORDS in text
        assert "/nights/picky/run" not in text
        assert "/nights/picky/promote" not in text


@pytest.mark.parametrize(("key", "status"), [("red-reader", 403), ("red-submitter", 403), ("blue-operator", 404)])
def test_others_than_operators_of_the_tenant_cannot_send_the_forms(
    mill: MillServer, refused: Run, key: str, status: int
) -> None:
    assert refused.spec is not None
    build, before = refused.spec.build_id, mill.objects()
    for path in ("/nights/picky/run", "/nights/picky/promote"):
        answer = send(mill, path, key, date=DAY.isoformat(), build=build, confirm="true")
        assert answer.status == status, path
    for path in (f"/datasets/red/picky/builds/{build}/promote", "/datasets/red/picky/rollback"):
        answer = send(mill, path, key, build=build, confirm="true")
        assert answer.status == 403, path
    assert mill.objects() == before


def test_forms_without_the_value_of_the_session_are_refused(mill: MillServer, refused: Run) -> None:
    assert refused.spec is not None
    build, before = refused.spec.build_id, mill.objects()
    for path in (
        "/nights/picky/run",
        "/nights/picky/promote",
        f"/datasets/red/picky/builds/{build}/promote",
        "/datasets/red/picky/rollback",
    ):
        answer = send(mill, path, csrf=False, date=DAY.isoformat(), build=build, confirm="true")
        assert answer.status == 403, path
    assert mill.objects() == before


def test_a_promotion_must_be_confirmed_and_name_the_build_that_was_shown(mill: MillServer, refused: Run) -> None:
    assert refused.spec is not None
    before = mill.objects()
    fields = {"date": DAY.isoformat(), "build": refused.spec.build_id}
    assert send(mill, "/nights/picky/promote", **fields).status == 422
    assert send(mill, f"/datasets/red/picky/builds/{fields['build']}/promote").status == 422
    assert send(mill, "/datasets/red/picky/rollback", build=fields["build"]).status == 422
    assert send(mill, "/nights/picky/promote", **fields | {"build": "0" * 20}, confirm="true").status == 404
    assert send(mill, "/nights/picky/promote", **fields | {"date": "2026-01-06"}, confirm="true").status == 404
    answer = send(mill, f"/datasets/red/picky/builds/{fields['build']}/promote", date="soon", confirm="true")
    assert answer.status == 422
    assert mill.objects() == before


def test_a_night_runs_again_and_its_build_is_promoted_for_its_date(mill: MillServer, refused: Run) -> None:
    shown = show(mill, "/nights/picky")
    date = re.findall(r'name="date" value="([^"]+)"', shown)[0]
    assert send(mill, "/nights/picky/run", date=date).status == 303
    assert (run_of(mill).take, run_of(mill).state) == (refused.take + 1, "created")
    assert "/nights/picky/promote" not in show(mill, "/nights/picky")  # it is being made
    spec = run_of(mill).spec
    assert spec is not None
    answer = send(mill, "/nights/picky/promote", date=date, build=spec.build_id, confirm="true")
    assert answer.status == 409
    finish(mill)
    assert run_of(mill).state == "refused"
    assert send(mill, "/nights/picky/promote", date=date, build=spec.build_id, confirm="true").status == 303
    state = read_state(open_store(f"{mill.service.home}/places/red/picky"))
    assert state is not None
    assert state.current is not None
    assert (state.build, state.current.logical_date) == (spec.build_id, DAY)
    assert state.current.by.endswith("of red")
    after = show(mill, "/nights/picky")
    assert "Readers get this build." in after
    assert "/nights/picky/promote" not in after


def test_builds_are_listed_with_images_date_and_state_the_newest_first(mill: MillServer) -> None:
    store, first, second = two_builds(mill, "listed")
    promote(store, first, logical_date=DAY, by="a test")
    shown = show(mill, "/datasets/red/listed", "red-reader")
    assert build_ids(shown) == [second, first]
    row = shown.partition("<tbody>")[2].partition(f"<code>{first}")[2].partition("</tr>")[0]
    assert "2026-01-05 04:00" in row
    assert '<td class="number" data-label="images">60</td>' in row
    assert "what readers get" in row
    assert "Promote" not in shown
    assert "csrf" not in shown.partition("<main")[2]


def test_an_operator_promotes_and_rolls_back_on_the_page_of_a_dataset(mill: MillServer) -> None:
    store, first, second = two_builds(mill, "chosen")
    for build in (first, second):
        path = f"/datasets/red/chosen/builds/{build}/promote"
        assert path in show(mill, "/datasets/red/chosen")
        answer = send(mill, path, date=DAY.isoformat(), confirm="true")
        assert (answer.status, answer.headers["location"]) == (303, "/datasets/red/chosen")
    state = read_state(store)
    assert state is not None
    assert state.current is not None
    assert (state.build, state.current.logical_date) == (second, DAY)
    assert "Roll back to this build" in show(mill, "/datasets/red/chosen")
    assert send(mill, "/datasets/red/chosen/rollback", build=first, confirm="true").status == 303
    state = read_state(store)
    assert state is not None
    assert (state.build, state.withdrawn) == (first, (second,))


def test_a_build_that_was_rolled_back_is_promoted_again_only_when_asked(mill: MillServer) -> None:
    store, first, second = two_builds(mill, "withdrawn")
    for build in (first, second):
        promote(store, build, logical_date=DAY, by="a test")
    rollback(store, by="a test")
    path = f"/datasets/red/withdrawn/builds/{second}/promote"
    refusal = send(mill, path, confirm="true")
    assert refusal.status == 409
    assert "rolled back" in refusal.body.decode()
    assert 'name="again" value="true"' in show(mill, "/datasets/red/withdrawn")
    assert send(mill, path, again="true", confirm="true").status == 303
    state = read_state(store)
    assert state is not None
    assert state.build == second


def test_a_build_of_an_earlier_date_is_offered_as_a_way_back(mill: MillServer) -> None:
    store, first, second = two_builds(mill, "backfilled")
    promote(store, second, logical_date=DAY, by="a test")
    promote(store, first, logical_date=DAY.replace(day=1), by="a test")  # approved, but older
    shown = show(mill, "/datasets/red/backfilled")
    assert f"/builds/{first}/promote" not in shown
    assert "Roll back to this build" in shown
    assert send(mill, f"/datasets/red/backfilled/builds/{first}/promote", confirm="true").status == 409
    assert send(mill, "/datasets/red/backfilled/rollback", build=first, confirm="true").status == 303
    state = read_state(store)
    assert state is not None
    assert state.build == first


def test_a_refused_build_is_named_so_in_the_list(mill: MillServer) -> None:
    store, first, second = two_builds(mill, "judged")
    gates = Gates(**LENIENT_GATES | {"images": 5000})
    evaluate_gates(store, first, gates, logical_date=DAY, bundle=None)
    shown = show(mill, "/datasets/red/judged")
    row = shown.partition("<tbody>")[2].partition(f"<code>{first}")[2].partition("</tr>")[0]
    assert "refused by its gates" in row
    assert "2026-01-05 04:00" in row
    assert "The gate images asks for at least 5,000 images; this build has 60." in row
    assert "will get this build, although its gates refused it" in row
    assert "refused" not in shown.partition("<tbody>")[2].partition(f"<code>{second}")[2].partition("</tr>")[0]


def test_a_night_before_the_one_that_readers_get_leads_to_the_page_of_its_dataset(
    mill: MillServer, refused: Run
) -> None:
    store = open_store(f"{mill.service.home}/places/red/picky")
    before = read_state(store)
    status = mill.service.submit("picky", destination=f"{mill.service.home}/places/red", tenant="red", seed=77)
    mill.service.serve(3)
    promote(store, status.url.rpartition("/")[2], logical_date=DAY.replace(day=9), by="a test")
    try:
        shown = show(mill, "/nights/picky")
        assert "/nights/picky/promote" not in shown
        assert 'Readers get a build of a later date. <a href="/datasets/red/picky">' in shown
    finally:
        update_state(store, lambda _: before or DatasetState())

"""The ticker through simulated time: every date at most one run, and none skipped unless a policy says so."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from generator.bundle import push
from generator.bundle.channels import move_channel
from generator.errors import StoreUnavailable
from generator.spec import JobSpec
from generator.store import Store, open_store
from tests.bundles import tiny_bundle
from tests.schedules import Killed, Scene, SimulatedPool
from workers.schedules.by_hand import begin, date_of, plan_backfill, span_of
from workers.schedules.declared import Schedule
from workers.schedules.hands import Hands, Outcome
from workers.schedules.kept import change_kept, forget, read_cursor
from workers.schedules.pinning import Pinned
from workers.schedules.runs import ENDED, Run, marks

MINUTE = timedelta(minutes=1)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def live_through(scene: Scene, *, until: datetime, step: timedelta) -> None:
    ticker = scene.ticker()
    while scene.clock.time < until:
        ticker.once()
        scene.clock.time += step


def test_a_night(scene: Scene) -> None:
    scene.declare(retention={"last": 3})
    ticker = scene.ticker()
    ticker.once()
    assert scene.runs() == []
    scene.clock.go(hours=3, minutes=30)
    ticker.once()
    assert scene.states() == {"01-01 03:30": "submitted"}
    scene.clock.go(minutes=10)
    ticker.once()
    (run,) = scene.runs()
    assert run.state == "promoted"
    assert scene.pool.latest == [run.date]
    assert [chore for _, _, chore in scene.pool.done] == ["retain", "succeeded"]
    ticker.once()
    assert list(marks(scene.root)) == []
    assert len(scene.pool.submissions) == 1


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
def test_a_year(scene: Scene, zone: str) -> None:
    """Tickers come and go at odd times, never away for longer than the grace; each day has its one run, on its time."""
    rng = Random(zone)
    kept = scene.declare(cron="30 2 * * *", timezone=zone)
    dates = kept.schedule.times.upcoming(scene.clock.time, 365)
    ticker = scene.ticker()
    for date in dates:
        for moment in (date - MINUTE, date + rng.random() * 4 * MINUTE, date + 15 * MINUTE):
            scene.clock.time = moment
            ticker = scene.ticker() if rng.random() < 0.3 else ticker
            ticker.once()
    runs = scene.runs()
    assert [run.date for run in runs] == dates
    assert {run.state for run in runs} == {"promoted"}
    assert all(run.created - run.date < 5 * MINUTE for run in runs)
    assert Counter(scene.pool.submissions).most_common(1)[0][1] == 1
    assert len({run.spec.recipe.seed for run in runs if run.spec}) == 365
    days = [kept.schedule.times.local(date).date() for date in dates]
    assert days == [days[0] + timedelta(days=day) for day in range(365)]
    assert len({kept.schedule.times.local(date).utcoffset() for date in dates}) == 2


class Perishable(Store):
    """A store at which its user dies before, or right after, a write: the ``fatal``-th one counted from now."""

    def __init__(self, store: Store, fatal: int, *, after: bool) -> None:
        self._store, self.left, self._after, self.url = store, fatal, after, store.url

    def _write(self, name: str, *words: Any) -> Any:
        self.left -= 1
        if self.left == 0 and not self._after:
            raise Killed
        try:
            return getattr(self._store, name)(*words)
        finally:
            if self.left == 0:
                raise Killed

    def create(self, key: str, data: bytes) -> str:
        return str(self._write("create", key, data))

    def replace(self, key: str, data: bytes, etag: str) -> str:
        return str(self._write("replace", key, data, etag))

    def put(self, key: str, data: bytes) -> str:
        return str(self._write("put", key, data))

    def delete(self, key: str) -> None:
        self._write("delete", key)

    def get(self, key: str, *words: Any) -> bytes:
        return self._store.get(key, *words)

    def read(self, key: str, start: int, length: int) -> bytes:
        return self._store.read(key, start, length)

    def head(self, key: str) -> Any:
        return self._store.head(key)

    def list(self, prefix: str = "") -> Any:
        return self._store.list(prefix)

    def children(self, prefix: str = "") -> Any:
        return self._store.children(prefix)

    def check_writable(self) -> None:
        self._store.check_writable()

    def at(self, prefix: str) -> Store:
        return self._store.at(prefix)


class Mortal(SimulatedPool):
    """The same simulated pool, through a store at which one dies, or dying on either side of a call."""

    def __init__(self, pool: SimulatedPool, store: Store, call: str = "", *, after: bool = False) -> None:
        super().__init__(store, pool.clock, pool.takes)
        self.__dict__ |= {name: value for name, value in pool.__dict__.items() if name != "_root"}
        self._call, self._after = call, after

    def _dying(self, name: str, *words: Any) -> Any:
        if name == self._call and not self._after:
            raise Killed
        done = getattr(super(), name)(*words)
        if name == self._call:
            raise Killed
        return done

    def submit(self, spec: JobSpec) -> None:
        self._dying("submit", spec)

    def judge(self, run: Run) -> Outcome:
        return self._dying("judge", run)  # type: ignore[no-any-return]

    def promote(self, run: Run) -> Outcome:
        return self._dying("promote", run)  # type: ignore[no-any-return]


def end_of_night(scene: Scene) -> None:
    """Other tickers go on until everything is settled."""
    for _ in range(10):
        scene.ticker().once()
        scene.clock.go(minutes=6)


def nights(scene: Scene, first: int, last: int) -> None:
    """Ticks around the nightly date of these days of January."""
    ticker = scene.ticker()
    for day in range(first, last + 1):
        for minute in (29, 31, 45, 58):
            scene.clock.time = datetime(2026, 1, day, 3, minute, tzinfo=UTC)
            ticker.once()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fatal", range(1, 25))
def test_killed_at_any_write(scene: Scene, fatal: int, after: bool) -> None:
    scene.declare(cron="*/30 * * * *", gates={}, retention={"last": 3})
    scene.clock.go(minutes=30)
    store = Perishable(scene.root, fatal, after=after)
    doomed, died = scene.ticker(Mortal(scene.pool, store)), False
    try:
        for _ in range(3):
            doomed.once()
            scene.clock.go(minutes=5)
    except Killed:
        died = True
    end_of_night(scene)
    states = scene.states()
    assert [state for date, state in states.items() if date <= "01-01 01:00"] == ["promoted"] * 2
    assert len(scene.pool.begun) == len(states)
    assert list(marks(scene.root)) == [] or len(states) > 2
    assert died == (store.left <= 0)
    assert Counter(scene.pool.done)[("nightly", scene.runs()[0].date, "succeeded")] in (1, 2)  # at least once
    assert died or fatal > 12  # else nothing was tried here


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", ["submit", "judge", "promote"])
def test_killed_around_a_call(scene: Scene, call: str, after: bool) -> None:
    scene.declare(gates={})
    scene.clock.go(hours=3, minutes=31)
    doomed = scene.ticker(Mortal(scene.pool, scene.root, call, after=after))

    def work_until_death() -> None:
        for _ in range(3):
            doomed.once()
            scene.clock.go(minutes=10)

    with pytest.raises(Killed):
        work_until_death()
    end_of_night(scene)
    assert scene.states() == {"01-01 03:30": "promoted"}
    assert len(scene.pool.begun) == 1
    assert scene.pool.latest == [scene.runs()[0].date]


def test_a_job_that_was_cancelled_is_not_begun_again_by_the_heir_of_its_ticker(scene: Scene) -> None:
    scene.declare()
    scene.clock.go(hours=3, minutes=31)
    with pytest.raises(Killed):
        scene.ticker(Mortal(scene.pool, scene.root, "submit", after=True)).once()
    (run,) = scene.runs()
    assert run.state == "created"
    assert run.spec is not None
    scene.pool.stop(run.spec.job_id)  # by a person
    scene.ticker().once()
    assert scene.states() == {"01-01 03:30": "cancelled"}
    assert len(scene.pool.submissions) == 1


def test_two_tickers_at_once(tmp_path: Path) -> None:
    """Four threads on one directory: no date has two runs, no run is judged into two states."""
    scene = Scene(tmp_path, open_store(str(tmp_path / "root")))
    scene.declare(cron="*/10 * * * *", gates={}, catch_up="all")
    scene.pool.takes = 5 * MINUTE
    barrier, failures = threading.Barrier(4), list[BaseException]()

    def tick(number: int) -> None:
        try:
            ticker = scene.ticker(who=f"ticker {number}")
            for _ in range(30):
                barrier.wait(60)
                ticker.once()
                if barrier.wait(60) == 0:
                    scene.clock.go(minutes=9)
        except BaseException as failure:
            failures.append(failure)
            barrier.abort()

    threads = [threading.Thread(target=tick, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    end_of_night(scene)
    runs = scene.runs()
    assert [run.date for run in runs] == [runs[0].date + 10 * place * MINUTE for place in range(len(runs))]
    assert len(runs) >= 26
    assert len(scene.pool.begun) == len({run.spec.job_id for run in runs if run.spec}) == len(runs)
    assert {run.state for run in runs[:26]} == {"promoted"}
    assert scene.pool.latest == sorted(set(scene.pool.latest))


def test_redis_is_lost_overnight(scene: Scene) -> None:
    scene.declare(deadline="4h")
    scene.pool.away = True
    live_through(scene, until=datetime(2026, 1, 1, 6, tzinfo=UTC), step=20 * MINUTE)
    (run,) = scene.runs()
    assert (run.state, "a Redis that answers" in run.note) == ("created", True)
    assert "nothing is made yet" in run.at_risk
    scene.pool.away = False
    live_through(scene, until=datetime(2026, 1, 1, 7, tzinfo=UTC), step=20 * MINUTE)
    assert scene.states() == {"01-01 03:30": "promoted"}
    assert [chore for _, _, chore in scene.pool.done] == ["at_risk", "succeeded"]


def test_the_store_is_away_for_a_while(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.declare()
    ticker = scene.ticker()

    def away(*_: object) -> None:
        raise StoreUnavailable("root", "an answer", "none")

    scene.clock.go(hours=3, minutes=30)
    with monkeypatch.context() as patch:
        patch.setattr(type(scene.root), "list", away)
        with pytest.raises(StoreUnavailable):
            ticker.once()
    scene.clock.go(hours=2)
    ticker.once()
    assert scene.states() == {"01-01 03:30": "submitted"}  # caught up, as it is the latest


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [("none", ["skipped"] * 4), ("latest", ["skipped"] * 3 + ["promoted"]), ("all", ["skipped"] + ["promoted"] * 3)],
)
def test_nobody_was_there_for_four_nights(scene: Scene, policy: str, wanted: list[str]) -> None:
    scene.declare(catch_up=policy, catch_up_limit=3)
    scene.clock.go(days=4, hours=-1)
    end_of_night(scene)
    assert list(scene.states().values()) == wanted
    skipped = [run for run in scene.runs() if run.state == "skipped"]
    assert all(run.why == "missed" and "nobody was there" in run.reason for run in skipped)
    nights(scene, 5, 5)
    assert list(scene.states().values()) == [*wanted, "promoted"]


def test_a_year_without_a_ticker_costs_little(scene: Scene) -> None:
    scene.declare(cron="* * * * *", catch_up="all", catch_up_limit=2, overlap="queue")
    scene.clock.go(days=365)
    scene.ticker().once()
    runs = scene.runs()
    assert len(runs) == 1 + 2 + 6  # all that was skipped, what is caught up, what is on time
    assert runs[0].until is not None
    assert (runs[0].date, runs[0].until + MINUTE) == (datetime(2026, 1, 1, 0, 1, tzinfo=UTC), runs[1].date)


@pytest.mark.parametrize(
    ("overlap", "states", "stopped"),
    [
        ("skip", ["promoted", "skipped", "skipped", "promoted"], 0),
        ("queue", ["promoted", "promoted", "submitted", "created"], 0),
        ("replace", ["replaced", "replaced", "replaced", "submitted"], 3),
    ],
)
def test_a_run_that_is_longer_than_its_period(scene: Scene, overlap: str, states: list[str], stopped: int) -> None:
    scene.declare(cron="0 * * * *", overlap=overlap)
    scene.pool.takes = timedelta(minutes=150)
    live_through(scene, until=datetime(2026, 1, 1, 4, 1, tzinfo=UTC), step=10 * MINUTE)
    if overlap != "queue":
        assert list(scene.states().values()) == [*states[:3], "submitted"]
        assert len(scene.pool.stopped) == stopped
    live_through(scene, until=datetime(2026, 1, 1, 6, 41, tzinfo=UTC), step=10 * MINUTE)
    assert len(scene.pool.begun) - len(scene.pool.stopped) == sum(
        run.state in ("submitted", "promoted") for run in scene.runs()
    )
    if overlap != "replace":
        assert list(scene.states().values())[:4] == states
    going = [run for run in scene.runs() if run.state == "submitted"]
    assert len(going) == (overlap != "skip")


def test_a_gate_that_refuses(scene: Scene) -> None:
    scene.declare(gates={})
    scene.pool.verdict = lambda run: Outcome(run.date.day != 2, "copies: 12% of the images")
    nights(scene, 1, 3)
    assert list(scene.states().values()) == ["promoted", "refused", "promoted"]
    assert scene.runs()[1].reason == "copies: 12% of the images"
    assert [date.day for date in scene.pool.latest] == [1, 3]
    assert [chore for _, _, chore in scene.pool.done] == ["succeeded", "refused", "succeeded"]


def test_a_judge_that_falls_ill_is_asked_again(scene: Scene) -> None:
    scene.declare(gates={})
    answers = iter([StoreUnavailable("s3", "an answer", "none"), RuntimeError("a bug"), Outcome(True, "")])

    def judge(run: Run) -> Outcome:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    scene.pool.verdict = judge
    live_through(scene, until=datetime(2026, 1, 1, 3, 50, tzinfo=UTC), step=10 * MINUTE)
    assert (scene.runs()[0].state, scene.runs()[0].note) == ("committed", "s3: expected an answer, got none")
    live_through(scene, until=datetime(2026, 1, 1, 4, 30, tzinfo=UTC), step=10 * MINUTE)
    assert scene.states() == {"01-01 03:30": "promoted"}


def test_a_channel_that_moves_while_a_build_runs(scene: Scene, tmp_path: Path) -> None:
    move_channel(scene.root, "cats", scene.digest, by="a test")
    scene.declare(job={"channel": "cats"}, overlap="queue", cron="0 * * * *")
    scene.pool.takes = timedelta(minutes=100)
    live_through(scene, until=datetime(2026, 1, 1, 2, 5, tzinfo=UTC), step=5 * MINUTE)
    assert list(scene.states().values()) == ["submitted", "created"]
    other = push(open_store(str(tiny_bundle(tmp_path / "other", seed=1))), scene.root)
    move_channel(scene.root, "cats", other, by="a test")
    live_through(scene, until=datetime(2026, 1, 1, 7, tzinfo=UTC), step=5 * MINUTE)
    bundles = [run.spec.recipe.bundle for run in scene.runs()[:3] if run.spec]
    assert bundles == [scene.digest, scene.digest, other]
    assert [spec.recipe.bundle for spec in scene.pool.specs.values()][:3] == bundles
    assert [run.channel for run in scene.runs()[:3]] == ["cats"] * 3


def test_a_job_that_cannot_be_is_a_run_that_failed(scene: Scene) -> None:
    scene.declare(job={"counts": {"horse": 3}, "count": None})
    live_through(scene, until=datetime(2026, 1, 1, 4, tzinfo=UTC), step=10 * MINUTE)
    (run,) = scene.runs()
    assert (run.state, run.spec) == ("failed", None)
    assert "counts.horse" in run.reason
    assert [chore for _, _, chore in scene.pool.done] == ["failed"]
    assert list(marks(scene.root)) == []


def test_a_clock_that_runs_ahead_begins_nothing_where_the_store_knows_better(scene: Scene) -> None:
    scene.declare()
    scene.clock.wrong = "the clock of this machine is 86,400 s ahead of that of the store"
    scene.clock.go(days=1)
    scene.ticker().once()
    assert scene.runs() == []
    scene.clock.go(days=-1)
    scene.clock.wrong = ""
    scene.clock.go(hours=3, minutes=30)
    scene.ticker().once()
    assert scene.states() == {"01-01 03:30": "submitted"}


@pytest.mark.parametrize("policy", ["none", "latest", "all"])
@pytest.mark.parametrize("ahead", [0.98, 1, 40, 400])
def test_a_clock_that_jumps_there_and_back(scene: Scene, policy: str, ahead: float) -> None:
    """No date is run twice, and each one that comes in true time has its run, whatever the wrong clock decided."""
    scene.declare(catch_up=policy, catch_up_limit=3)
    nights(scene, 1, 2)
    scene.clock.go(days=ahead)
    live_through(scene, until=scene.clock.time + timedelta(hours=1), step=10 * MINUTE)
    nights(scene, 3, 7)
    runs = {run.date: run for run in scene.runs()}
    for day in range(1, 8):
        assert runs[datetime(2026, 1, day, 3, 30, tzinfo=UTC)].state in ("promoted", "kept"), day
    assert Counter(scene.pool.submissions).most_common(1)[0][1] == 1


def test_a_clock_that_jumps_back_runs_nothing_again(scene: Scene) -> None:
    scene.declare()
    nights(scene, 1, 9)
    before = scene.runs()
    nights(scene, 3, 9)
    assert scene.runs() == before
    assert len(scene.pool.submissions) == 9
    nights(scene, 10, 10)
    assert len(scene.runs()) == 10


def test_a_lost_cursor_is_only_work(scene: Scene) -> None:
    scene.declare()
    nights(scene, 1, 3)
    assert read_cursor(scene.root, "nightly") == datetime(2026, 1, 3, 3, 30, tzinfo=UTC)
    before = scene.runs()
    scene.root.delete("schedules/cursors/nightly.json")
    scene.ticker().once()
    assert scene.runs() == before
    scene.root.put("schedules/cursors/nightly.json", b"nonsense")
    scene.ticker().once()
    assert scene.runs() == before
    assert read_cursor(scene.root, "nightly") == datetime(2026, 1, 3, 3, 30, tzinfo=UTC)


def test_trouble_with_one_schedule_is_not_that_of_the_others(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a-damaged", "b-odd", "c-good"):
        scene.declare(name=name)
    scene.root.put("schedules/declared/a-damaged.json", b"{}")
    pinning = scene.pool.pin

    def pin(schedule: Schedule, date: datetime) -> Pinned:
        if schedule.name == "b-odd":
            raise RuntimeError("a bug")
        return pinning(schedule, date)

    monkeypatch.setattr(scene.pool, "pin", pin)
    nights(scene, 1, 1)
    assert (scene.states("b-odd"), scene.states("c-good")) == ({}, {"01-01 03:30": "promoted"})
    assert caplog.text.count("b-odd: unexpected") == 1
    assert caplog.text.count("a-damaged: schedules/declared/a-damaged.json") == 1
    monkeypatch.undo()
    nights(scene, 1, 1)
    assert scene.states("b-odd") == {"01-01 03:30": "promoted"}


def test_paused_and_resumed(scene: Scene) -> None:
    scene.declare()
    change_kept(scene.root, "nightly", lambda kept: kept and kept.model_copy(update={"held": True}))
    live_through(scene, until=datetime(2026, 1, 3, tzinfo=UTC), step=30 * MINUTE)
    assert [(run.state, run.why) for run in scene.runs()] == [("skipped", "paused")] * 2
    change_kept(scene.root, "nightly", lambda kept: kept and kept.model_copy(update={"held": False}))
    live_through(scene, until=datetime(2026, 1, 4, tzinfo=UTC), step=30 * MINUTE)
    assert list(scene.states().values()) == ["skipped", "skipped", "promoted"]


def test_a_schedule_that_was_removed_lets_its_run_end(scene: Scene) -> None:
    scene.declare()
    live_through(scene, until=datetime(2026, 1, 1, 3, 35, tzinfo=UTC), step=5 * MINUTE)
    forget(scene.root, "nightly")
    live_through(scene, until=datetime(2026, 1, 3, tzinfo=UTC), step=30 * MINUTE)
    assert scene.states() == {"01-01 03:30": "promoted"}


def test_start_and_end(scene: Scene) -> None:
    scene.declare(start="2026-01-02T03:30", end="2026-01-03T03:30")
    live_through(scene, until=datetime(2026, 1, 6, tzinfo=UTC), step=30 * MINUTE)
    assert list(scene.states()) == ["01-02 03:30", "01-03 03:30"]


def test_a_deadline_is_at_risk_once(scene: Scene) -> None:
    scene.declare(deadline="1h")
    scene.pool.takes = timedelta(hours=3)
    for _ in range(90):  # a new ticker each time
        scene.ticker().once()
        scene.clock.go(minutes=5)
    (run,) = scene.runs()
    assert run.state == "promoted"
    assert "at this pace it ends at 2026-01-01 06:3" in run.at_risk
    assert [chore for _, _, chore in scene.pool.done] == ["at_risk", "succeeded"]


def test_a_run_in_time_worries_nobody(scene: Scene) -> None:
    scene.declare(deadline="1h")
    scene.pool.takes = timedelta(minutes=50)
    scene.clock.go(hours=3)
    live_through(scene, until=datetime(2026, 1, 1, 5, tzinfo=UTC), step=2 * MINUTE)
    assert scene.runs()[0].at_risk == ""
    assert scene.states() == {"01-01 03:30": "promoted"}


def by_hand(scene: Scene, hands: Hands, text: str | None = None, **words: Any) -> Run:
    from workers.schedules.kept import find_kept

    kept = find_kept(scene.root, "nightly")
    return begin(hands, kept, date_of(kept.schedule, text, scene.clock.time), scene.clock.time, "hand", **words)


def test_a_run_by_hand_waits_for_nobody_and_moves_latest_only_forward(scene: Scene) -> None:
    from generator.errors import SpecError

    scene.declare(cron="30 3 * * *", timezone="Europe/Berlin")
    scene.clock.go(days=1)
    live_through(scene, until=datetime(2026, 1, 3, 2, 39, tzinfo=UTC), step=30 * MINUTE)
    assert list(scene.states().values()) == ["promoted", "promoted", "submitted"]
    run = by_hand(scene, scene.pool, "2025-12-24")
    assert (run.state, run.date) == ("created", datetime(2025, 12, 24, 2, 30, tzinfo=UTC))
    with pytest.raises(SpecError, match="one that is created"):
        by_hand(scene, scene.pool, "2025-12-24")
    end_of_night(scene)
    assert scene.runs()[0].state == "kept"
    assert "later date" in scene.runs()[0].reason
    assert scene.pool.latest == sorted(scene.pool.latest)
    with pytest.raises(SpecError, match="one that is promoted"):
        by_hand(scene, scene.pool, "2026-01-02")
    wrong = {"2026-13-01": "a day", "soon": "a day", "2026-01-02T99:00": "a day", "2026-01-04": "a date that has come"}
    for text, told in (wrong | {"0001-01-01": "a year", "9999-12-31": "a year"}).items():
        with pytest.raises(SpecError, match=told):
            by_hand(scene, scene.pool, text)
    assert len(scene.runs()) == 4


def test_a_failed_run_is_taken_up_with_what_was_pinned_or_anew(scene: Scene, tmp_path: Path) -> None:
    move_channel(scene.root, "cats", scene.digest, by="a test")
    scene.declare(job={"channel": "cats"})
    live_through(scene, until=datetime(2026, 1, 1, 3, 35, tzinfo=UTC), step=5 * MINUTE)
    (run,) = scene.runs()
    assert run.spec is not None
    scene.pool.stop(run.spec.job_id)
    scene.ticker().once()
    assert scene.states() == {"01-01 03:30": "cancelled"}
    other = push(open_store(str(tiny_bundle(tmp_path / "other", seed=1))), scene.root)
    move_channel(scene.root, "cats", other, by="a test")
    again = by_hand(scene, scene.pool, "2026-01-01")
    assert again.spec == run.spec
    assert again.take == 2
    scene.pool.takes = timedelta(hours=9)
    end_of_night(scene)
    assert scene.states() == {"01-01 03:30": "submitted"}
    assert scene.pool.submissions == [run.spec.job_id] * 2
    scene.pool.stop(run.spec.job_id)
    end_of_night(scene)
    fresh = by_hand(scene, scene.pool, "2026-01-01", fresh=True)
    assert fresh.spec is not None
    assert (fresh.spec.recipe.bundle, fresh.take) == (other, 3)


def test_a_backfill_goes_one_by_one_beside_the_nights(scene: Scene) -> None:
    from workers.schedules.kept import find_kept

    scene.declare(overlap="skip")
    live_through(scene, until=datetime(2026, 1, 2, 12, tzinfo=UTC), step=30 * MINUTE)
    kept = find_kept(scene.root, "nightly")
    plan = plan_backfill(scene.pool, kept.schedule, *span_of(kept.schedule, "2025-12-29", "2026-01-02"))
    assert [each.wanted for each in plan] == [True, True, True, False, False]
    scene.pool.takes = timedelta(hours=8)
    for each in plan[:3]:
        begin(scene.pool, kept, each.date, scene.clock.time, "backfill")
    most, ticker = 0, scene.ticker()
    while scene.clock.time < datetime(2026, 1, 4, tzinfo=UTC):
        ticker.once()
        most = max(most, sum(run.state == "submitted" for run in scene.runs() if run.origin == "backfill"))
        scene.clock.go(minutes=20)
    assert most == 1
    states = scene.states()
    assert {date: states[date] for date in states if date.startswith("12")} == {
        "12-29 03:30": "kept", "12-30 03:30": "kept", "12-31 03:30": "kept",
    }  # fmt: skip
    assert states["01-03 03:30"] == "promoted"  # not skipped because of the backfill
    assert scene.pool.latest[-1] == datetime(2026, 1, 3, 3, 30, tzinfo=UTC)


def test_many_schedules_cost_a_pass_no_more_than_their_lists(scene: Scene) -> None:
    for number in range(30):
        scene.declare(name=f"nightly-{number}")
    nights(scene, 1, 2)
    assert {run.state for number in range(30) for run in scene.runs(f"nightly-{number}")} <= ENDED
    ticker, seen = scene.ticker(), list[str]()
    ticker.once()
    store = scene.root

    class Counting(Perishable):
        def head(self, key: str) -> Any:
            seen.append(key)
            return super().head(key)

        def get(self, key: str, *words: Any) -> bytes:
            seen.append(key)
            return super().get(key, *words)

        def list(self, prefix: str = "") -> Any:
            seen.append(f"list {prefix}")
            return super().list(prefix)

    watched = Mortal(scene.pool, Counting(store, 10**9, after=False))
    ticker = scene.ticker(watched)
    ticker.once()
    seen.clear()
    ticker.once()
    assert seen == ["list schedules/declared/", "list schedules/cursors/", "list schedules/live/"]

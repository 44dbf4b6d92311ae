"""The shelves behind the page of nights: they read what changed, and no more."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from generator.curation.gates import Check, Gates, Verdict
from generator.curation.gates.verdict import VERDICT_KEY
from generator.store import Store, open_store
from workers.schedules.runs import Run, create_run, update_run
from workers.server.runs import RunListing, RunShelf
from workers.server.verdicts import VerdictShelf

NOW = datetime(2026, 3, 20, 4, tzinfo=UTC)


@pytest.fixture
def root() -> Store:
    return open_store(f"memory://shelf-{uuid.uuid4().hex}/root")


@pytest.fixture
def requests(root: Store, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each method of memory stores is called."""
    counts, kind = Counter[str](), type(root)

    def counted(name: str) -> Callable[..., Any]:
        original = getattr(kind, name)

        def method(self: Store, *arguments: Any) -> Any:
            counts[name] += 1
            return original(self, *arguments)

        return method

    for name in ("get", "head", "list"):
        monkeypatch.setattr(kind, name, counted(name))
    return counts


def add_runs(root: Store, dates: list[datetime]) -> None:
    for date in dates:
        assert create_run(root, Run(schedule="n", date=date, state="failed", reason="x", created=date, ended=date))


def test_the_newest_runs_are_found_across_months_and_gaps(root: Store) -> None:
    near = [NOW - timedelta(days=days) for days in range(40)]
    far = [datetime(2020, 5, day, tzinfo=UTC) for day in (2, 1)]
    add_runs(root, near + far)
    shelf = RunShelf()
    runs, older = shelf.newest(RunListing(root, "n"), NOW, 30)
    assert ([run.date for run in runs], older) == (near[:30], near[30])
    runs, older = shelf.newest(RunListing(root, "n"), near[38], 3)
    assert ([run.date for run in runs], older) == ([near[38], near[39], far[0]], far[1])
    runs, older = shelf.newest(RunListing(root, "n"), NOW, 100)
    assert ([run.date for run in runs], older) == (near + far, None)
    assert shelf.newest(RunListing(root, "other"), NOW, 5) == ([], None)


def test_runs_between_two_moments_are_read_up_to_a_limit_and_then_from_memory(
    root: Store, requests: Counter[str]
) -> None:
    dates = [datetime(2026, 2, 27, tzinfo=UTC) + timedelta(hours=6 * number) for number in range(40)]
    add_runs(root, dates)
    shelf, span = RunShelf(), (datetime(2026, 2, 28, tzinfo=UTC), datetime(2026, 3, 6, tzinfo=UTC))
    inside = [date for date in reversed(dates) if span[0] <= date < span[1]]
    requests.clear()
    runs, unread = shelf.between(RunListing(root, "n"), *span, 10)
    assert ([run.date for run in runs], unread) == (inside[:10], inside[10:])
    assert (requests["list"], requests["get"]) == (2, 10)
    runs, unread = shelf.between(RunListing(root, "n"), *span, 10)
    assert ([run.date for run in runs], unread) == (inside[:20], inside[20:])
    assert requests["get"] == 20
    assert len(shelf.between(RunListing(root, "n"), *span, 0)[0]) == 20


def test_one_listing_lists_a_month_once(root: Store, requests: Counter[str]) -> None:
    add_runs(root, [NOW - timedelta(days=days) for days in range(60)])
    shelf, listing = RunShelf(), RunListing(root, "n")
    requests.clear()
    shelf.newest(listing, NOW, 50)
    shelf.between(listing, NOW.replace(month=2, day=1), NOW, 100)
    shelf.newest(listing, NOW.replace(month=2, day=1), 1)
    assert (requests["list"], requests["get"]) == (3, 50)


def test_a_run_that_changed_is_read_again(root: Store, requests: Counter[str]) -> None:
    add_runs(root, [NOW])
    shelf = RunShelf()
    assert shelf.newest(RunListing(root, "n"), NOW, 1)[0][0].state == "failed"
    update_run(root, "n", NOW, lambda run: run.model_copy(update={"state": "promoted"}))
    requests.clear()
    assert shelf.newest(RunListing(root, "n"), NOW, 1)[0][0].state == "promoted"
    assert shelf.newest(RunListing(root, "n"), NOW, 1)[0][0].state == "promoted"
    assert requests["get"] == 1


def verdict(words: str) -> bytes:
    check = Check(gate="images", holds=False, measured=1.0, threshold=2.0, words=words)
    found = Verdict(
        dataset="memory://x",
        build="0" * 20,
        logical_date=None,
        against=None,
        holds=False,
        reasons=(words,),
        checks=(check,),
        looked_at=1,
        gates=Gates(),
        judged=NOW,
    )
    return found.model_dump_json().encode()


def test_verdicts_are_held_and_read_again_when_a_build_is_judged_again(root: Store, requests: Counter[str]) -> None:
    now, builds = [0.0], [(root.at(f"b{number}"), "1") for number in range(5)]
    shelf = VerdictShelf(clock=lambda: now[0])
    for number, (build, _) in enumerate(builds[:4]):
        build.put(VERDICT_KEY, verdict(f"first {number}"))
    builds[3][0].put(VERDICT_KEY, b"damaged")
    requests.clear()
    found = [each and each.reasons[0] for each in shelf.find(builds)]
    assert found == ["first 0", "first 1", "first 2", None, None]
    asked = requests.total()
    assert [each and each.reasons[0] for each in shelf.find(builds[:3])] == found[:3]
    assert requests.total() == asked
    builds[0][0].put(VERDICT_KEY, verdict("again"))
    now[0] = 60.0
    requests.clear()
    assert [each and each.reasons[0] for each in shelf.find(builds[:3])] == ["again", *found[1:3]]
    assert requests["get"] == 3
    builds[1][0].put(VERDICT_KEY, verdict("of another take"))
    assert [each and each.reasons[0] for each in shelf.find([(builds[1][0], "2")])] == ["of another take"]
    builds[3][0].put(VERDICT_KEY, verdict("mended"))
    assert [each and each.reasons[0] for each in shelf.find(builds[3:4])] == ["mended"]

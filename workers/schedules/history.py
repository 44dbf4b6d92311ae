"""The runs of a schedule, read from the store, and how the command line shows them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from generator.store.base import Store
from workers.schedules.cron import Cron, date_key, parse_date_key
from workers.schedules.runs import RUNS, EarlierTake, Run, live_markers, read_run, run_dates


def newest_runs(root: Store, name: str, limit: int) -> list[Run]:
    """The last ``limit`` runs by date, the newest first."""
    dates = list(run_dates(root, name))[-limit:] if limit else []
    found = (read_run(root, name, date) for date in reversed(dates))
    return [run for run in found if run is not None]


def runs_since(root: Store, name: str, since: datetime, now: datetime) -> Iterator[Run]:
    """Runs with dates from ``since`` to ``now``, and unfinished ones, ascending. Older runs are not listed."""
    dates = set[datetime]()
    day = since.date()
    while day <= now.date():
        for info in root.list(f"{RUNS}{name}/{day:%Y%m%d}"):
            dates.add(parse_date_key(info.key.rpartition("/")[2].removesuffix(".json")))
        day += timedelta(days=1)
    dates = {date for date in dates if since <= date}
    dates |= {marker.date for marker, _ in live_markers(root) if marker.schedule == name}
    for date in sorted(dates):
        if (run := read_run(root, name, date)) is not None:
            yield run


def run_facts(run: Run) -> dict[str, Any]:
    """A run as the command line shows it; empty fields are omitted."""
    facts: dict[str, Any] = {
        "schedule": run.schedule,
        "date": local_text(run.date, run.zone),
        "key": date_key(run.date),
        "state": run.state,
        "reason": run.reason,
        "waits_for": run.note,
        "until": local_text(run.until, run.zone) if run.until else "",
        "deadline": local_text(run.deadline, run.zone) if run.deadline else "",
        "at_risk": run.at_risk,
        "origin": run.origin,
        "take": run.take if run.take > 1 else "",
        "dataset": run.dataset,
        "build": run.spec.build_id if run.spec else "",
        "job": run.spec.job_id if run.spec else "",
        "bundle": run.spec.recipe.bundle if run.spec else "",
        "channel": run.channel or "",
        "images": run.spec.recipe.total if run.spec else "",
        "seconds": round((run.committed - run.submitted).total_seconds(), 1) if run.committed and run.submitted else "",
        "created": run.created.isoformat(timespec="seconds"),
        "ended": run.ended.isoformat(timespec="seconds") if run.ended else "",
        "earlier": [_take_facts(take) for take in run.earlier],
    }
    return {name: value for name, value in facts.items() if value not in ("", [])}


def _take_facts(take: EarlierTake) -> dict[str, Any]:
    facts = take.model_dump(exclude={"created", "ended"}) | {
        "created": take.created.isoformat(timespec="seconds"),
        "ended": take.ended.isoformat(timespec="seconds") if take.ended else "",
    }
    return {name: value for name, value in facts.items() if value != ""}


def local_text(moment: datetime, zone: str) -> str:
    """A moment in local time of ``zone``, with its offset (ISO 8601, minutes)."""
    return Cron("* * * * *", zone).to_local(moment).isoformat(timespec="minutes")

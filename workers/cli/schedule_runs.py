"""The commands below `latentmill schedule` that are about runs: begin one, begin many, look at what became of them."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from generator.errors import SpecError
from workers.cli.output import json_option, show

if TYPE_CHECKING:
    from workers.schedules.runs import Run
    from workers.schedules.store import StoredSchedule

_CONFIRM_ABOVE = 30  # runs of a backfill that are begun without asking


def open_service() -> Any:
    """The service, by the settings of the environment."""
    from workers.schedules.service import PoolService
    from workers.settings import load_settings

    return PoolService(load_settings())


def find_schedule(name: str) -> tuple[Any, StoredSchedule]:
    """The service, and the schedule ``name``. Raises ``SpecError``."""
    from workers.schedules.store import require_stored

    hands = open_service()
    return hands, require_stored(hands.root, name)


@click.command("run")
@click.argument("name")
@click.option("--date", help="A day (2026-03-01) or a moment (2026-03-01T03:30) in the schedule's time zone; else now.")
@click.option("--fresh", is_flag=True, help="Of a run that ended: pin its job anew, with the bundle of today.")
@json_option
def run_command(name: str, date: str | None, fresh: bool, as_json: bool) -> None:
    """Begin the run of one date of NAME, or take up one that failed, was refused, or was skipped.

    A ticker takes it further, without waiting for other runs.
    """
    from workers.schedules.history import run_facts
    from workers.schedules.manual_runs import parse_date, start_run

    hands, kept = find_schedule(name)
    now = datetime.now(UTC)
    run = start_run(hands, kept, parse_date(kept.schedule, date, now), now, "hand", fresh=fresh)
    show(run_facts(run), as_json=as_json, title="begun")


@click.command("backfill")
@click.argument("name")
@click.argument("first", metavar="FROM")
@click.argument("last", metavar="TO")
@click.option("--dry-run", is_flag=True, help="Show the dates, begin nothing.")
@click.option("--yes", is_flag=True, help="Do not ask, however many there are.")
@click.option("--fresh", is_flag=True, help="Of runs that ended: pin their jobs anew, with the bundle of today.")
@json_option
def backfill_command(name: str, first: str, last: str, dry_run: bool, yes: bool, fresh: bool, as_json: bool) -> None:
    """Begin the runs of all dates of NAME from FROM to TO (days, both included, or moments) that have no dataset yet.

    They are built one after the other, beside those of every night. Dates that failed, were skipped, cancelled or
    replaced are taken up again; what was promoted, kept or refused is left alone.
    """
    from workers.schedules.manual_runs import check_not_future, parse_span, plan_backfill, start_run

    hands, kept = find_schedule(name)
    schedule, now = kept.schedule, datetime.now(UTC)
    plan = plan_backfill(hands, schedule, *parse_span(schedule, first, last))
    check_not_future(plan[-1].date, now, "to")
    dates = [each.date for each in plan if each.needs_run]
    images = schedule.job_draft(dates[0], "sha256:" + "0" * 64) if dates else None
    if not dry_run and dates:
        hands.pin(schedule, dates[0])  # what is wrong with all of them shows before the first is begun
        if len(dates) > _CONFIRM_ABOVE and not yes:
            _confirm(len(dates), name)
        for date in dates:
            start_run(hands, kept, date, now, "backfill", fresh=fresh)
    each = images.count or sum((images.counts or {}).values()) if images else 0
    facts = {"name": name, "begun": 0 if dry_run else len(dates), "dry_run": dry_run, "images_each": each}
    found = [schedule.timetable.to_local(date).isoformat(timespec="minutes") for date in dates]
    facts |= {"dates": found} if as_json else {"dates": _abbreviate(found)}
    show(facts | {"left_alone": len(plan) - len(dates)}, as_json=as_json, title="a dry run" if dry_run else "begun")


@click.command("history")
@click.argument("name")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 10_000), help="So many runs.")
@json_option
def history_command(name: str, limit: int, as_json: bool) -> None:
    """The last runs of NAME, the newest first; also of a schedule that was removed."""
    from workers.schedules.history import newest_runs, run_facts
    from workers.schedules.store import require_stored

    root = open_service().root
    runs = newest_runs(root, name, limit)
    if not runs:
        require_stored(root, name)
    if as_json:
        click.echo(json.dumps([run_facts(run) for run in runs], indent=2))
        return
    show_runs(runs) if runs else click.echo("no runs yet")


def _confirm(count: int, name: str) -> None:
    if not sys.stdin.isatty():
        hint = "look at them with --dry-run, then say --yes"
        raise SpecError("backfill", f"at most {_CONFIRM_ABOVE} runs, or --yes", f"{count:,} runs of {name}", hint)
    if not click.confirm(f"begin {count:,} runs of {name}?"):
        click.echo("nothing is begun", err=True)
        raise click.exceptions.Exit(1)


def show_runs(runs: list[Run]) -> None:
    """Runs as lines for people."""
    from workers.schedules.history import local_text

    if runs:
        click.secho(f"{'date':<22}  {'state':<9}  {'build':<20}  why", bold=True)
    for run in runs:
        until = f" (up to {local_text(run.until, run.zone)})" if run.until else ""
        note = run.note or ("waits for a scheduler" if run.state == "created" else "")
        why = "; ".join(each for each in (run.reason, note, run.at_risk and f"at risk: {run.at_risk}") if each)
        build = run.spec.build_id if run.spec else ""
        click.echo(f"{local_text(run.date, run.zone):<22}  {run.state:<9}  {build:<20}  {why}{until}".rstrip())


def _abbreviate(dates: list[str]) -> list[str]:
    return dates if len(dates) <= 6 else [*dates[:3], f"... {len(dates) - 4:,} more ...", dates[-1]]

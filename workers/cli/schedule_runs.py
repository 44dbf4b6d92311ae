"""Commands of `latentmill schedule` for runs: run (one date), backfill (many dates), history."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from generator.errors import SpecError
from workers.cli.output import json_option, show

if TYPE_CHECKING:
    from workers.schedules.runs import Run
    from workers.schedules.service import PoolService
    from workers.schedules.store import StoredSchedule

_CONFIRM_ABOVE = 30  # a backfill of more runs asks for confirmation


def open_service() -> PoolService:
    """The service with the settings of the environment."""
    from workers.schedules.service import PoolService
    from workers.settings import load_settings

    return PoolService(load_settings())


def find_schedule(name: str) -> tuple[PoolService, StoredSchedule]:
    """The service, and the schedule ``name``. Raises ``SpecError``."""
    from workers.schedules.store import require_stored

    service = open_service()
    return service, require_stored(service.root, name)


@click.command("run")
@click.argument("name")
@click.option(
    "--date", help="A day (2026-03-01) or a time (2026-03-01T03:30) in the schedule's time zone.  [default: now]"
)
@click.option("--fresh", is_flag=True, help="Resolve the job of an ended run again, with the current bundle.")
@json_option
def run_command(name: str, date: str | None, fresh: bool, as_json: bool) -> None:
    """Start the run of one date of schedule NAME, or restart one that ended without a promoted build.

    A running scheduler carries it out; it does not wait for other runs.
    """
    from workers.schedules.history import run_facts
    from workers.schedules.manual_runs import parse_date, start_run

    service, stored = find_schedule(name)
    now = datetime.now(UTC)
    run = start_run(service, stored, parse_date(stored.schedule, date, now), now, "hand", fresh=fresh)
    show(run_facts(run), as_json=as_json, title="started")


@click.command("backfill")
@click.argument("name")
@click.argument("first", metavar="FROM")
@click.argument("last", metavar="TO")
@click.option("--dry-run", is_flag=True, help="Show the dates and start nothing.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--fresh", is_flag=True, help="Resolve the jobs of ended runs again, with the current bundle.")
@json_option
def backfill_command(name: str, first: str, last: str, dry_run: bool, yes: bool, fresh: bool, as_json: bool) -> None:
    """Start the runs of all dates of schedule NAME from FROM to TO that have no dataset yet.

    FROM and TO are days (both included) or times. The runs are built one after the other, beside the scheduled ones.
    Failed, skipped, cancelled and replaced runs are restarted; unfinished, promoted, kept and refused ones are not.
    """
    from workers.schedules.manual_runs import check_not_future, parse_span, plan_backfill, start_run

    service, stored = find_schedule(name)
    schedule, now = stored.schedule, datetime.now(UTC)
    plan = plan_backfill(service, schedule, *parse_span(schedule, first, last))
    check_not_future(plan[-1].date, now, "to")
    dates = [each.date for each in plan if each.needs_run]
    images = schedule.job_draft(dates[0], "sha256:" + "0" * 64) if dates else None
    if not dry_run and dates:
        service.resolve_job(schedule, dates[0])  # an error of every date shows before the first run is started
        if len(dates) > _CONFIRM_ABOVE and not yes:
            _confirm(len(dates), name)
        for date in dates:
            start_run(service, stored, date, now, "backfill", fresh=fresh)
    each = images.count or sum((images.counts or {}).values()) if images else 0
    facts = {"name": name, "begun": 0 if dry_run else len(dates), "dry_run": dry_run, "images_each": each}
    found = [schedule.timetable.to_local(date).isoformat(timespec="minutes") for date in dates]
    facts |= {"dates": found} if as_json else {"dates": _abbreviate(found)}
    show(facts | {"left_alone": len(plan) - len(dates)}, as_json=as_json, title="a dry run" if dry_run else "started")


@click.command("history")
@click.argument("name")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 10_000), help="Maximum number of runs.")
@json_option
def history_command(name: str, limit: int, as_json: bool) -> None:
    """Show the last runs of schedule NAME, the newest first; also of a removed schedule."""
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
        hint = "check them with --dry-run, then use --yes"
        raise SpecError("backfill", f"at most {_CONFIRM_ABOVE} runs, or --yes", f"{count:,} runs of {name}", hint)
    if not click.confirm(f"start {count:,} runs of {name}?"):
        click.echo("nothing was started", err=True)
        raise click.exceptions.Exit(1)


def show_runs(runs: list[Run]) -> None:
    """Print runs as lines of text."""
    from workers.schedules.history import local_text

    if runs:
        click.secho(f"{'date':<22}  {'state':<9}  {'build':<20}  why", bold=True)
    for run in runs:
        until = f" (up to {local_text(run.until, run.zone)})" if run.until else ""
        note = run.note or ("waits for a scheduler" if run.state == "created" else "")
        before = run.earlier and f"before: {', '.join(take.state for take in run.earlier)}"
        why = "; ".join(each for each in (run.reason, note, run.at_risk and f"at risk: {run.at_risk}", before) if each)
        build = run.spec.build_id if run.spec else ""
        click.echo(f"{local_text(run.date, run.zone):<22}  {run.state:<9}  {build:<20}  {why}{until}".rstrip())


def _abbreviate(dates: list[str]) -> list[str]:
    return dates if len(dates) <= 6 else [*dates[:3], f"... {len(dates) - 4:,} more ...", dates[-1]]

"""The command group `latentmill schedule`: add, check, list, show, pause and remove schedules."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from generator.errors import LatentmillError, SpecError
from workers.cli.output import json_option, show
from workers.cli.schedule_runs import (
    backfill_command,
    find_schedule,
    history_command,
    open_service,
    run_command,
    show_runs,
)

if TYPE_CHECKING:
    from workers.schedules.runs import Run
    from workers.schedules.schedule import Schedule
    from workers.schedules.store import StoredSchedule


@click.group("schedule")
def schedule_command() -> None:
    """Schedules: datasets that are built at regular times.

    A YAML file declares a schedule; `latentmill scheduler` or `latentmill up` starts its runs.
    """


@schedule_command.command("add")
@click.argument("file", type=click.Path())
@click.option("--replace", is_flag=True, help="Replace a schedule of this name with other content.")
@json_option
def add_command(file: str, replace: bool, as_json: bool) -> None:
    """Store the schedule in FILE (YAML). Its dates are run from now on, or from its `start`.

    Checks the bundle or channel and the next dates first, and pushes a bundle outside the store root to it. The
    scheduler's machine needs the real images that gates compare with; paths missing on this machine are listed.
    """
    from workers.schedules.declare import declare
    from workers.schedules.schedule import read_schedule
    from workers.settings import load_settings

    schedule, digest = read_schedule(file)
    stored = declare(schedule, digest, open_service().root, load_settings(), datetime.now(UTC), replace=replace)
    show(_facts(stored) | _missing_facts(stored.schedule), as_json=as_json, title="scheduled")


@schedule_command.command("validate")
@click.argument("paths", nargs=-1, required=True, type=click.Path(), metavar="PATH...")
@json_option
def validate_command(paths: tuple[str, ...], as_json: bool) -> None:
    """Check schedule files (or folders of them) as `add` does, without storing anything.

    Exit code 2 if any of them is invalid.
    """
    from workers.schedules.declare import check_schedule
    from workers.schedules.folder import read_schedules, yaml_files
    from workers.settings import load_settings

    settings, root, now, results = load_settings(), open_service().root, datetime.now(UTC), list[dict[str, Any]]()
    files = [file for path_or_folder in paths for file in yaml_files(Path(path_or_folder)) or [Path(path_or_folder)]]
    for path, result in read_schedules(files).items():
        try:
            if isinstance(result, LatentmillError):
                raise result
            jobs = check_schedule(result[0], root, settings, now)
        except LatentmillError as error:
            results.append({"file": str(path), "valid": False} | error.facts())
            text = f"{path}: {error}"
        else:
            recipe = jobs[0].spec.recipe
            dates = [
                result[0].timetable.to_local(date).isoformat(timespec="minutes") for date in result[0].upcoming(now, 3)
            ]
            facts = {"file": str(path), "valid": True, "name": result[0].name, "next": dates}
            missing = _missing_facts(result[0])
            results.append(facts | {"images": recipe.total, "bundle": recipe.bundle} | missing)
            text = f"{path}: {result[0].name}, {recipe.total:,} images, next at {', '.join(dates)}"
            text += "".join(f"; not on this machine: {', '.join(places)}" for places in missing.values())
        if not as_json:
            click.echo(text, err=not results[-1]["valid"])
    if as_json:
        click.echo(json.dumps(results, indent=2))
    if not all(facts["valid"] for facts in results):
        raise click.exceptions.Exit(2)


@schedule_command.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List all schedules with their next date and the state of their last run."""
    from workers.schedules.history import newest_runs
    from workers.schedules.store import read_stored, schedule_names

    root, found = open_service().root, list[dict[str, Any]]()
    for name in schedule_names(root):
        try:
            stored = read_stored(root, name)
        except SpecError as error:
            click.echo(f"error: {error}", err=True)
            continue
        if stored is not None:
            last = newest_runs(root, name, 1)
            found.append(_facts(stored) | ({"last": _run_text(last[0])} if last else {}))
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    if not found:
        click.echo("no schedules: latentmill schedule add FILE")
        return
    width = max(len(facts["name"]) for facts in found)
    click.secho(f"{'name':<{width}}  {'cron':<16}  {'next':<22}  last", bold=True)
    for facts in found:
        when = "paused" if facts["paused"] else facts["next"][0] if facts["next"] else "none"
        click.echo(f"{facts['name']:<{width}}  {facts['cron']:<16}  {when:<22}  {facts.get('last', '')}")


@schedule_command.command("show")
@click.argument("name")
@json_option
def show_command(name: str, as_json: bool) -> None:
    """Show schedule NAME: its fields, next dates and last runs."""
    from workers.schedules.history import newest_runs, run_facts

    service, stored = find_schedule(name)
    runs = newest_runs(service.root, name, 5)
    facts = _facts(stored) | {"declared": stored.schedule.model_dump(mode="json", exclude_unset=True)}
    if as_json:
        show(facts | {"runs": [run_facts(run) for run in runs]}, as_json=True)
        return
    declared = facts.pop("declared")
    show(facts, as_json=False, title=name)
    show({key: value for key, value in declared.items() if key not in facts}, as_json=False, title="declared")
    show_runs(runs)


@schedule_command.command("remove")
@click.argument("name")
@json_option
def remove_command(name: str, as_json: bool) -> None:
    """Remove schedule NAME. Its history stays, and unfinished runs continue."""
    from workers.schedules.store import remove_schedule

    service, _ = find_schedule(name)
    remove_schedule(service.root, name)
    show({"name": name, "removed": True}, as_json=as_json)


@schedule_command.command("pause")
@click.argument("name")
@json_option
def pause_command(name: str, as_json: bool) -> None:
    """Pause schedule NAME: skip its dates until it is resumed. Unfinished runs continue."""
    _set_paused(name, True, as_json)


@schedule_command.command("resume")
@click.argument("name")
@json_option
def resume_command(name: str, as_json: bool) -> None:
    """Resume schedule NAME with its next date."""
    _set_paused(name, False, as_json)


def _set_paused(name: str, held: bool, as_json: bool) -> None:
    from workers.schedules.store import update_stored

    service, _ = find_schedule(name)
    stored = update_stored(service.root, name, lambda now: now and now.model_copy(update={"held": held}))
    if stored is None:
        raise SpecError("schedule", "an existing schedule", f"{name}, which was removed meanwhile")
    show(_facts(stored), as_json=as_json, title="its file says paused: true" if stored.paused and not held else "")


def _facts(stored: StoredSchedule) -> dict[str, Any]:
    schedule = stored.schedule
    upcoming = schedule.upcoming(datetime.now(UTC), 3)
    dates = [schedule.timetable.to_local(date).isoformat(timespec="minutes") for date in upcoming]
    where = {"channel": schedule.channel} if schedule.channel else {"bundle": schedule.job["bundle"]}
    return {
        "name": schedule.name,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "paused": stored.paused,
        "next": [] if stored.paused else dates,
        **where,
        "destination": schedule.job["destination"],
        "since": stored.since.isoformat(timespec="seconds"),
    }


def _missing_facts(schedule: Schedule) -> dict[str, Any]:
    """Reference sources that do not exist on this machine, as a fact; empty if there are none."""
    from workers.schedules.missing_sources import missing_references

    places = missing_references(schedule)
    return {"not_on_this_machine": places} if places else {}


def _run_text(run: Run) -> str:
    from workers.schedules.history import local_text

    return f"{run.state} ({local_text(run.date, run.zone)})"


for command in (run_command, backfill_command, history_command):
    schedule_command.add_command(command)

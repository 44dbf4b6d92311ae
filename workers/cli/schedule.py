"""The commands below `latentmill schedule`: declare, look at, and begin what a ticker does by itself."""

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
    """Datasets that are built again and again: declared in a YAML file, begun by `latentmill scheduler` or `up`."""


@schedule_command.command("add")
@click.argument("file", type=click.Path())
@click.option("--replace", is_flag=True, help="Also where a schedule of this name has other content.")
@json_option
def add_command(file: str, replace: bool, as_json: bool) -> None:
    """Keep the schedule in FILE. It counts from now on, or from its start.

    Bundle, channel and the next dates are checked first. A bundle that lies elsewhere is pushed to the store root. Real
    images that its gates compare with are read by the scheduler, on its machine; whether they lie on this one is said.
    """
    from workers.schedules.declare import declare
    from workers.schedules.schedule import read_schedule
    from workers.settings import load_settings

    schedule, digest = read_schedule(file)
    kept = declare(schedule, digest, open_service().root, load_settings(), datetime.now(UTC), replace=replace)
    show(_facts(kept) | _missing_facts(kept.schedule), as_json=as_json, title="scheduled")


@schedule_command.command("validate")
@click.argument("paths", nargs=-1, required=True, type=click.Path(), metavar="PATH...")
@json_option
def validate_command(paths: tuple[str, ...], as_json: bool) -> None:
    """Check schedules (files, or folders of them) as `add` would, all together; nothing is written.

    Exit code 2 if any of them is wrong.
    """
    from workers.schedules.declare import check_schedule
    from workers.schedules.folder import read_schedules, yaml_files
    from workers.settings import load_settings

    settings, root, now, told = load_settings(), open_service().root, datetime.now(UTC), list[dict[str, Any]]()
    files = [file for place in paths for file in yaml_files(Path(place)) or [Path(place)]]
    for path, read in read_schedules(files).items():
        try:
            if isinstance(read, LatentmillError):
                raise read
            jobs = check_schedule(read[0], root, settings, now)
        except LatentmillError as wrong:
            told.append({"file": str(path), "valid": False} | wrong.facts())
            text = f"{path}: {wrong}"
        else:
            recipe = jobs[0].spec.recipe
            dates = [
                read[0].timetable.to_local(date).isoformat(timespec="minutes") for date in read[0].upcoming(now, 3)
            ]
            facts = {"file": str(path), "valid": True, "name": read[0].name, "next": dates}
            missing = _missing_facts(read[0])
            told.append(facts | {"images": recipe.total, "bundle": recipe.bundle} | missing)
            text = f"{path}: {read[0].name}, {recipe.total:,} images, next at {', '.join(dates)}"
            text += "".join(f"; not on this machine: {', '.join(places)}" for places in missing.values())
        if not as_json:
            click.echo(text, err=not told[-1]["valid"])
    if as_json:
        click.echo(json.dumps(told, indent=2))
    if not all(facts["valid"] for facts in told):
        raise click.exceptions.Exit(2)


@schedule_command.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """All schedules: when they are due next, and how the last run ended."""
    from workers.schedules.history import newest_runs
    from workers.schedules.store import read_stored, schedule_names

    root, found = open_service().root, list[dict[str, Any]]()
    for name in schedule_names(root):
        try:
            kept = read_stored(root, name)
        except SpecError as damaged:
            click.echo(f"error: {damaged}", err=True)
            continue
        if kept is not None:
            last = newest_runs(root, name, 1)
            found.append(_facts(kept) | ({"last": _run_text(last[0])} if last else {}))
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    if not found:
        click.echo("no schedules: latentmill schedule add FILE")
        return
    width = max(len(facts["name"]) for facts in found)
    click.secho(f"{'name':<{width}}  {'cron':<16}  {'next':<22}  last", bold=True)
    for facts in found:
        when = "paused" if facts["paused"] else facts["next"][0] if facts["next"] else "never again"
        click.echo(f"{facts['name']:<{width}}  {facts['cron']:<16}  {when:<22}  {facts.get('last', '')}")


@schedule_command.command("show")
@click.argument("name")
@json_option
def show_command(name: str, as_json: bool) -> None:
    """Schedule NAME whole: what it says, its next dates, its last runs."""
    from workers.schedules.history import newest_runs, run_facts

    hands, kept = find_schedule(name)
    runs = newest_runs(hands.root, name, 5)
    facts = _facts(kept) | {"declared": kept.schedule.model_dump(mode="json", exclude_unset=True)}
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
    """Begin no further run of NAME. Its history stays; runs that are going on come to their end."""
    from workers.schedules.store import remove_schedule

    hands, _ = find_schedule(name)
    remove_schedule(hands.root, name)
    show({"name": name, "removed": True}, as_json=as_json)


@schedule_command.command("pause")
@click.argument("name")
@json_option
def pause_command(name: str, as_json: bool) -> None:
    """Skip the dates of NAME, until it is resumed. Runs that are going on come to their end."""
    _set_paused(name, True, as_json)


@schedule_command.command("resume")
@click.argument("name")
@json_option
def resume_command(name: str, as_json: bool) -> None:
    """Let NAME go on with its next date."""
    _set_paused(name, False, as_json)


def _set_paused(name: str, held: bool, as_json: bool) -> None:
    from workers.schedules.store import update_stored

    hands, _ = find_schedule(name)
    kept = update_stored(hands.root, name, lambda now: now and now.model_copy(update={"held": held}))
    if kept is None:
        raise SpecError("schedule", "a schedule that is kept", f"{name}, which somebody has removed")
    show(_facts(kept), as_json=as_json, title="its file says paused: true" if kept.paused and not held else "")


def _facts(kept: StoredSchedule) -> dict[str, Any]:
    schedule = kept.schedule
    upcoming = schedule.upcoming(datetime.now(UTC), 3)
    dates = [schedule.timetable.to_local(date).isoformat(timespec="minutes") for date in upcoming]
    where = {"channel": schedule.channel} if schedule.channel else {"bundle": schedule.job["bundle"]}
    return {
        "name": schedule.name,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "paused": kept.paused,
        "next": [] if kept.paused else dates,
        **where,
        "destination": schedule.job["destination"],
        "since": kept.since.isoformat(timespec="seconds"),
    }


def _missing_facts(schedule: Schedule) -> dict[str, Any]:
    """What a person has to see to: nothing, mostly."""
    from workers.schedules.declare import missing_references

    places = missing_references(schedule)
    return {"not_on_this_machine": places} if places else {}


def _run_text(run: Run) -> str:
    from workers.schedules.history import local_text

    return f"{run.state} ({local_text(run.date, run.zone)})"


for command in (run_command, backfill_command, history_command):
    schedule_command.add_command(command)

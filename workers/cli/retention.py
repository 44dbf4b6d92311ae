"""Commands about all builds of a dataset: builds (lists them), retain (deletes old ones)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from workers.cli.output import json_option

if TYPE_CHECKING:
    from generator.curation.retention import CommittedBuild, Intents, Retention
    from workers.settings import Settings

_STATES = ("latest", "pinned", "refused")


@click.command("builds")
@click.argument("dataset")
@json_option
def builds_command(dataset: str, as_json: bool) -> None:
    """List the committed builds of DATASET, the newest first, with their state (latest, pinned, refused)."""
    from generator.curation.retention import read_committed_builds
    from generator.datasets.builds import check_dataset
    from workers.cli.arguments import dataset_at
    from workers.settings import load_settings

    store, _ = dataset_at(dataset, load_settings())
    builds = sorted(read_committed_builds(store), key=lambda each: (each.date, each.build), reverse=True)
    if not builds:
        check_dataset(store)
    if as_json:
        click.echo(json.dumps([_facts(each) for each in builds], indent=2))
        return
    if not builds:
        click.echo("no committed build")
    for each in builds:
        click.echo(f"{each.build}  {each.date:%Y-%m-%d %H:%M}  {', '.join(_facts(each)['state'])}".rstrip())


@click.command("retain")
@click.argument("dataset")
@click.option("--last", type=int, help="Number of newest builds to keep.  [default: 7]")
@click.option("--weeks", help="Number of weeks whose last build is kept, or `all`.  [default: 5]")
@click.option("--months", help="Number of months whose last build is kept, or `all`.  [default: 12]")
@click.option("--root", help="Store root with the markers of open builds.  [default: the configured one]")
@click.option("--dry-run", is_flag=True, help="Only show what would be deleted.")
@json_option
def retain_command(
    dataset: str,
    last: int | None,
    weeks: str | None,
    months: str | None,
    root: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Delete the builds of DATASET that the retention rule does not keep: whole builds, manifest first.

    The build that readers get, the one promoted before it, and pinned builds are never deleted. A refused build is
    deleted once it is not among the --last newest. The next `retain` finishes an interrupted deletion.
    """
    from generator.curation.retention import apply_retention, plan_retention, read_committed_builds
    from generator.datasets.builds import check_dataset
    from workers.cli.arguments import dataset_at
    from workers.settings import load_settings

    settings, rule = load_settings(), _retention_rule(last=last, weeks=weeks, months=months)
    store, _ = dataset_at(dataset, settings)
    builds = read_committed_builds(store)
    if not builds:
        check_dataset(store)
    plan = plan_retention(builds, rule)
    done = None if dry_run else apply_retention(store, plan, intents=_read_intents(settings, root))
    deleted, wanted = (() if done is None else done.deleted), (() if done is None else done.wanted)
    if as_json:
        kept = [_facts(each) | {"why": list(why)} for each, why in plan.keep]
        planned = [_facts(each) for each in plan.delete]
        objects = 0 if done is None else done.objects
        facts = {"dry_run": dry_run, "keep": kept, "delete": planned, "deleted": list(deleted), "objects": objects}
        click.echo(json.dumps(facts | {"wanted": list(wanted)}, indent=2))
        return
    for each, why in plan.keep:
        click.echo(f"{'keep':<8} {each.build}  {each.date:%Y-%m-%d %H:%M}  {', '.join(why)}")
    for each in plan.delete:
        state = "wanted" if each.build in wanted else "deleted" if each.build in deleted else "delete"
        click.echo(f"{state:<8} {each.build}  {each.date:%Y-%m-%d %H:%M}")
    more = "; a dry run" if done is None else f", {done.objects:,} object(s) removed"
    click.echo(f"{len(plan.keep)} to keep, {len(plan.delete)} to delete{more}")


def _facts(build: CommittedBuild) -> dict[str, Any]:
    states = [name for name in _STATES if getattr(build, name)]
    return {"build": build.build, "date": build.date.isoformat(timespec="minutes"), "state": states}


def _retention_rule(**options: Any) -> Retention:
    from generator.curation.retention import Retention
    from generator.errors import SpecError
    from generator.spec.canonical import validate

    fields = {name: value for name, value in options.items() if value is not None}
    for name in ("weeks", "months"):
        if name in fields:
            fields[name] = None if fields[name] == "all" else int(fields[name]) if fields[name].isdecimal() else "?"
    return validate(Retention, fields, field="", error=SpecError)


def _read_intents(settings: Settings, root: str | None) -> Intents:
    """The intents of open jobs in the store root; in an empty root, no job is open."""
    from generator.store import open_store
    from workers.broker.connection import embedded_root
    from workers.jobs.build_intents import BuildIntents

    intents = BuildIntents(open_store(root or embedded_root(settings) or settings.root, settings.s3))
    return (lambda _: None) if intents.root_is_empty else intents

"""Commands that say which build readers get, and which stay: promote, rollback, gate, pin, unpin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from workers.cli.output import json_option, show

if TYPE_CHECKING:
    from generator.curation.gates import Gates, Verdict
    from generator.datasets.promotion import DatasetState
    from generator.store import Store


@click.command("promote")
@click.argument("dataset")
@click.argument("build", required=False)
@click.option("--date", help="The logical date the build is for: 2026-07-01, 2026-07-01T04:00+02:00.")
@click.option("--again", is_flag=True, help="Also where it was rolled back.")
@json_option
def promote_command(dataset: str, build: str | None, date: str | None, again: bool, as_json: bool) -> None:
    """Let readers of DATASET get BUILD: its name or the first digits of it.

    Without BUILD, the newest one that its gates did not keep back. Exit code 1 where a build of a later logical date
    is promoted already (`latentmill rollback DATASET --to BUILD` goes back to one), or BUILD was rolled back.
    """
    from generator.datasets.promotion import promote
    from generator.errors import BuildConflict
    from workers.cli.arguments import current_user, dataset_at, match_build, newest_build, parse_moment
    from workers.settings import load_settings

    store, named = dataset_at(dataset, load_settings())
    wanted, when = build or named, parse_moment(date)
    chosen = match_build(store, wanted) if wanted else newest_build(store)
    done = promote(store, chosen, logical_date=when, by=current_user(), again=again)
    if not done.is_current:
        current = done.state.current
        after = f"one before that of {current.build} ({current.logical_date})" if current else "another"
        got, hint = {
            "older": (after, f"latentmill rollback {dataset} --to {chosen}"),
            "withdrawn": ("one that somebody rolled back", "--again promotes it all the same"),
        }[done.outcome]
        raise BuildConflict("promote", "a build that may follow the one that readers get", f"{chosen}, {got}", hint)
    _warn_if_refused(store, chosen)
    title = "promoted" if done.outcome == "moved" else "promoted before"
    show(_facts(store.url, done.state), as_json=as_json, title=title)


@click.command("rollback")
@click.argument("dataset")
@click.option("--to", help="A committed build, or the first digits of its name; by default the one before.")
@click.option("--undo", is_flag=True, help="Take the last rollback back.")
@json_option
def rollback_command(dataset: str, to: str | None, undo: bool, as_json: bool) -> None:
    """Let readers of DATASET get the build that was promoted before.

    A schedule does not promote again what was rolled back; the next build that holds its gates it does.
    """
    from generator.datasets.promotion import rollback
    from generator.errors import DatasetError
    from workers.cli.arguments import current_user, dataset_at, match_build
    from workers.settings import load_settings

    if to is not None and undo:
        raise DatasetError("rollback", "--to or --undo", "both")
    store, _ = dataset_at(dataset, load_settings())
    standing = rollback(store, by=current_user(), to=match_build(store, to) if to else None, undo=undo)
    show(_facts(store.url, standing), as_json=as_json, title="rolled forward again" if undo else "rolled back")


@click.command("gate")
@click.argument("dataset")
@click.argument("gates", required=False, type=click.Path())
@click.option("--build", help="The build, or the first digits of its name; by default the newest one.")
@click.option("--bundle", help="Bundle directory or URL; by default the one of that digest in the store root.")
@click.option("--promote", "then", is_flag=True, help="Promote the build if they hold.")
@click.option("--date", help="The logical date the build is for.")
@json_option
def gate_command(
    dataset: str,
    gates: str | None,
    build: str | None,
    bundle: str | None,
    then: bool,
    date: str | None,
    as_json: bool,
) -> None:
    """Measure a build of DATASET and say whether the gates in GATES (a YAML file) hold. Exit code 1 if not.

    Without GATES they are those of a schedule that states none. The verdict goes to reports/verdict.json of the build.
    """
    from generator.curation.gates import evaluate_gates
    from generator.datasets.promotion import promote
    from generator.datasets.replay import recipe_at
    from generator.drafts import find_bundle
    from generator.errors import BundleError
    from generator.store import open_store
    from workers.broker.connection import embedded_root
    from workers.cli.arguments import current_user, dataset_at, match_build, newest_build, parse_moment
    from workers.settings import load_settings

    settings, wanted, when = load_settings(), _read_gates(gates), parse_moment(date)
    store, named = dataset_at(dataset, settings)
    chosen = match_build(store, build or named or "") if build or named else newest_build(store)
    digest = recipe_at(f"{store.url}/builds/{chosen}", settings.s3).bundle
    try:
        root = open_store(embedded_root(settings) or settings.root, settings.s3)
        home = find_bundle(bundle or digest, root, settings.s3)
    except BundleError:
        home = None
    say = (lambda _: None) if as_json else (lambda stage: click.echo(stage, err=True))
    verdict = evaluate_gates(store, chosen, wanted, logical_date=when, bundle=home, s3=settings.s3, on_stage=say)
    _show_verdict(verdict, as_json=as_json)
    if not verdict.holds:
        raise click.exceptions.Exit(1)
    if then:
        done = promote(store, chosen, logical_date=when, by=current_user())
        if not as_json:
            click.echo("promoted" if done.is_current else f"not promoted: {done.outcome}")


@click.command("pin")
@click.argument("dataset")
@click.argument("build")
@click.option("--note", default="", help="Why.")
@json_option
def pin_command(dataset: str, build: str, note: str, as_json: bool) -> None:
    """Keep BUILD of DATASET from retention, until it is unpinned."""
    from generator.datasets.promotion import pin
    from workers.cli.arguments import current_user, dataset_at, match_build
    from workers.settings import load_settings

    store, _ = dataset_at(dataset, load_settings())
    standing = pin(store, match_build(store, build), by=current_user(), note=note)
    show(_facts(store.url, standing), as_json=as_json, title="pinned")


@click.command("unpin")
@click.argument("dataset")
@click.argument("build")
@json_option
def unpin_command(dataset: str, build: str, as_json: bool) -> None:
    """Let retention decide about BUILD of DATASET again."""
    from generator.datasets.promotion import read_state, unpin
    from generator.errors import DatasetError
    from workers.cli.arguments import dataset_at
    from workers.settings import load_settings

    store, _ = dataset_at(dataset, load_settings())
    standing = read_state(store)
    pinned = [each for each in (standing.pinned if standing else ()) if each.startswith(build)]
    if len(pinned) != 1:  # a pinned build may be gone: it is looked for among the pins
        raise DatasetError("build", f"a pinned build of {store.url}", build)
    found = unpin(store, pinned[0])
    assert found is not None
    show(_facts(store.url, found), as_json=as_json, title="unpinned")


def _facts(url: str, standing: DatasetState) -> dict[str, Any]:
    current = standing.current
    facts: dict[str, Any] = {"dataset": url, "build": standing.build}
    if current is not None:
        date = current.logical_date
        facts["logical_date"] = None if date is None else date.isoformat(timespec="minutes")
        facts |= {"by": current.by, "at": current.at.isoformat(timespec="seconds")}
    facts["before"] = [each.build for each in standing.previous]
    facts["pinned"] = [pin.build for pin in standing.pins]
    return facts


def _warn_if_refused(store: Store, build: str) -> None:
    """A person may promote what gates kept back, and is told."""
    from generator.curation.gates import read_verdict
    from generator.datasets.builds import build_store

    verdict = read_verdict(build_store(store, build))
    for reason in () if verdict is None else verdict.reasons:
        click.secho(f"its gates had kept it back: {reason}", fg="yellow", err=True)


def _read_gates(path: str | None) -> Gates:
    from generator.curation.gates import Gates
    from generator.drafts import parse_mapping, read_yaml_file
    from generator.errors import SpecError
    from generator.spec.canonical import validate

    if path is None:
        return Gates()
    fields = parse_mapping(read_yaml_file(path, "gates"), where=path, field="gates")
    return validate(Gates, fields, field="", error=SpecError)


def _show_verdict(verdict: Verdict, *, as_json: bool) -> None:
    if as_json:
        click.echo(verdict.model_dump_json(indent=2))
        return
    title = "the gates hold" if verdict.holds else "kept back"
    click.secho(f"{title}: build {verdict.build}, {verdict.looked_at:,} images looked at", bold=True)
    width = max((len(check.gate) for check in verdict.checks), default=0)
    for check in verdict.checks:
        state = {True: "holds", False: "FAILS", None: "-"}[check.holds]
        click.secho(f"  {check.gate:<{width}}  {state:<5}  {check.words}", fg="red" if check.holds is False else None)

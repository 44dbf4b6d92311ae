"""Commands that choose the build that readers get, and protect builds: promote, rollback, gate, pin, unpin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from workers.cli.dataset_bundle import dataset_bundle
from workers.cli.output import json_option, show

if TYPE_CHECKING:
    from generator.curation.gates import Gates, Verdict
    from generator.datasets.promotion import DatasetState
    from generator.store import Store


@click.command("promote")
@click.argument("dataset")
@click.argument("build", required=False)
@click.option("--date", help="Logical date of the build: 2026-07-01, 2026-07-01T04:00+02:00.")
@click.option("--again", is_flag=True, help="Promote it even if it was rolled back.")
@json_option
def promote_command(dataset: str, build: str | None, date: str | None, again: bool, as_json: bool) -> None:
    """Make BUILD (its name, or the first digits of it) the build that readers of DATASET get.

    Without BUILD, the newest one that its gates did not refuse. Exit code 1 if a build of a later logical date is
    promoted already (to go back, use `latentmill rollback DATASET --to BUILD`), or if BUILD was rolled back.
    """
    from generator.datasets.promotion import promote
    from generator.errors import BuildConflict
    from workers.cli.arguments import current_user, dataset_at, match_build, newest_build, parse_moment
    from workers.settings import load_settings

    store, named = dataset_at(dataset, load_settings())
    requested, when = build or named, parse_moment(date)
    chosen = match_build(store, requested) if requested else newest_build(store)
    done = promote(store, chosen, logical_date=when, by=current_user(), again=again)
    if not done.is_current:
        current = done.state.current
        older = f"of an earlier date than {current.build} ({current.logical_date})" if current else "of an earlier date"
        got, hint = {
            "older": (older, f"latentmill rollback {dataset} --to {chosen}"),
            "withdrawn": ("which was rolled back", "--again promotes it nevertheless"),
        }[done.outcome]
        raise BuildConflict(
            "promote", "a build with a later date than the promoted one, and not rolled back", f"{chosen}, {got}", hint
        )
    _warn_if_refused(store, chosen)
    title = "promoted" if done.outcome == "moved" else "promoted already"
    show(_facts(store.url, done.state), as_json=as_json, title=title)


@click.command("rollback")
@click.argument("dataset")
@click.option("--to", help="A committed build, or the first digits of its name.  [default: the previous one]")
@click.option("--undo", is_flag=True, help="Undo the last rollback.")
@json_option
def rollback_command(dataset: str, to: str | None, undo: bool, as_json: bool) -> None:
    """Go back to the build that was promoted before: readers of DATASET get it from now on.

    A schedule does not promote a rolled-back build again; it does promote the next build whose gates hold.
    """
    from generator.datasets.promotion import rollback
    from generator.errors import DatasetError
    from workers.cli.arguments import current_user, dataset_at, match_build
    from workers.settings import load_settings

    if to is not None and undo:
        raise DatasetError("rollback", "--to or --undo", "both")
    store, _ = dataset_at(dataset, load_settings())
    state = rollback(store, by=current_user(), to=match_build(store, to) if to else None, undo=undo)
    show(_facts(store.url, state), as_json=as_json, title="rolled forward again" if undo else "rolled back")


@click.command("gate")
@click.argument("dataset")
@click.argument("gates", required=False, type=click.Path())
@click.option("--build", help="The build, or the first digits of its name.  [default: the newest]")
@click.option("--bundle", help="Bundle directory or URL.  [default: the dataset's bundle, from the store root]")
@click.option("--promote", "promote_if_held", is_flag=True, help="Promote the build if its gates hold.")
@click.option("--date", help="Logical date of the build.")
@json_option
def gate_command(
    dataset: str,
    gates: str | None,
    build: str | None,
    bundle: str | None,
    promote_if_held: bool,
    date: str | None,
    as_json: bool,
) -> None:
    """Evaluate the gates in GATES (a YAML file) on a build of DATASET. Exit code 1 if they do not hold.

    Without GATES, the default gates of schedules apply. Writes the verdict to reports/verdict.json of the build.
    """
    from generator.curation.gates import evaluate_gates
    from generator.datasets.promotion import promote
    from generator.datasets.replay import recipe_at
    from generator.errors import BundleError
    from workers.broker.connection import embedded_root
    from workers.cli.arguments import current_user, dataset_at, match_build, newest_build, parse_moment
    from workers.settings import load_settings

    settings, thresholds, when = load_settings(), _read_gates(gates), parse_moment(date)
    store, named = dataset_at(dataset, settings)
    chosen = match_build(store, build or named or "") if build or named else newest_build(store)
    digest = recipe_at(f"{store.url}/builds/{chosen}", settings.s3).bundle
    try:
        bundle_location = dataset_bundle(bundle, digest, settings, embedded_root(settings))
    except BundleError:
        bundle_location = None
    say = (lambda _: None) if as_json else (lambda stage: click.echo(stage, err=True))
    verdict = evaluate_gates(
        store,
        chosen,
        thresholds,
        logical_date=when,
        bundle=bundle_location,
        s3=settings.s3,
        on_stage=say,
        trusted=settings.read_trusted_keys() if thresholds.signed else (),
    )
    _show_verdict(verdict, as_json=as_json)
    if not verdict.holds:
        raise click.exceptions.Exit(1)
    if promote_if_held:
        done = promote(store, chosen, logical_date=when, by=current_user())
        if not as_json:
            click.echo("promoted" if done.is_current else f"not promoted: {done.outcome}")


@click.command("pin")
@click.argument("dataset")
@click.argument("build")
@click.option("--note", default="", help="Reason, recorded with the pin.")
@json_option
def pin_command(dataset: str, build: str, note: str, as_json: bool) -> None:
    """Protect BUILD of DATASET from retention until it is unpinned."""
    from generator.datasets.promotion import pin
    from workers.cli.arguments import current_user, dataset_at, match_build
    from workers.settings import load_settings

    store, _ = dataset_at(dataset, load_settings())
    state = pin(store, match_build(store, build), by=current_user(), note=note)
    show(_facts(store.url, state), as_json=as_json, title="pinned")


@click.command("unpin")
@click.argument("dataset")
@click.argument("build")
@json_option
def unpin_command(dataset: str, build: str, as_json: bool) -> None:
    """Remove the pin of BUILD of DATASET, so that retention may delete it."""
    from generator.datasets.promotion import read_state, unpin
    from generator.errors import DatasetError
    from workers.cli.arguments import dataset_at
    from workers.settings import load_settings

    store, _ = dataset_at(dataset, load_settings())
    state = read_state(store)
    pinned = [each for each in (state.pinned if state else ()) if each.startswith(build)]
    if len(pinned) != 1:  # search the pins, since a pinned build may not exist any more
        raise DatasetError("build", f"a pinned build of {store.url}", build)
    found = unpin(store, pinned[0])
    assert found is not None
    show(_facts(store.url, found), as_json=as_json, title="unpinned")


def _facts(url: str, state: DatasetState) -> dict[str, Any]:
    current = state.current
    facts: dict[str, Any] = {"dataset": url, "build": state.build}
    if current is not None:
        date = current.logical_date
        facts["logical_date"] = None if date is None else date.isoformat(timespec="minutes")
        facts |= {"by": current.by, "at": current.at.isoformat(timespec="seconds")}
    facts["before"] = [each.build for each in state.previous]
    facts["pinned"] = [pin.build for pin in state.pins]
    return facts


def _warn_if_refused(store: Store, build: str) -> None:
    """Warn a person who promotes a build that its gates refused."""
    from generator.curation.gates import read_verdict
    from generator.datasets.builds import build_store

    verdict = read_verdict(build_store(store, build))
    for reason in () if verdict is None else verdict.reasons:
        click.secho(f"its gates refused it: {reason}", fg="yellow", err=True)


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
    title = "the gates hold" if verdict.holds else "the gates do not hold"
    click.secho(f"{title}: build {verdict.build}, {verdict.looked_at:,} images checked", bold=True)
    width = max((len(check.gate) for check in verdict.checks), default=0)
    for check in verdict.checks:
        state = {True: "holds", False: "FAILS", None: "-"}[check.holds]
        click.secho(f"  {check.gate:<{width}}  {state:<5}  {check.words}", fg="red" if check.holds is False else None)

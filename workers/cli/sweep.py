"""The command sweep: finds and removes the leftovers of crashes and abandoned builds."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from generator.errors import SpecError
from workers.cli.output import json_option

if TYPE_CHECKING:
    from generator.curation.retention import Orphan

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MIN_AGE_SECONDS = 60  # objects that are still being written are younger
_MAX_LISTED = 1000


@click.command("sweep")
@click.argument("places", nargs=-1, required=True, metavar="PLACE...")
@click.option(
    "--older-than", "age", default="1d", show_default=True, help="Minimum age of a leftover: 90s, 30m, 12h, 7d."
)
@click.option("--root", help="Store root with the markers of open builds.  [default: the configured one]")
@click.option("--delete", is_flag=True, help="Remove the leftovers; without it, only list them.")
@json_option
def sweep_command(places: tuple[str, ...], age: str, root: str | None, delete: bool, as_json: bool) -> None:
    """Find leftovers at each PLACE: a store root, a destination, a dataset, or a directory of bundles.

    Leftovers are temporary objects, unfinished uploads, unfinished bundles, and builds that were cancelled, that failed
    or that have no marker. Committed, open and paused builds are never touched. The recipe of a build with a marker
    stays, so that the job can be resumed from the start. An unfinished build of `latentmill generate`, or of a pool
    with another store root, has no marker here: only --older-than protects it.
    """
    from generator.curation.retention import find_orphans
    from generator.store import open_store
    from workers.broker.connection import embedded_root
    from workers.jobs.build_intents import BuildIntents
    from workers.settings import load_settings

    settings, before = load_settings(), datetime.now(UTC) - timedelta(seconds=_parse_age(age))
    intents = BuildIntents(open_store(root or embedded_root(settings) or settings.root, settings.s3))
    report = _SweepReport(delete)
    for place in places:
        for found in find_orphans(open_store(place, settings.s3), before, intents):
            report.add(found, found.remove() if delete else 0, shown=not as_json)
    if intents.root_is_empty:
        click.echo("the store root is empty: no build was touched; give the root with the markers as --root", err=True)
    report.finish(intents.unreadable, as_json=as_json)


class _SweepReport:
    """Totals by kind, and the first leftovers in full."""

    def __init__(self, delete: bool) -> None:
        self._delete = delete
        self._found, self._bytes, self._removed = Counter[str](), Counter[str](), Counter[str]()
        self._listed: list[dict[str, Any]] = []

    def add(self, found: Orphan, removed: int, *, shown: bool) -> None:
        self._found[found.kind] += found.objects
        self._bytes[found.kind] += found.bytes
        self._removed[found.kind] += removed
        if shown:
            size = f"{found.objects:,} object(s), {found.bytes:,} bytes"
            click.echo(f"{'removed' if removed else 'found':<9}{found.kind:<11}{found.where}: {found.why}, {size}")
        elif len(self._listed) < _MAX_LISTED:
            facts = {"kind": found.kind, "where": found.where, "why": found.why, "objects": found.objects}
            newest = found.modified.isoformat(timespec="seconds")
            self._listed.append(facts | {"bytes": found.bytes, "modified": newest, "removed": removed})

    def finish(self, unreadable: tuple[str, ...], *, as_json: bool) -> None:
        totals = {
            kind: {"objects": self._found[kind], "bytes": self._bytes[kind], "removed": self._removed[kind]}
            for kind in sorted(self._found)
        }
        if as_json:
            facts = {"dry_run": not self._delete, "totals": totals, "leftovers": self._listed}
            click.echo(json.dumps(facts | {"unreadable_markers": list(unreadable)}, indent=2))
            return
        for job in unreadable:
            click.echo(f"the marker of {job} cannot be read: no build was touched", err=True)
        found, removed = sum(self._found.values()), sum(self._removed.values())
        click.echo(
            f"{found:,} object(s) found, {removed:,} removed" + ("" if self._delete else "; a dry run: add --delete")
        )


def _parse_age(age: str) -> int:
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", age)
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not _MIN_AGE_SECONDS <= seconds <= 36_500 * 86400:
        raise SpecError("older-than", "an age of at least 60s: 90s, 30m, 12h, 7d", repr(age[:50]))
    return seconds

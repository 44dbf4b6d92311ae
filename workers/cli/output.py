"""Output of commands: aligned lines of text, or one JSON document with ``--json``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from generator.production.pipeline.run_costs import Pace
    from workers.jobs.status import JobStatus

_TRACEBACK_LINES = 20  # of a traceback in the text output
_OPTIONAL_FIELDS = ("waits_for", "error", "dead", "missing", "missing_shards")  # omitted if empty

F = TypeVar("F", bound=Callable[..., Any])


def json_option(command: F) -> F:
    """``--json``: print one JSON document instead of text."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def show(facts: Mapping[str, Any], *, as_json: bool, title: str = "") -> None:
    """Print facts as ``name  value`` lines below ``title``, or as one JSON object."""
    if as_json:
        click.echo(json.dumps(facts, indent=2, default=str))
        return
    if title:
        click.secho(title, bold=True)
    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        click.echo(f"  {name.replace('_', ' '):<{width}}  {_value_text(value)}")


def _value_text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def status_facts(status: JobStatus) -> dict[str, Any]:
    """A job's status as the command line shows it, with the numbers and errors of shards that were given up."""
    from datetime import UTC, datetime

    facts = status.model_dump(mode="json", exclude={"submitted", *_OPTIONAL_FIELDS})
    if status.submitted:
        facts["submitted"] = datetime.fromtimestamp(status.submitted, UTC).isoformat(timespec="seconds")
    facts |= {name: getattr(status, name) for name in ("waits_for", "error") if getattr(status, name)}
    if status.dead:
        facts["dead"] = [dead.model_dump(mode="json") for dead in status.dead]
    if status.missing_shards:
        facts["missing_shards"] = status.missing_shards
        facts["missing"] = _range_texts(status.missing)
    return facts


def show_status(status: JobStatus, *, as_json: bool, title: str = "", pace: Pace | None = None) -> None:
    """Print a job's status and, if known, its pace; as text also the errors of shards that were given up."""
    facts = status_facts(status) | ({} if pace is None else {"pace": pace.model_dump(mode="json")})
    if pace is not None and not as_json:
        facts |= {"pace": _pace_text(pace)}
    if as_json:
        show(facts, as_json=True)
        return
    facts.pop("dead", None)
    show(facts, as_json=False, title=title)
    for dead in status.dead:
        name = "the commit" if dead.shard is None else f"shard {dead.shard}"
        click.secho(f"  given up: {name}, after {dead.faults} fault(s): {dead.error}", fg="red")
    if status.dead and status.dead[-1].traceback:
        click.echo("  traceback of the last one (all of them with --json):")
        for line in status.dead[-1].traceback.splitlines()[-_TRACEBACK_LINES:]:
            click.echo(f"    {line}")
    if status.dead and status.state != "committed":
        click.echo(f"  once the cause is fixed: latentmill resume {status.job}")


def _pace_text(pace: Pace) -> str:
    shares = ", ".join(f"{stage} {share:.0f}%" for stage, share in pace.share.items() if share >= 0.5)
    return f"{pace.images_per_second:,.0f} images/s per process, {pace.device_seconds_per_image:.2g} s each; {shares}"


def _range_texts(missing: Iterable[tuple[int, int]]) -> list[str]:
    return [str(first) if first == last else f"{first}-{last}" for first, last in missing]

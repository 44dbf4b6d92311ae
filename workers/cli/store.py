"""The command group store: test a store against the store contract."""

from __future__ import annotations

import json
import textwrap
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from generator.errors import SettingsError, StoreError
from workers.cli.output import json_option

if TYPE_CHECKING:
    from generator.testing.runner import CheckResult

_PARTS = ("contract", "states")  # the parts of generator.testing.runner
_LABELS = {"ok": ("ok", "green"), "failed": ("FAILED", "red"), "skipped": ("skipped", "yellow")}
_MAX_FOUND = 500  # characters printed of what a check found


@click.group("store")
def store_command() -> None:
    """Test the stores that hold bundles and datasets."""


@store_command.command("test")
@click.argument("url")
@click.option(
    "--examples", default=25, show_default=True, type=click.IntRange(1, 10_000), help="Number of random sequences."
)
@click.option(
    "--shrink-seconds",
    default=20.0,
    show_default=True,
    type=click.FloatRange(0.0, 3600.0),
    help="Time to look for a shorter sequence that fails too.",
)
@click.option("--only", type=click.Choice(_PARTS), help="Only the contract, or only the random sequences.")
@json_option
def test_command(url: str, examples: int, shrink_seconds: float, only: str | None, as_json: bool) -> None:
    """Test the store at URL: conditional writes, whole objects, listings, keys, and writers that are killed.

    URL is a directory, s3://bucket/prefix (with the S3 settings of the environment), gs://bucket/prefix,
    az://container/prefix, or memory://name. All objects are written below a new random prefix, which is removed at the
    end; other objects are not touched. Random sequences of operations kill processes in the middle of a write. Exit
    code 1 if a check failed, 2 if the store cannot be tested.
    """
    runner = _load_runner()
    from generator.store import absolute_url, open_store
    from generator.testing.temporary_prefix import temporary_prefix
    from workers.settings import load_settings

    address, began = absolute_url(url), time.monotonic()
    open_url = partial(open_store, s3=load_settings().s3)
    with ExitStack() as stack:
        try:
            below = stack.enter_context(temporary_prefix(open_url(address)))
        except StoreError as away:  # no such store, or no rights: an error of input, not a failed check
            away.exit_code = 2
            raise
        if not as_json:
            click.echo(f"testing {address} below {below.url}")
        results = []
        parts = (only,) if only else _PARTS
        for result in runner.run_checks(below, open_url, parts=parts, examples=examples, shrink_seconds=shrink_seconds):
            results.append(result)
            if not as_json:
                _show_result(result)
    _finish(address, results, time.monotonic() - began, as_json=as_json)


def _load_runner() -> Any:
    """``generator.testing.runner``. Raises ``SettingsError`` if the extra ``testing`` is not installed."""
    try:
        from generator.testing import runner
    except ModuleNotFoundError as missing:
        if missing.name not in ("hypothesis", "pytest"):
            raise
        hint = "pip install 'latentmill[testing]'"
        raise SettingsError(
            "store test", "the packages of the extra `testing`", f"no {missing.name}", hint
        ) from missing
    return runner


def _show_result(result: CheckResult) -> None:
    label, colour = _LABELS[result.status]
    found = textwrap.shorten(result.found, _MAX_FOUND, placeholder=" ...")
    click.echo(f"{click.style(f'{label:<9}', colour)}{result.check}{': ' if found else ''}{found}")
    for number, step in enumerate(result.steps, 1):
        click.echo(f"{'':<9}{number:>3}. {step}")


def _finish(address: str, results: list[CheckResult], seconds: float, *, as_json: bool) -> None:
    counts = {status: sum(result.status == status for result in results) for status in _LABELS}
    if as_json:
        facts = {"store": address, "passed": not counts["failed"], "seconds": round(seconds, 1), "counts": counts}
        click.echo(json.dumps(facts | {"checks": [result.facts() for result in results]}, indent=2))
    else:
        skipped = f", {counts['skipped']} skipped" if counts["skipped"] else ""
        click.echo(f"{counts['ok']} ok, {counts['failed']} failed{skipped}, in {seconds:.1f} s")
    if counts["failed"]:
        raise click.exceptions.Exit(1)

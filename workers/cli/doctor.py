"""The command doctor: checks settings, Redis, store, bundles, disks and device."""

from __future__ import annotations

import json
import re
from typing import Any

import click

from generator.errors import SpecError
from workers.cli.output import json_option

_PARTS = ("settings", "redis", "store", "bundles", "disks", "device")  # the parts of workers.doctor
_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}


@click.command("doctor")
@click.option("--bundle", help="Check that this bundle (sha256:...) is in the store root and intact.")
@click.option("--root", help="Store root; by default the configured one.")
@click.option("--only", multiple=True, type=click.Choice(_PARTS), help="Check only this part; repeat for more.")
@click.option("--make-bucket", is_flag=True, help="Create the bucket of the store root first, if it is missing.")
@json_option
def doctor_command(
    bundle: str | None, root: str | None, only: tuple[str, ...], make_bucket: bool, as_json: bool
) -> None:
    """Check settings, Redis, store, bundles, disks and device of this machine, and say how to fix what is wrong.

    Exit code 1 if a check failed; warnings do not count. Writes and removes a few small objects and keys.
    """
    from generator.store import absolute_url
    from workers.broker.connection import embedded_root
    from workers.doctor import PARTS, examine
    from workers.settings import load_settings

    settings = load_settings()
    place = absolute_url(root or embedded_root(settings) or settings.root)
    if bundle is not None:
        _check_digest(bundle)
    if make_bucket:
        _make_bucket(place, settings.s3)
    findings = []
    for finding in examine(settings, place, parts=only or PARTS, bundle=bundle):
        findings.append(finding)
        if not as_json:
            click.echo(
                f"{click.style(f'{finding.status:<8}', _COLOURS[finding.status])}{finding.check:<24}{finding.found}"
            )
            if finding.mend:
                click.echo(f"{'':<32}mend: {finding.mend}")
    bad = [finding for finding in findings if finding.status == "failed"]
    if as_json:
        facts = {"healthy": not bad, "findings": [finding.facts() for finding in findings]}
        click.echo(json.dumps(facts, indent=2))
    if bad:
        raise click.exceptions.Exit(1)


def _check_digest(bundle: str) -> None:
    if re.fullmatch(r"sha256:[0-9a-f]{64}", bundle) is None:
        raise SpecError("bundle", "sha256: and 64 hexadecimal digits", repr(bundle[:100]))


def _make_bucket(root: str, s3: Any) -> None:
    from generator.store import open_store

    make = getattr(open_store(root, s3), "make_bucket", None)
    made = make is not None and make()
    click.echo(f"{root}: {'bucket made' if made else 'nothing had to be made'}", err=True)

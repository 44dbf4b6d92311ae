"""Commands that copy bundles into and out of the store root: push, pull."""

from __future__ import annotations

from pathlib import Path

import click

from workers.cli.output import json_option, show


@click.command("push")
@click.argument("bundle")
@click.option("--root", help="Store root; by default the configured one.")
@click.option("--channel", help="Then make it the newest bundle of this channel.")
@json_option
def push_command(bundle: str, root: str | None, channel: str | None, as_json: bool) -> None:
    """Copy BUNDLE (a directory or URL) into the store root, where workers find it by its digest.

    Pushing it again changes nothing, or repairs a damaged copy.
    """
    from generator.models.bundle import bundle_store, push
    from generator.models.bundle.channels import check_channel_name, move_channel
    from generator.store import open_store
    from workers.broker.connection import embedded_root
    from workers.cli.arguments import current_user
    from workers.settings import load_settings

    settings, line = load_settings(), None if channel is None else check_channel_name(channel)
    target = open_store(root or embedded_root(settings) or settings.root, settings.s3)
    digest = push(open_store(bundle, settings.s3), target)
    facts = {"digest": digest, "url": bundle_store(target, digest).url}
    if line is not None:
        facts["channel"] = move_channel(target, line, digest, by=current_user()).line
    show(facts, as_json=as_json, title="pushed")


@click.command("pull")
@click.argument("digest")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Directory for the bundle; must not exist.")
@click.option("--root", help="Store root; by default the configured one.")
@json_option
def pull_command(digest: str, out: Path, root: str | None, as_json: bool) -> None:
    """Copy the bundle DIGEST (sha256:...) from the store root to a directory, and verify it."""
    from generator.models.bundle import pull
    from generator.store import open_store
    from workers.settings import load_settings

    settings = load_settings()
    pull(open_store(root or settings.root, settings.s3), digest, out)
    show({"digest": digest, "bundle": str(out)}, as_json=as_json, title="pulled")
